//! Connections that only read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::failure::Failure;

/// A few connections; each read takes one.
pub(crate) struct Readers {
    /// Empty ones are closed.
    connections: Vec<Mutex<Option<Connection>>>,
    turn: AtomicUsize,
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        let each = |connection| Mutex::new(Some(connection));
        Self {
            connections: connections.into_iter().map(each).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Closes all connections, once the reads under way are done.
    pub(crate) fn close(&self) {
        for connection in &self.connections {
            *lock(connection) = None;
        }
    }

    /// Runs `work`, which is one statement. Takes microseconds for a record or two.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        work(self.connection().as_ref().ok_or(Failure::Closed)?)
    }

    /// Runs `work`, all statements of it on one state of the database.
    pub(crate) fn read_snapshot<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let db = self.connection();
        let snapshot = db
            .as_ref()
            .ok_or(Failure::Closed)?
            .unchecked_transaction()?;
        work(&snapshot)
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        let idle = self
            .connections
            .iter()
            .find_map(|connection| connection.try_lock().ok());
        idle.unwrap_or_else(|| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
            lock(&self.connections[turn])
        })
    }
}

fn lock(connection: &Mutex<Option<Connection>>) -> MutexGuard<'_, Option<Connection>> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
