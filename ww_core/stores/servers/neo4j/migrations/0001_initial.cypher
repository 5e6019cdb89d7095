// Times are integers, microseconds since 1970 UTC. `ns` separates deployments that share a server. An index holds only
// nodes that have all of its properties: what leaves the outbox, the order of its session or the dirty rows leaves the
// index with it.

CREATE CONSTRAINT ww_episode IF NOT EXISTS FOR (e:Episode) REQUIRE (e.ns, e.id) IS UNIQUE;
CREATE CONSTRAINT ww_session IF NOT EXISTS FOR (s:Session) REQUIRE (s.ns, s.id) IS UNIQUE;
CREATE CONSTRAINT ww_counter IF NOT EXISTS FOR (c:Counter) REQUIRE (c.ns, c.session, c.shard) IS UNIQUE;
CREATE CONSTRAINT ww_lease IF NOT EXISTS FOR (l:Lease) REQUIRE (l.ns, l.id) IS UNIQUE;
CREATE CONSTRAINT ww_cluster IF NOT EXISTS FOR (c:Cluster) REQUIRE (c.ns, c.id) IS UNIQUE;
CREATE CONSTRAINT ww_run IF NOT EXISTS FOR (r:Run) REQUIRE (r.ns, r.id) IS UNIQUE;
CREATE CONSTRAINT ww_run_seq IF NOT EXISTS FOR (r:Run) REQUIRE (r.ns, r.session, r.seq) IS UNIQUE;
CREATE CONSTRAINT ww_run_window IF NOT EXISTS FOR (r:Run) REQUIRE (r.ns, r.session, r.window) IS UNIQUE;
CREATE CONSTRAINT ww_fact IF NOT EXISTS FOR (f:Fact) REQUIRE (f.ns, f.key) IS UNIQUE;
CREATE CONSTRAINT ww_schema IF NOT EXISTS FOR (s:Schema) REQUIRE s.name IS UNIQUE;

CREATE INDEX ww_episode_queue IF NOT EXISTS FOR (e:Episode) ON (e.queue, e.t);
CREATE INDEX ww_episode_in_session IF NOT EXISTS FOR (e:Episode) ON (e.ns, e.session, e.place);
CREATE INDEX ww_episode_in_time IF NOT EXISTS FOR (e:Episode) ON (e.ns, e.place);
CREATE INDEX ww_episode_payload IF NOT EXISTS FOR (e:Episode) ON (e.ns, e.payload_dirty);
CREATE INDEX ww_episode_context IF NOT EXISTS FOR (e:Episode) ON (e.ns, e.context_dirty);
CREATE INDEX ww_fresh IF NOT EXISTS FOR (e:Fresh) ON (e.ns, e.session, e.place);
CREATE INDEX ww_dead IF NOT EXISTS FOR (e:Dead) ON (e.ns, e.id);
CREATE INDEX ww_erased IF NOT EXISTS FOR (e:Erased) ON (e.ns, e.session);
CREATE INDEX ww_unfinished IF NOT EXISTS FOR (e:Unfinished) ON (e.ns, e.seq);
CREATE INDEX ww_lease_token IF NOT EXISTS FOR (l:Lease) ON (l.ns, l.token);
CREATE INDEX ww_lease_expiry IF NOT EXISTS FOR (l:Lease) ON (l.ns, l.expires_at);
CREATE INDEX ww_run_age IF NOT EXISTS FOR (r:Run) ON (r.ns, r.ordinal);
CREATE INDEX ww_run_version IF NOT EXISTS FOR (r:Run) ON (r.ns, r.session, r.version);
CREATE INDEX ww_run_open IF NOT EXISTS FOR (r:Run) ON (r.ns, r.open);
CREATE INDEX ww_member_begun IF NOT EXISTS FOR ()-[m:MEMBER_OF]-() ON (m.ns, m.session, m.from);
CREATE INDEX ww_member_ended IF NOT EXISTS FOR ()-[m:MEMBER_OF]-() ON (m.ns, m.session, m.to);
CREATE INDEX ww_near_begun IF NOT EXISTS FOR ()-[m:NEAR]-() ON (m.ns, m.session, m.from);
CREATE INDEX ww_near_ended IF NOT EXISTS FOR ()-[m:NEAR]-() ON (m.ns, m.session, m.to);
CREATE INDEX ww_found_medoid IF NOT EXISTS FOR ()-[f:FOUND]-() ON (f.ns, f.medoid);
CREATE INDEX ww_found_version IF NOT EXISTS FOR ()-[f:FOUND]-() ON (f.ns, f.session, f.version);
