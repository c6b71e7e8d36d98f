//! What submissions are known by, so that sending one again does not run it again.
//!
//! A key stands for its job while that is active and for a day after it ended, if it had run. A
//! job that never ran gives its keys up.

use std::time::Duration;

use domain::{Job, JobId, Timestamp};
use engine::{JobKey, KeyedJob};
use rusqlite::{Connection, OptionalExtension};

use crate::failure::Failure;

/// How long a key stands for a job that ended having run.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// The job that a key stands for at `now`.
pub(crate) fn find(
    db: &Connection,
    key: &JobKey,
    now: Timestamp,
) -> Result<Option<KeyedJob>, Failure> {
    let row = db
        .prepare_cached(
            "SELECT job_id, body_sha256 FROM keys
             WHERE owner = ?1 AND digest = ?2 AND (until IS NULL OR until > ?3)",
        )?
        .query_row((key.owner.0, &key.digest, now.as_millis()), |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        })
        .optional()?;
    row.map(|(id, body_sha256)| {
        let id = id
            .parse::<JobId>()
            .map_err(|_| Failure::malformed("keys.job_id", id))?;
        Ok(KeyedJob { id, body_sha256 })
    })
    .transpose()
}

/// Makes keys stand for a new job.
pub(crate) fn add(
    db: &Connection,
    keys: &[JobKey],
    job: &JobId,
    body_sha256: &str,
) -> Result<(), Failure> {
    for key in keys {
        db.prepare_cached(
            "INSERT OR REPLACE INTO keys (owner, digest, job_id, body_sha256, until)
             VALUES (?1, ?2, ?3, ?4, NULL)",
        )?
        .execute((key.owner.0, &key.digest, job.as_str(), body_sha256))?;
    }
    Ok(())
}

/// Brings a job's keys in line with its state.
pub(crate) fn follow(db: &Connection, job: &Job) -> Result<(), Failure> {
    match job.state.end() {
        None => Ok(()),
        Some(end) if job.ever_ran() => keep_until(db, &job.id, end.at.plus(REMEMBERED)),
        Some(_) => {
            db.prepare_cached("DELETE FROM keys WHERE job_id = ?1")?
                .execute([job.id.as_str()])?;
            Ok(())
        }
    }
}

/// Lets a job's keys stand until then.
pub(crate) fn keep_until(db: &Connection, job: &JobId, until: Timestamp) -> Result<(), Failure> {
    db.prepare_cached("UPDATE keys SET until = ?2 WHERE job_id = ?1 AND until IS NOT ?2")?
        .execute((job.as_str(), until.as_millis()))?;
    Ok(())
}

/// Removes keys that stand for nothing any more, at most `limit` of them; how many, it tells.
pub(crate) fn prune(db: &Connection, now: Timestamp, limit: i64) -> Result<usize, Failure> {
    let pruned = db
        .prepare_cached(
            "DELETE FROM keys WHERE (owner, digest) IN
                 (SELECT owner, digest FROM keys WHERE until IS NOT NULL AND until <= ?1 LIMIT ?2)",
        )?
        .execute([now.as_millis(), limit])?;
    Ok(pruned)
}
