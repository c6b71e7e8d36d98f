//! The tables, and how older ones become newer ones.

/// Marks the file as ours: `Offl`.
pub(crate) const APPLICATION_ID: i32 = 0x4F66_666C;

/// Each entry takes the schema from its index to the next version. Released entries never change.
pub(crate) const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

/// Times are Unix milliseconds. `seq` is the order of acceptance and never used twice.
const VERSION_1: &str = "
CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT    NOT NULL UNIQUE,
    owner           INTEGER NOT NULL,
    client          TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    image_asked     TEXT    NOT NULL,
    site_url_asked  TEXT    NOT NULL,
    site_url        TEXT,
    max_duration_ms INTEGER NOT NULL,
    inputs          TEXT    NOT NULL,
    submitted_at    INTEGER NOT NULL,
    start_by        INTEGER NOT NULL,
    state           TEXT    NOT NULL,
    until           INTEGER,
    since           INTEGER,
    deadline        INTEGER,
    kill_at         INTEGER,
    stop_cause      TEXT,
    forget          INTEGER,
    ended_at        INTEGER,
    end_reason      TEXT,
    end_code        INTEGER,
    outcome         TEXT,
    delivery        TEXT,
    unsent_bytes    INTEGER
) STRICT;
-- Each of these ends in seq, which makes it the order of a page too.
CREATE INDEX jobs_by_owner ON jobs (owner);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_owner_and_state ON jobs (owner, state);
CREATE INDEX jobs_removed ON jobs (ended_at) WHERE state = 'removed';

CREATE TABLE attempts (
    job        INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    image      TEXT    NOT NULL,
    image_id   TEXT,
    started_at INTEGER NOT NULL,
    running_at INTEGER,
    ended_at   INTEGER,
    reason     TEXT,
    exit_code  INTEGER,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE decisions (
    seq              INTEGER PRIMARY KEY,
    job              INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    at               INTEGER NOT NULL,
    hook             TEXT    NOT NULL,
    attempt          INTEGER,
    policy           TEXT    NOT NULL,
    component_sha256 TEXT    NOT NULL,
    settings_sha256  TEXT    NOT NULL,
    read             TEXT    NOT NULL,
    outcome          TEXT    NOT NULL,
    verdict          TEXT    NOT NULL,
    value            TEXT,
    reason           TEXT,
    micros           INTEGER NOT NULL
) STRICT;
CREATE INDEX decisions_by_job ON decisions (job);

-- What a submission is known by. It outlives its job's record, hence no reference.
-- until is empty while the job is active.
CREATE TABLE keys (
    owner       INTEGER NOT NULL,
    digest      TEXT    NOT NULL,
    job_id      TEXT    NOT NULL,
    body_sha256 TEXT    NOT NULL,
    until       INTEGER,
    PRIMARY KEY (owner, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_job ON keys (job_id);
CREATE INDEX keys_by_end ON keys (until) WHERE until IS NOT NULL;

CREATE TABLE registrations (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    client        TEXT    NOT NULL UNIQUE,
    key_hash      TEXT    NOT NULL,
    registered_at INTEGER NOT NULL
) STRICT;
";

/// `removed_at` is when pruning first saw the job removed, empty until then. What is in `probe`
/// means nothing: it is written to find out whether the disk takes it.
const VERSION_2: &str = "
ALTER TABLE jobs ADD COLUMN removed_at INTEGER;
DROP INDEX jobs_removed;
CREATE INDEX jobs_removed ON jobs (removed_at) WHERE state = 'removed';
CREATE TABLE probe (filler BLOB NOT NULL) STRICT;
";

/// Decisions of policies that are only monitored are kept too.
const VERSION_3: &str = "
ALTER TABLE decisions ADD COLUMN enforced INTEGER NOT NULL DEFAULT TRUE;
";

/// The service's time and what the machine's clocks said then; `boot` and `uptime_ms` are empty
/// where the machine does not tell.
const VERSION_4: &str = "
CREATE TABLE clock_mark (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    time      INTEGER NOT NULL,
    wall      INTEGER NOT NULL,
    boot      TEXT,
    uptime_ms INTEGER
) STRICT;
";

/// The job whose undelivered work a job sends in again; empty for all others.
const VERSION_5: &str = "
ALTER TABLE jobs ADD COLUMN resends TEXT;
";
