-- Episodes whose content an update replaced: a body has the digest of the one that they were stored with.
CREATE TABLE corrected (
    seq             INTEGER PRIMARY KEY,
    body            INTEGER NOT NULL             -- its content is ww_core.stores.texts.first_digest
) STRICT;
