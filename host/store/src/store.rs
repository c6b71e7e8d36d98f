//! The store: what the engine and the API ask, given to the writer or the readers.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{ClientId, ClockMark, Decision, Job, JobId, RegistrationId, Timestamp};
use engine::{
    Accepted, JobKey, JobQuery, KeyedJob, NewJob, Registered, RegisteredClient, Registration,
    Registrations, Store, StoreError,
};
use rusqlite::Connection;

use crate::failure::Failure;
use crate::jobs::PastReading;
use crate::open::{self, OpenError, Opened};
use crate::readers::Readers;
use crate::set_aside::SetAside;
use crate::writer::Writer;
use crate::{clock_mark, jobs, keys, registrations};

/// Where the store is.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The database. Its directory has to exist; a lock and SQLite's own files are kept beside it,
    /// under its name with other endings.
    pub path: PathBuf,
}

/// The store. Dropping it waits for what was asked of it, then lets go of the files.
pub struct SqliteStore {
    readers: Arc<Readers>,
    warnings: Vec<String>,
    /// How many jobs seem to hold a slot whose records make no sense.
    past_reading: u32,
    // In the order of dropping: the writer is gone before the lock is.
    writer: Writer,
    _lock: File,
}

impl Drop for SqliteStore {
    /// SQLite tidies up when the last connection closes, which has to be the one that writes.
    fn drop(&mut self) {
        self.readers.close();
    }
}

impl SqliteStore {
    /// Opens the database, or creates it.
    ///
    /// # Errors
    /// When it cannot be had, or is not one of ours, newer, damaged or in use. It is left as it is.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        Self::start(open::open(&config.path)?, config)
    }

    /// The same; but a database of ours that is damaged is set aside, whole, and a new one begun.
    ///
    /// # Errors
    /// As for [`Self::open`], and when what is damaged cannot be renamed.
    pub fn open_or_set_aside(
        config: StoreConfig,
        now: Timestamp,
    ) -> Result<(Self, Option<SetAside>), OpenError> {
        let (opened, set_aside) = open::open_or_set_aside(&config.path, now)?;
        let mut store = Self::start(opened, config)?;
        if set_aside.is_some() {
            let warning = "it was damaged, and set aside when the service started";
            store.warnings.push(warning.to_owned());
        }
        Ok((store, set_aside))
    }

    fn start(opened: Opened, config: StoreConfig) -> Result<Self, OpenError> {
        let writer = Writer::start(opened.writer).map_err(|error| OpenError::Failed {
            path: config.path,
            operation: "starting its thread",
            detail: error.to_string(),
        })?;
        let unread = &opened.past_reading;
        for PastReading { id, state, detail } in unread {
            tracing::error!(
                job = id,
                state = state.as_str(),
                detail,
                "the record of a job cannot be read; the job is left as it is, with its container \
                 and its volume"
            );
        }
        let holds_slot = |record: &&PastReading| record.state.holds_slot();
        let past_reading = unread.iter().filter(holds_slot).count();
        let warning = format!(
            "{} records of jobs cannot be read; the log names them",
            unread.len()
        );
        Ok(Self {
            readers: Arc::new(Readers::new(opened.readers)),
            warnings: (!unread.is_empty())
                .then_some(warning)
                .into_iter()
                .collect(),
            past_reading: u32::try_from(past_reading).unwrap_or(u32::MAX),
            writer,
            _lock: opened.lock,
        })
    }

    /// The service's time as it was kept last, with what the clocks said then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError> {
        self.look_up("reading the time", clock_mark::read)
    }

    /// Keeps the service's time for the next start.
    ///
    /// # Errors
    /// When it cannot be saved.
    pub async fn save_clock_mark(&self, mark: ClockMark) -> Result<(), StoreError> {
        self.write("saving the time", move |db| clock_mark::save(db, &mark))
            .await
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .write(work)
            .await
            .map_err(|failure| failure.during(operation))
    }

    /// A read of one statement that takes microseconds, on the caller's thread.
    fn look_up<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.readers
            .read(work)
            .map_err(|failure| failure.during(operation))
    }

    /// A read that may take milliseconds, on a thread for such.
    async fn list<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.readers.clone();
        let read = tokio::task::spawn_blocking(move || readers.read_snapshot(work));
        read.await
            .unwrap_or(Err(Failure::Closed))
            .map_err(|failure| failure.during(operation))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(&self, new: NewJob) -> Result<Accepted, StoreError> {
        let past_reading = self.past_reading;
        self.write("saving a new job", move |db| {
            jobs::accept(db, &new, past_reading)
        })
        .await
    }

    async fn commit(&self, job: Arc<Job>, decisions: Vec<Decision>) -> Result<(), StoreError> {
        self.write("saving a job's state", move |db| {
            jobs::update(db, &job, &decisions)
        })
        .await
    }

    async fn forget(&self, id: &JobId, key_until: Timestamp) -> Result<(), StoreError> {
        let id = id.clone();
        self.write("removing a job's record", move |db| {
            jobs::forget(db, &id, key_until)
        })
        .await
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.look_up("reading a job", |db| jobs::find(db, id))
    }

    async fn decisions(&self, id: &JobId) -> Result<Vec<Decision>, StoreError> {
        self.look_up("reading a job's decisions", |db| jobs::decisions(db, id))
    }

    async fn by_key(&self, key: &JobKey, now: Timestamp) -> Result<Option<KeyedJob>, StoreError> {
        self.look_up("looking for a job by its key", |db| {
            keys::find(db, key, now)
        })
    }

    async fn page(&self, query: &JobQuery) -> Result<Vec<(Job, Vec<Decision>)>, StoreError> {
        let query = query.clone();
        self.list("listing jobs", move |db| jobs::page(db, &query))
            .await
    }

    async fn unfinished(&self, after: Option<&JobId>) -> Result<Vec<Job>, StoreError> {
        // On the caller's thread: at a start there is nobody whom that holds up, and a thread that read
        // many jobs keeps the room for them.
        self.readers
            .read_snapshot(|db| jobs::unfinished(db, after))
            .map_err(|failure| failure.during("reading unfinished jobs"))
    }

    async fn prune(&self, before: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
        // In small steps: what is saved meanwhile comes between them.
        let mut records = 0;
        loop {
            let step = self.write("removing old records", move |db| {
                jobs::prune(db, before, now)
            });
            let step = step.await?;
            records += step.records;
            if !step.more {
                return Ok(records);
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        self.writer.trouble()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

#[async_trait]
impl Registrations for SqliteStore {
    async fn register(
        &self,
        client: &ClientId,
        key_hash: &str,
        now: Timestamp,
    ) -> Result<Registered, StoreError> {
        let (client, key_hash) = (client.clone(), key_hash.to_owned());
        self.write("registering a client", move |db| {
            registrations::register(db, &client, &key_hash, now)
        })
        .await
    }

    async fn registration(&self, client: &ClientId) -> Result<Option<Registration>, StoreError> {
        self.look_up("reading a registration", |db| {
            registrations::find(db, client)
        })
    }

    async fn unregister(&self, client: &ClientId) -> Result<bool, StoreError> {
        let client = client.clone();
        self.write("ending a registration", move |db| {
            registrations::unregister(db, &client)
        })
        .await
    }

    async fn registered(&self) -> Result<u64, StoreError> {
        self.look_up("counting registrations", registrations::count)
    }

    async fn registrations(
        &self,
        before: Option<RegistrationId>,
        limit: u32,
    ) -> Result<Vec<RegisteredClient>, StoreError> {
        self.list("listing registrations", move |db| {
            registrations::page(db, before, limit)
        })
        .await
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
