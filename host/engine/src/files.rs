//! What an ended job left, handed out before it is removed.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use bytes::Bytes;
use domain::{Attempt, Delivery, Job, JobId, State};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::task::spawn_blocking;

use crate::{Engine, FileStream, FilesError, RunnerError};

/// Bytes that are handed over at once.
const PART: usize = 64 << 10;
/// Parts that wait to be taken.
const PARTS: usize = 4;
/// How long whoever reads may take nothing. Meanwhile the container engine may hold the container:
/// nobody can look at it or remove it.
const STALLED: Duration = Duration::from_secs(2 * 60);

const OPERATION: &str = "fetch the files";

impl Engine {
    /// What the job's last attempt that ran left in its volume, as a tar archive; `None` when it
    /// left nothing or that was removed. What earlier attempts had to send was sent: there is no
    /// further attempt beside undelivered work.
    ///
    /// When the files begin to be removed meanwhile, or to be sent in again, the archive ends with
    /// an error.
    ///
    /// # Errors
    /// When they cannot be had at the moment.
    pub async fn files(&self, job: &Job) -> Result<Option<FileStream>, FilesError> {
        if job.state.lifecycle().holds_slot() {
            return Err(FilesError::Running);
        }
        if let Some(resend) = self.being_resent(job) {
            return Err(FilesError::BeingResent(resend));
        }
        let ran = |attempt: &&Attempt| attempt.running_at.is_some();
        let (Some(delivery), Some(attempt)) = (kept(job), job.attempts.iter().rev().find(ran))
        else {
            return Ok(None);
        };
        let name = self.shared.gate.container_name(&job.id, attempt.number);
        let (engine, id) = (self.clone(), job.id.clone());
        // While somebody reads them no removal falls due.
        let live = self.shared.wake(&id).await;
        let live = live.map_err(|error| failed(error.to_string()))?;
        let files = self.shared.ports.runner.files(&name).await?;
        let last = stream::once(async move {
            let _live = live;
            engine.are_kept(&id, delivery).await
        });
        Ok(files.map(|files| files.chain(last.try_filter_map(nothing)).boxed()))
    }

