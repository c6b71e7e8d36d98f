//! Keeps jobs, decisions and registrations in an SQLite database.
//!
//! One thread writes. Whatever is asked of it while a transaction is being synced to disk goes
//! into the next one together, so many small commits cost one sync, and none is answered before
//! it is durable. Reads go through connections of their own and wait for no writer.

mod clock_mark;
mod failure;
mod history;
mod jobs;
mod keys;
mod open;
mod readers;
mod record;
mod registrations;
mod schema;
mod set_aside;
mod store;
mod wal;
mod writer;

#[cfg(test)]
mod testing;

pub use history::History;
pub use open::OpenError;
pub use set_aside::SetAside;
pub use store::{SqliteStore, StoreConfig};
