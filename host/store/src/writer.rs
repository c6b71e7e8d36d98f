//! The one thread that writes.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// The most writes that share a transaction.
const GROUP: usize = 256;

/// With so many writes in a transaction more are about to come, and are waited for that long, unless
/// they wait already: each transaction costs the disk the same, and its pages are often those of the
/// next one.
const BUSY: usize = 4;
const GATHERING: Duration = Duration::from_millis(1);

/// How long after a failure it is found out whether the file can be written again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A handle on the thread. Dropping it waits until all that was asked is written.
pub(crate) struct Writer {
    queue: Option<Sender<Box<dyn Task>>>,
    thread: Option<JoinHandle<()>>,
    trouble: Trouble,
}

/// Why the file could not be written the last time that this was tried, if it could not.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    fn get(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, now: Option<String>) {
        let mut trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*trouble, &now) {
            (None, Some(why)) => tracing::error!(why, "the store cannot be written"),
            (Some(_), None) => tracing::info!("the store can be written again"),
            _ => {}
        }
        *trouble = now;
    }
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(db: Connection) -> std::io::Result<Self> {
        let (queue, tasks) = mpsc::channel();
        let trouble = Trouble::default();
        let told = trouble.clone();
        let serve = move || serve(db, &tasks, &told);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(serve)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            trouble,
        })
    }

    /// Why nothing can be written at the moment, if that is so.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.get()
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
    fn run(&mut self, db: &Connection) -> Result<(), Refused>;
    /// Gives the answer, now that the transaction is durable or has failed.
    fn answer(self: Box<Self>, committed: Result<(), String>);
}

/// Why a write failed.
struct Refused {
    why: String,
    /// Whether the file would take no other write either.
    by_the_file: bool,
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
    fn run(&mut self, db: &Connection) -> Result<(), Refused> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let result = work(db);
        let worked = result.as_ref().map(|_| ()).map_err(|failure| Refused {
            why: failure.to_string(),
            by_the_file: failure.is_of_the_file(),
        });
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

impl Write<fn(&Connection) -> Result<(), Failure>, ()> {
    /// A write that means nothing and is larger than that of a job, for fewer bytes may find room
    /// on a full disk.
    fn probe() -> Self {
        let work = |db: &Connection| {
            execute(db, "DELETE FROM probe")?;
            execute(db, "INSERT INTO probe VALUES (zeroblob(65536))")?;
            Ok(())
        };
        Self {
            work: Some(work),
            result: None,
            reply: oneshot::channel().0,
        }
    }
}

fn serve(db: Connection, tasks: &Receiver<Box<dyn Task>>, trouble: &Trouble) {
    let mut busy = false;
    loop {
        let pause = match trouble.get() {
            Some(_) => LOOK_AGAIN,
            None => Duration::MAX,
        };
        let first = match tasks.recv_timeout(pause) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => Box::new(Write::probe()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if busy {
            std::thread::sleep(GATHERING);
        }
        let mut group = vec![first];
        group.extend(tasks.try_iter().take(GROUP - 1));
        busy = (BUSY..GROUP).contains(&group.len());
        let committed = match run_all(&db, &mut group) {
            Ok(unwritable) => {
                trouble.set(unwritable);
                Ok(())
            }
            Err(why) => {
                trouble.set(Some(why.clone()));
                Err(why)
            }
        };
        for task in group {
            task.answer(committed.clone());
        }
    }
    if let Err((_, error)) = db.close() {
        tracing::warn!(%error, "the store could not be closed");
    }
}

/// Runs a group in one transaction, each write of it in a savepoint, so that one that fails
/// takes no other with it. Some errors, such as a full disk, may end the whole transaction. When
/// it is committed, but some write of it failed because of the file, that is told.
fn run_all(db: &Connection, group: &mut [Box<dyn Task>]) -> Result<Option<String>, String> {
    let say = |error: rusqlite::Error| error.to_string();
    let group_transaction =
        Transaction::new_unchecked(db, TransactionBehavior::Immediate).map_err(say)?;
    let mut unwritable = None;
    for task in group {
        execute(db, "SAVEPOINT one").map_err(say)?;
        if let Err(refused) = task.run(db) {
            if db.is_autocommit() {
                return Err(refused.why);
            }
            execute(db, "ROLLBACK TO one").map_err(say)?;
            if refused.by_the_file {
                unwritable = Some(refused.why);
            }
        }
        execute(db, "RELEASE one").map_err(say)?;
    }
    group_transaction.commit().map_err(say)?;
    Ok(unwritable)
}

fn execute(db: &Connection, sql: &str) -> rusqlite::Result<usize> {
    db.prepare_cached(sql)?.execute([])
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
