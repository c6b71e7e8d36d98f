//! What a job writes to stdout and stderr: one file, up to a limit, followed by whoever reads it.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cap_std::fs::File;
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::disk::Home;

/// Bytes that are read at once.
const PART: usize = 64 << 10;

/// Where a job's output goes. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Output(Arc<Shared>);

struct Shared {
    home: Home,
    /// From the first byte on.
    file: Mutex<Option<File>>,
    max: u64,
    /// Bytes in the file.
    written: watch::Sender<u64>,
}

impl Output {
    /// Writes to the job's file, `max` bytes at most.
    pub(crate) fn new(home: Home, max: u64) -> Self {
        Self(Arc::new(Shared {
            home,
            file: Mutex::default(),
            max,
            written: watch::Sender::new(0),
        }))
    }

    /// How many bytes there are. The sender is gone when nothing can follow.
    pub(crate) fn written(&self) -> watch::Receiver<u64> {
        self.0.written.subscribe()
    }

    /// Adds a line of the runner's own.
    pub(crate) fn say(&self, text: &str) {
        self.append(text.as_bytes());
    }

    /// A disk that takes no more loses output, which is no reason to end a job.
    fn append(&self, bytes: &[u8]) {
        let mut opened = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.0.max.saturating_sub(*self.0.written.borrow());
        let kept = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if kept.is_empty() {
            return;
        }
        if opened.is_none() {
            *opened = self.0.home.output().ok();
        }
        let Some(file) = &mut *opened else { return };
        if file.write_all(kept).is_ok() {
            self.0
                .written
                .send_modify(|total| *total += kept.len() as u64);
        }
    }
}

/// The bytes of a file of output from `offset` on, one part of them.
pub(crate) fn read_part(file: &mut File, offset: u64) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(offset))?;
    let mut part = Vec::new();
    file.take(PART as u64).read_to_end(&mut part)?;
    Ok(part.into())
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// For versions of WASI that are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PART)
    }
}