    /// Whether files are still as they were when their delivery was that. A removal is saved before
    /// it begins, so none has begun if none is saved; and whoever sends them in tells.
    async fn are_kept(&self, id: &JobId, delivery: Delivery) -> Result<(), RunnerError> {
        match self.shared.view(id).await {
            Ok(Some(view))
                if kept(&view.job) == Some(delivery) && self.being_resent(&view.job).is_none() =>
            {
                Ok(())
            }
            Ok(_) => Err(failed("they were removed or sent in meanwhile".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The job that sends in again what this one keeps.
    fn being_resent(&self, job: &Job) -> Option<JobId> {
        let owner = job.resends.as_ref().unwrap_or(&job.id);
        self.shared.live.resend_under_way(owner)
    }
}

/// What became of the work that is kept; `None` when none is, as far as that is for the service to
/// say.
fn kept(job: &Job) -> Option<Delivery> {
    match job.state {
        State::Ended(end) | State::Retained { end, .. } => Some(end.delivery),
        _ => None,
    }
}

async fn nothing((): ()) -> Result<Option<Bytes>, RunnerError> {
    Ok(None)
}

fn failed(detail: String) -> RunnerError {
    RunnerError {
        operation: OPERATION,
        detail,
        unreachable: false,
    }
}

/// The archive that `write` writes on a thread of its own, which waits while nobody takes it. An
/// error of `write`, or whoever reads taking nothing for two minutes, ends the archive with an
/// error.
pub fn file_stream(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> FileStream {
    let (sender, parts) = mpsc::channel(PARTS);
    let pipe = Pipe {
        sender,
        runtime: Handle::current(),
    };
    let writing = spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PART, pipe);
        let written = write(&mut out).and_then(|()| out.flush());
        // Dropped as it is, it would try once more to get rid of what it holds.
        drop(out.into_parts());
        written
    });
    stream::unfold(Some((parts, writing)), |open| async move {
        let (mut parts, writing) = open?;
        if let Some(part) = parts.recv().await {
            return Some((Ok(part), Some((parts, writing))));
        }
        match writing.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((Err(failed(error.to_string())), None)),
            Err(error) => Some((Err(failed(error.to_string())), None)),
        }
    })
    .boxed()
}

struct Pipe {
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sending = self
            .sender
            .send_timeout(Bytes::copy_from_slice(bytes), STALLED);
        match self.runtime.block_on(sending) {
            Ok(()) => Ok(bytes.len()),
            Err(SendTimeoutError::Timeout(_)) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nobody took the files for too long",
            )),
            Err(SendTimeoutError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use domain::Lifecycle;
    use tokio::time::sleep;

    use super::*;
    use crate::scripted::{Script, Stage, recording};

    #[tokio::test(start_paused = true)]
    async fn files_that_are_sent_in_again_are_not_fetched_meanwhile_nor_in_part() {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut stage = Stage::default();
        {
            let mut world = stage.runner.world();
            world.offers_resend = true;
            world.script = Script {
                runs_for: Some(MINUTE),
                media_left: 5000,
                ..Script::default()
            };
            world.resend_script.runs_for = Some(MINUTE);
        }
        let engine = stage.engine().await;
        let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
        let job = async || Arc::clone(&engine.job(&id).await.unwrap().unwrap().job);
        let running = engine.files(&*job().await).await.err();
        assert!(matches!(running, Some(FilesError::Running)), "{running:?}");
        sleep(MINUTE * 2).await;
        let kept = job().await;
        assert_eq!(kept.state.lifecycle(), Lifecycle::Retained);
        let whole = engine.files(&kept).await.unwrap().unwrap();
        whole.try_collect::<Vec<_>>().await.unwrap();

        let (early, late) = (engine.files(&kept).await, engine.files(&kept).await);
        let resend = engine.resend(&id).await.unwrap().job.id.clone();
        let refused = engine.files(&kept).await.err();
        assert!(
            matches!(&refused, Some(FilesError::BeingResent(by)) if *by == resend),
            "{refused:?}"
        );
        let meanwhile = early.unwrap().unwrap().try_collect::<Vec<_>>().await;
        assert!(meanwhile.is_err(), "they are being sent in");
        sleep(MINUTE * 2).await;
        let after = late.unwrap().unwrap().try_collect::<Vec<_>>().await;
        assert!(after.is_err(), "they were sent in");
        let sent = engine.files(&*job().await).await.unwrap().unwrap();
        sent.try_collect::<Vec<_>>().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_written_arrives_whole_and_in_order() {
        let written: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let source = written.clone();
        let stream = file_stream(move |out| source.chunks(777).try_for_each(|c| out.write_all(c)));
        let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(parts.concat(), written);
    }

    #[tokio::test]
    async fn an_error_of_the_writer_and_its_panic_end_the_stream_with_an_error() {
        let stream = file_stream(|out| {
            out.write_all(&[7; 100_000])?;
            Err(io::Error::other("the disk is gone"))
        });
        let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.detail, "the disk is gone");
        let stream = file_stream(|_| panic!("as the test wants it"));
        assert!(stream.try_collect::<Vec<_>>().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_costs_a_few_parts_and_sees_that_it_is_too_late() {
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let (told, mut ended) = tokio::sync::oneshot::channel();
        let mut stream = file_stream(move |out| {
            let result = (0..1000).try_for_each(|_| {
                out.write_all(&[0; PART])?;
                count.fetch_add(PART, Ordering::Relaxed);
                Ok(())
            });
            let _ = told.send(());
            result
        });
        assert!(stream.next().await.unwrap().is_ok());
        // Paused time does not move by itself while a thread works.
        while ended.try_recv().is_err() {
            tokio::time::advance(STALLED / 10).await;
            tokio::task::yield_now().await;
        }
        assert!(written.load(Ordering::Relaxed) <= (PARTS + 2) * PART);
        let rest: Vec<_> = stream.collect().await;
        assert!(rest.last().unwrap().is_err());
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_writing() {
        let (told, ended) = tokio::sync::oneshot::channel();
        let stream = file_stream(move |out| {
            let result = (0..1000).try_for_each(|_| out.write_all(&[0; PART]));
            let _ = told.send(result.map_err(|error| error.kind()));
            Ok(())
        });
        drop(stream);
        assert_eq!(ended.await.unwrap(), Err(io::ErrorKind::BrokenPipe));
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_is_saving_does_not_fall_due() {
        let mut stage = Stage::default();
        stage.runner.world().script = Script {
            runs_for: Some(Duration::from_secs(60)),
            media_left: 5000,
            ..Script::default()
        };
        let engine = stage.engine().await;
        let id = engine.submit(recording('a')).await.unwrap().job.id.clone();
        let job = async || Arc::clone(&engine.job(&id).await.unwrap().unwrap().job);
        tokio::time::sleep(Duration::from_secs(120)).await;
        let kept = job().await;
        let State::Retained {
            until: Some(until), ..
        } = kept.state
        else {
            panic!("{kept:?}");
        };
        let files = engine.files(&kept).await.unwrap().unwrap();
        let due = until.after(kept.state.end().unwrap().at);
        tokio::time::sleep(2 * due).await;
        assert_eq!(job().await.state, kept.state);
        let whole: Vec<Bytes> = files.try_collect().await.unwrap();
        assert_eq!(whole.concat(), b"what it left");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(matches!(job().await.state, State::Removed { .. }));
    }
}
