// What the texts of placed episodes are, as digests by which a run finds exact copies. Sessions that had runs before
// say how far their episodes have been gone through for that.
CREATE INDEX ww_episode_digest IF NOT EXISTS FOR (e:Episode) ON (e.ns, e.session, e.digest, e.seq);
MATCH (s:Session) WHERE s.last_version > 0 SET s.digested = '';
