-- The process that holds a lease, by the name of its lock file; empty: unknown, and then only time frees it.
ALTER TABLE lease ADD COLUMN holder TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN holder TEXT NOT NULL DEFAULT '';
