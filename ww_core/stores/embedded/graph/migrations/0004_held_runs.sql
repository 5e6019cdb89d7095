-- Which theme of its session a cluster is in; empty: none.
ALTER TABLE cluster ADD COLUMN theme TEXT NOT NULL DEFAULT '';
-- Runs under a lease: also published ones, while their worker tidies up.
CREATE INDEX run_held ON run (session) WHERE token IS NOT NULL;
