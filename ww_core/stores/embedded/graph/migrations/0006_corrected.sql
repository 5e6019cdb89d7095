-- Episodes whose content an update replaced: the digest of the one they were stored with is the content of a body.
CREATE TABLE corrected (
    seq             INTEGER PRIMARY KEY,
    body            INTEGER NOT NULL             -- ww_core.stores.texts.exact_digest, as hexadecimal digits
) STRICT;
