//! What can go wrong inside, before it becomes the port's error.

use engine::StoreError;

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

    pub(crate) fn during(self, operation: &'static str) -> StoreError {
        StoreError {
            operation,
            detail: self.to_string(),
        }
    }
}
