// Sessions erased whole: centroids may still exist, and their names wait for that.
CREATE INDEX ww_leaving IF NOT EXISTS FOR (s:Leaving) ON (s.ns, s.id);
CREATE INDEX ww_cluster_in_session IF NOT EXISTS FOR (c:Cluster) ON (c.ns, c.session);
