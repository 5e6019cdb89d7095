-- What the texts of placed episodes are, as digests by which a run finds exact copies. Filled behind runs, and in the
-- order of the digests: one by one each of them would cost a page.
CREATE TABLE digest (
    session         INTEGER NOT NULL,
    digest          BLOB    NOT NULL,            -- ww_core.stores.texts
    seq             INTEGER NOT NULL,
    PRIMARY KEY (session, digest, seq)
) STRICT, WITHOUT ROWID;

-- The membership up to which that has been done, in the order of (from_version, seq).
ALTER TABLE session ADD COLUMN digested_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN digested_seq INTEGER NOT NULL DEFAULT 0;
