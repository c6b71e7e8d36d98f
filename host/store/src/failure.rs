//! What can go wrong inside, before it becomes the port's error.

use engine::StoreError;
use rusqlite::ErrorCode;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// SQLite said no.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// The transaction that the operation was part of could not be committed.
    #[error("not committed: {0}")]
    NotCommitted(String),
    /// A row holds what no version of this program writes.
    #[error("the record is damaged: {0}")]
    Malformed(String),
    /// The record to change is not there.
    #[error("there is no such job")]
    NoSuchJob,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl Failure {
    pub(crate) fn malformed(column: &str, value: impl std::fmt::Debug) -> Self {
        Self::Malformed(format!("{column} is {value:?}"))
    }

    /// Whether the disk or the system is to blame, so that other writes will hardly fare better.
    pub(crate) fn is_of_the_file(&self) -> bool {
        let Self::Sql(error) = self else {
            return false;
        };
        matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::PermissionDenied
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
            )
        )
    }

    pub(crate) fn during(self, operation: &'static str) -> StoreError {
        StoreError {
            operation,
            detail: self.to_string(),
        }
    }
}
