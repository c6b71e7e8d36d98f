//! The one thread that writes.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// The most writes that share a transaction.
const GROUP: usize = 256;

/// A handle on the thread. Dropping it waits until all that was asked is written.
pub(crate) struct Writer {
    queue: Option<Sender<Box<dyn Task>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(db: Connection) -> std::io::Result<Self> {
        let (queue, tasks) = mpsc::channel();
        let serve = move || serve(&db, &tasks);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(serve)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Runs `work` in a transaction; the answer comes when that is durable. It takes effect whole
    /// or not at all, also when the caller stops waiting.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let write = Box::new(Write {
            work: Some(work),
            result: None,
            reply,
        });
        let queue = self.queue.as_ref().ok_or(Failure::Closed)?;
        queue.send(write).map_err(|_| Failure::Closed)?;
        answer.await.unwrap_or(Err(Failure::Closed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}

/// One write of a group, its types forgotten.
trait Task: Send {
    /// Does the work; tells why it failed, if it did.
    fn run(&mut self, db: &Connection) -> Result<(), String>;
    /// Gives the answer, now that the transaction is durable or has failed.
    fn answer(self: Box<Self>, committed: Result<(), String>);
}

struct Write<F, T> {
    work: Option<F>,
    result: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<F, T> Task for Write<F, T>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Failure> + Send,
{
    fn run(&mut self, db: &Connection) -> Result<(), String> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let result = work(db);
        let worked = result.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.result = Some(result);
        worked
    }

    fn answer(self: Box<Self>, committed: Result<(), String>) {
        let result = match (self.result, committed) {
            (Some(Err(failure)), _) => Err(failure),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(why)) => Err(Failure::NotCommitted(why)),
            (None, Ok(())) => Err(Failure::Closed),
        };
        // Nobody may be waiting any more; what was written stays written.
        let _ = self.reply.send(result);
    }
}

fn serve(db: &Connection, tasks: &Receiver<Box<dyn Task>>) {
    while let Ok(first) = tasks.recv() {
        let mut group = vec![first];
        group.extend(tasks.try_iter().take(GROUP - 1));
        let committed = run_all(db, &mut group);
        if let Err(why) = &committed {
            tracing::error!(
                writes = group.len(),
                why,
                "a transaction of the store failed"
            );
        }
        for task in group {
            task.answer(committed.clone());
        }
    }
    // The next start is quicker with an empty log, and as safe with a full one.
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the store's log could not be emptied");
    }
}

/// Runs a group in one transaction, each write of it in a savepoint, so that one that fails
/// takes no other with it. Some errors, such as a full disk, end the whole transaction.
fn run_all(db: &Connection, group: &mut [Box<dyn Task>]) -> Result<(), String> {
    let say = |error: rusqlite::Error| error.to_string();
    let group_transaction =
        Transaction::new_unchecked(db, TransactionBehavior::Immediate).map_err(say)?;
    for task in group {
        execute(db, "SAVEPOINT one").map_err(say)?;
        if let Err(why) = task.run(db) {
            if db.is_autocommit() {
                return Err(why);
            }
            execute(db, "ROLLBACK TO one").map_err(say)?;
        }
        execute(db, "RELEASE one").map_err(say)?;
    }
    group_transaction.commit().map_err(say)
}

fn execute(db: &Connection, sql: &str) -> rusqlite::Result<usize> {
    db.prepare_cached(sql)?.execute([])
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
