-- Sessions erased whole: centroids may still exist, and their names wait for that.
CREATE TABLE unfinished_session (
    session         INTEGER PRIMARY KEY
) STRICT;
