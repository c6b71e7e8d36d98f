//! Connections that only read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::failure::Failure;

/// A few connections; each read takes one.
pub(crate) struct Readers {
    connections: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        let connections = connections.into_iter().map(Mutex::new).collect();
        Self {
            connections,
            turn: AtomicUsize::new(0),
        }
    }

    /// Runs `work`, which is one statement. Takes microseconds for a record or two.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        work(&self.connection())
    }

    /// Runs `work`, all statements of it on one state of the database.
    pub(crate) fn read_snapshot<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let db = self.connection();
        let snapshot = db.unchecked_transaction()?;
        work(&snapshot)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        let idle = self
            .connections
            .iter()
            .find_map(|connection| connection.try_lock().ok());
        idle.unwrap_or_else(|| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
            self.connections[turn]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
    }
}
