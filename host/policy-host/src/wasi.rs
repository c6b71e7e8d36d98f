//! The base set of WASI that compiled programs import whether they use it or not: linked, and inert.
//!
//! No environment, no arguments, stdin at its end, no directories. Clocks stand at the decision's
//! time, and every wait is over at once. Random bytes come from the decision: the same question gets
//! the same ones. What is written to stdout and stderr becomes log lines. Exit ends the decision.
//! Nothing here blocks, and there is no network.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use domain::Timestamp;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::{cli, filesystem, sync};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, async_trait};

use crate::failure::Failure;
use crate::guest::Guest;

/// The interfaces of the base set, without their version.
pub(crate) const INTERFACES: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
];

/// Random bytes that one call can ask for. Nothing ends a decision while they are made.
const RANDOM_MAX: u64 = 64 << 10;

/// Streams and waits that one decision can hold: each takes memory of the host.
pub(crate) const HANDLES_MAX: usize = 1024;

/// The state of the base set in one decision. Made when it is first used: most policies never do.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    random: Random,
    stdout: Captured,
    stderr: Captured,
}

impl Wasi {
    fn new(guest: &Guest) -> Self {
        let cap = guest.limits().log as usize;
        let (stdout, stderr) = (Captured::new(cap), Captured::new(cap));
        let ctx = WasiCtx::builder()
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        Self {
            ctx,
            table,
            random: Random::new(guest),
            stdout,
            stderr,
        }
    }

    /// What was written, by stream.
    pub(crate) fn output(&self) -> [(&'static str, Written); 2] {
        [
            ("stdout", self.stdout.written()),
            ("stderr", self.stderr.written()),
        ]
    }
}

impl Guest {
    fn wasi(&mut self) -> &mut Wasi {
        if self.wasi.is_none() {
            self.wasi = Some(Box::new(Wasi::new(self)));
        }
        self.wasi.as_mut().expect("made just now")
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}

pub(crate) fn add_to_linker(l: &mut Linker<Guest>) -> wasmtime::Result<()> {
    cli::environment::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
    sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
    sync::io::error::add_to_linker::<_, HasTable>(l, |guest| guest.ctx().table)?;
    sync::io::poll::add_to_linker::<_, HasTable>(l, |guest| guest.ctx().table)?;
    sync::io::streams::add_to_linker::<_, HasTable>(l, |guest| guest.ctx().table)?;
    wall_clock::add_to_linker::<_, HasClock>(l, clock)?;
    monotonic_clock::add_to_linker::<_, HasClock>(l, clock)?;
    random::add_to_linker::<_, HasRandom>(l, |guest| &mut guest.wasi().random)?;
    insecure::add_to_linker::<_, HasRandom>(l, |guest| &mut guest.wasi().random)?;
    insecure_seed::add_to_linker::<_, HasRandom>(l, |guest| &mut guest.wasi().random)
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Clocks that stand still.
struct Clock<'a> {
    now: Timestamp,
    table: &'a mut ResourceTable,
}

struct HasClock;

impl HasData for HasClock {
    type Data<'a> = Clock<'a>;
}

fn clock(guest: &mut Guest) -> Clock<'_> {
    Clock {
        now: guest.now(),
        table: &mut guest.wasi().table,
    }
}

impl wall_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let millis = u64::try_from(self.now.as_millis()).unwrap_or(0);
        let nanoseconds = (millis % 1000) as u32 * 1_000_000;
        Ok(wall_clock::Datetime {
            seconds: millis / 1000,
            nanoseconds,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        })
    }
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000)
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.over()
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.over()
    }
}

impl Clock<'_> {
    fn over(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let over = self.table.push(Over)?;
        subscribe(self.table, over)
    }
}

/// A wait that is over.
struct Over;

#[async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

/// Bytes that look random and are the same for the same question: SHA-256 of a seed and a counter.
struct Random {
    seed: [u8; 32],
    counter: u64,
}

struct HasRandom;

impl HasData for HasRandom {
    type Data<'a> = &'a mut Random;
}

impl Random {
    fn new(guest: &Guest) -> Self {
        let facts = guest.facts();
        let mut hash = Sha256::new();
        hash.update(facts.id.as_bytes());
        hash.update(facts.now.as_millis().to_le_bytes());
        hash.update(facts.attempts.len().to_le_bytes());
        Self {
            seed: hash.finalize().into(),
            counter: 0,
        }
    }

    fn block(&mut self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_le_bytes());
        self.counter += 1;
        hash.finalize().into()
    }

    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > RANDOM_MAX {
            let message = format!("asked for {len} random bytes at once");
            return Err(Failure::Trap(message).into());
        }
        let mut bytes = Vec::with_capacity(len as usize + 32);
        while bytes.len() < len as usize {
            bytes.extend_from_slice(&self.block());
        }
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl random::Host for Random {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number())
    }
}

impl insecure::Host for Random {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.number())
    }
}

impl insecure_seed::Host for Random {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.number(), self.number()))
    }
}

/// What was written to a stream, up to a cap.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cut: u64,
}

#[derive(Clone)]
struct Captured {
    cap: usize,
    written: Arc<Mutex<Written>>,
}

impl Captured {
    fn new(cap: usize) -> Self {
        Self {
            cap,
            written: Arc::default(),
        }
    }

    fn written(&self) -> Written {
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
    fn random_bytes_are_made_up_to_a_number() {
        let mut random = Random {
            seed: [7; 32],
            counter: 0,
        };
        let bytes = random.bytes(RANDOM_MAX).unwrap();
        assert_eq!(bytes.len() as u64, RANDOM_MAX);
        assert_ne!(bytes[..32], bytes[32..64]);
        let error = random.bytes(RANDOM_MAX + 1).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Failure::Trap(_))));
    }

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
