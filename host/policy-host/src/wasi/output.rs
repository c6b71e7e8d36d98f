//! What a policy prints, kept until the decision is over.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// What was written to a stream, up to a cap.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cut: u64,
}

/// A stream that goes nowhere else.
#[derive(Clone)]
pub(super) struct Captured {
    cap: usize,
    written: Arc<Mutex<Written>>,
}

impl Captured {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            cap,
            written: Arc::default(),
        }
    }

    pub(super) fn written(&self) -> Written {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl IsTerminal for Captured {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Captured {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// For versions of WASI that are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Captured {
    async fn ready(&mut self) {}
}

impl OutputStream for Captured {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self
            .cap
            .saturating_sub(written.bytes.len())
            .min(bytes.len());
        written.bytes.extend_from_slice(&bytes[..room]);
        written.cut += (bytes.len() - room) as u64;
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_at_its_cap_and_counted() {
        let mut stream = Captured::new(5);
        for text in ["abc", "defg", "h"] {
            stream.write(Bytes::from_static(text.as_bytes())).unwrap();
        }
        assert_eq!(
            stream.written(),
            Written {
                bytes: b"abcde".to_vec(),
                cut: 3
            }
        );
    }
}
