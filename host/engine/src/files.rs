//! What an ended job left, handed out before it is removed.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use bytes::Bytes;
use domain::{Job, JobId, State};
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
    /// When the removal of the files begins meanwhile, the archive ends with an error.
    ///
    /// # Errors
    /// When they cannot be had at the moment.
    pub async fn files(&self, job: &Job) -> Result<Option<FileStream>, FilesError> {
        if job.state.lifecycle().holds_slot() {
            return Err(FilesError::Running);
        }
        let ran = |attempt: &&domain::Attempt| attempt.running_at.is_some();
        let Some(attempt) = job.attempts.iter().rev().find(ran) else {
            return Ok(None);
        };
        if !is_kept(&job.state) {
            return Ok(None);
        }
        let name = self.shared.gate.container_name(&job.id, attempt.number);
        let files = self.shared.ports.runner.files(&name).await?;
        let (engine, id) = (self.clone(), job.id.clone());
        // A removal is saved before it begins, so none has begun if none is saved at the end.
        let last = stream::once(async move { engine.are_kept(&id).await });
        Ok(files.map(|files| files.chain(last.try_filter_map(nothing)).boxed()))
    }

    async fn are_kept(&self, id: &JobId) -> Result<(), RunnerError> {
        match self.shared.view(id).await {
            Ok(Some(view)) if is_kept(&view.job.state) => Ok(()),
            Ok(_) => Err(failed("they were removed meanwhile".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Whether what an ended job left is there still, as far as that is for the service to say.
fn is_kept(state: &State) -> bool {
    matches!(state, State::Ended(_) | State::Retained { .. })
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

    use super::*;

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
}
