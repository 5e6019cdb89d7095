-- Times are integers, microseconds since 1970 UTC. States: 0 pending, 1 leased, 2 embedded, 3 dead, 4 erased.
-- `seq` numbers the rows in the order they were stored; `version` numbers a session's runs in the order they started.

CREATE TABLE session (
    session         INTEGER PRIMARY KEY,
    session_id      TEXT    NOT NULL UNIQUE,
    acknowledged    INTEGER NOT NULL DEFAULT 0,  -- counted with the insert, not from the rows: a row that vanishes shows
    current         INTEGER NOT NULL DEFAULT 0,  -- version of the visible run, 0: none
    last_version    INTEGER NOT NULL DEFAULT 0,  -- highest version ever given to a run
    oldest_version  INTEGER NOT NULL DEFAULT 0,  -- state before this version was pruned
    leftovers       INTEGER NOT NULL DEFAULT 0   -- 1: rows of runs that are not visible may have to be cleared away
) STRICT;

-- Every text that people wrote or that was made of it. A row is appended, and later emptied, but never grown, moved or
-- deleted: SQLite then never copies text between pages, and secure_delete wipes all there is of it.
CREATE TABLE body (
    body            INTEGER PRIMARY KEY,
    content         TEXT,
    context         TEXT                         -- second part: an episode's context (JSON), a traceback, key phrases (JSON)
) STRICT;

CREATE TABLE episode (
    seq             INTEGER PRIMARY KEY,
    episode_id      TEXT    NOT NULL UNIQUE,
    session         INTEGER NOT NULL,
    at              INTEGER,                     -- timestamp; NULL once erased
    position        INTEGER NOT NULL,
    outcome         TEXT,
    importance      REAL    NOT NULL,
    body            INTEGER,
    stored_at       INTEGER NOT NULL,
    open_since      INTEGER NOT NULL,            -- since when it waits for its vectors
    state           INTEGER NOT NULL DEFAULT 0,
    lease           INTEGER DEFAULT 0,           -- NULL: not in the outbox, 0: pending, else who holds it
    due_at          INTEGER NOT NULL DEFAULT 0,  -- 0: at once
    batch           INTEGER NOT NULL DEFAULT 0,  -- 0: never lost, else the part of a lost lease it is handed out with
    generation      INTEGER NOT NULL DEFAULT 0,
    deliveries      INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    losses          INTEGER NOT NULL DEFAULT 0,  -- leases lost while it was handed out alone
    windows         INTEGER NOT NULL DEFAULT 0,
    embedded_at     INTEGER,
    archived        INTEGER NOT NULL DEFAULT 0,
    stability       REAL    NOT NULL DEFAULT 0,
    recalled_at     INTEGER,
    CHECK ((lease IS NULL) = (state >= 2))
) STRICT;

CREATE INDEX episode_in_session ON episode (session, at, position, episode_id) WHERE at IS NOT NULL;
CREATE INDEX episode_in_time ON episode (at, position) WHERE at IS NOT NULL;
CREATE INDEX episode_outbox ON episode (lease, batch, due_at) WHERE lease IS NOT NULL;
CREATE INDEX episode_ended ON episode (state, session) WHERE state >= 3;

-- One row for each claim; a token may hold several.
CREATE TABLE lease (
    lease           INTEGER PRIMARY KEY,
    token           TEXT    NOT NULL,
    expires_at      INTEGER NOT NULL,
    alone           INTEGER NOT NULL
) STRICT;

CREATE INDEX lease_token ON lease (token);
CREATE INDEX lease_expiry ON lease (expires_at);

CREATE TABLE dead (
    seq             INTEGER PRIMARY KEY,
    attempts        INTEGER NOT NULL,
    failed_at       INTEGER NOT NULL,
    body            INTEGER NOT NULL
) STRICT;

CREATE TABLE dirty (
    kind            TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    PRIMARY KEY (kind, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX dirty_age ON dirty (kind, version);

-- Erased rows whose vectors may still exist.
CREATE TABLE unfinished (
    seq             INTEGER PRIMARY KEY
) STRICT;

-- Embedded episodes that no visible run has looked at. A row may outlive the publication of a run for a moment:
-- readers look for a visible membership as well.
CREATE TABLE fresh (
    session         INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    episode_id      TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    PRIMARY KEY (session, at, position, episode_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE cluster_name (
    cluster         INTEGER PRIMARY KEY,
    cluster_id      TEXT    NOT NULL UNIQUE
) STRICT;

-- Visible where from_version <= session.current < to_version (NULL: for ever).
CREATE TABLE membership (
    session         INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    from_version    INTEGER NOT NULL,
    to_version      INTEGER,
    cluster         INTEGER,
    nearest         INTEGER,
    distance        REAL    NOT NULL,
    duplicate_of    INTEGER,
    PRIMARY KEY (session, seq, from_version)
) STRICT, WITHOUT ROWID;

CREATE INDEX membership_begun ON membership (session, from_version);
CREATE INDEX membership_ended ON membership (session, to_version) WHERE to_version IS NOT NULL;
CREATE INDEX membership_cluster ON membership (cluster) WHERE cluster IS NOT NULL;
CREATE INDEX membership_original ON membership (duplicate_of) WHERE duplicate_of IS NOT NULL;

CREATE TABLE run (
    run             INTEGER PRIMARY KEY,
    run_id          TEXT    NOT NULL UNIQUE,
    session         INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    status          TEXT    NOT NULL,
    time_window     TEXT,
    version         INTEGER NOT NULL DEFAULT 0,  -- 0: never started
    base            INTEGER,                     -- version that was visible before this one; NULL: never published
    token           TEXT,
    expires_at      INTEGER NOT NULL DEFAULT 0,
    requested_at    INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    considered      INTEGER NOT NULL DEFAULT 0,
    sampled         INTEGER NOT NULL DEFAULT 0,
    assigned        INTEGER NOT NULL DEFAULT 0,
    noise           INTEGER NOT NULL DEFAULT 0,
    folded          INTEGER NOT NULL DEFAULT 0,
    seconds         REAL    NOT NULL DEFAULT 0,
    progress        REAL    NOT NULL DEFAULT 0,
    error           TEXT,
    UNIQUE (session, seq)
) STRICT;

CREATE UNIQUE INDEX run_window ON run (session, time_window) WHERE time_window IS NOT NULL;
CREATE INDEX run_open ON run (session, status) WHERE status IN ('requested', 'running');
CREATE INDEX run_version ON run (session, version);

-- The clusters of a published run.
CREATE TABLE cluster (
    session         INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    cluster         INTEGER NOT NULL,
    place           INTEGER NOT NULL,            -- in the run's own order
    size            INTEGER NOT NULL,
    radius          REAL    NOT NULL,
    change          TEXT    NOT NULL,
    parents         TEXT    NOT NULL,            -- JSON list of cluster ids
    medoid          INTEGER,
    created_at      INTEGER,
    exemplars       TEXT    NOT NULL,            -- JSON list of episode.seq
    cohesion        REAL    NOT NULL,
    clustered_size  INTEGER NOT NULL,
    strays          INTEGER NOT NULL,
    body            INTEGER NOT NULL,            -- label and key phrases; runs that do not differ share it
    PRIMARY KEY (session, version, cluster)
) STRICT, WITHOUT ROWID;

CREATE INDEX cluster_medoid ON cluster (medoid) WHERE medoid IS NOT NULL;
CREATE INDEX cluster_body ON cluster (body);

CREATE TABLE counter (
    name            TEXT    PRIMARY KEY,
    value           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE fact (
    key             TEXT    PRIMARY KEY,
    value           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
