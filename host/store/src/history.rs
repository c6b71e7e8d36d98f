//! What was decided, read beside a service that goes on writing.

use std::path::Path;

use domain::{Decision, Job, JobId, Timestamp};
use engine::StoreError;
use rusqlite::{Connection, OpenFlags};

use crate::failure::Failure;
use crate::jobs;
use crate::open::{OpenError, connect, explain};
use crate::schema::{APPLICATION_ID, MIGRATIONS};

/// Jobs and their decisions, to be read only. Takes no lock: the service may run or not.
pub struct History {
    db: Connection,
}

impl History {
    /// Opens the database of a store.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is not one of ours, or of another version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        const OPERATION: &str = "opening it for reading";
        let failed = |error: &rusqlite::Error| match explain(path, OPERATION, error) {
            known @ (OpenError::Foreign { .. } | OpenError::Damaged { .. }) => known,
            _ => OpenError::Failed {
                path: path.into(),
                operation: OPERATION,
                detail: error.to_string(),
            },
        };
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| failed(&error))?;
        let read = |pragma: &str| {
            db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
                .map_err(|error| failed(&error))
        };
        if read("application_id")? != i64::from(APPLICATION_ID) {
            return Err(OpenError::Foreign { path: path.into() });
        }
        let (found, known) = (read("user_version")?, MIGRATIONS.len() as i64);
        if found > known {
            return Err(OpenError::Newer {
                path: path.into(),
                found,
                known,
            });
        }
        if found < known {
            return Err(OpenError::Failed {
                path: path.into(),
                operation: OPERATION,
                detail: "its tables are older; the service brings them up to date when it starts"
                    .to_owned(),
            });
        }
        Ok(Self { db })
    }

    /// The jobs about which something was decided at `since` or later, in the order of acceptance.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn decided_since(&self, since: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let read = || {
            let mut statement = self.db.prepare_cached(
                "SELECT id FROM jobs
                 WHERE seq IN (SELECT job FROM decisions WHERE at >= ?1) ORDER BY seq",
            )?;
            let ids = statement.query_map([since.as_millis()], |row| row.get::<_, String>(0))?;
            ids.map(|id| {
                let id = id?;
                id.parse().map_err(|_| Failure::malformed("id", id))
            })
            .collect::<Result<_, Failure>>()
        };
        read().map_err(|failure| failure.during("looking for decided jobs"))
    }

    /// A job and its decisions, oldest first, as they are at one moment; `None` when its record is
    /// gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn job(&self, id: &JobId) -> Result<Option<(Job, Vec<Decision>)>, StoreError> {
        let read = || {
            let snapshot = self.db.unchecked_transaction()?;
            let Some(job) = jobs::find(&snapshot, id)? else {
                return Ok(None);
            };
            Ok(Some((job, jobs::decisions(&snapshot, id)?)))
        };
        read().map_err(|failure: Failure| failure.during("reading a job's history"))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests prepare files")]
#[path = "history_tests.rs"]
mod tests;
