//! The clock that ends decisions which take too long.
//!
//! Compiled guests look at the engine's epoch in every loop and call; each new epoch lets the host
//! look at the time. The ticker makes new epochs, and rests while no decision is under way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// Half of what a decision may overrun at most on an idle machine.
const TICK: Duration = Duration::from_micros(500);
/// Ticks without a decision before it rests: waking it costs more than a tick, so a burst of
/// decisions wakes it once.
const LINGER: u32 = 100;

/// The running ticker; ends when dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    deciding: AtomicUsize,
    resting: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new()
            .name("policy-ticker".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                let engine = engine.clone();
                move || shared.run(|| engine.increment_epoch())
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Epochs come for as long as the result lives.
    pub(crate) fn decide(&self) -> Deciding<'_> {
        self.shared.deciding.fetch_add(1, SeqCst);
        if self.shared.resting.load(SeqCst) {
            self.thread().unpark();
        }
        Deciding(&self.shared)
    }

    fn thread(&self) -> &Thread {
        self.thread.as_ref().expect("taken by drop only").thread()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.thread().unpark();
        if let Some(thread) = self.thread.take() {
            // It has no way to panic, and nothing would follow from it here.
            let _ = thread.join();
        }
    }
}

/// A decision under way.
#[derive(Debug)]
pub(crate) struct Deciding<'a>(&'a Shared);

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.0.deciding.fetch_sub(1, SeqCst);
    }
}

impl Shared {
    fn run(&self, tick: impl Fn()) {
        let mut idle = 0;
        while !self.stop.load(SeqCst) {
            if self.deciding.load(SeqCst) > 0 {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > LINGER {
                self.rest();
                idle = 0;
            }
            thread::sleep(TICK);
            tick();
        }
    }

    /// Whoever decides counts first and looks for a resting ticker then, so that one of the two sees
    /// the other.
    fn rest(&self) {
        self.resting.store(true, SeqCst);
        while self.deciding.load(SeqCst) == 0 && !self.stop.load(SeqCst) {
            thread::park();
        }
        self.resting.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn rests_without_decisions_and_wakes_for_one() {
        let shared = Arc::new(Shared::default());
        let ticks = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (shared, ticks) = (Arc::clone(&shared), Arc::clone(&ticks));
            move || {
                shared.run(|| {
                    ticks.fetch_add(1, SeqCst);
                });
            }
        });
        let ticker = Ticker {
            shared: Arc::clone(&shared),
            thread: Some(thread),
        };
        let wait_until = |done: &dyn Fn() -> bool| {
            for _ in 0..10_000 {
                if done() {
                    return true;
                }
                thread::sleep(Duration::from_millis(1));
            }
            false
        };
        assert!(
            wait_until(&|| shared.resting.load(SeqCst)),
            "it never rests"
        );
        let before = ticks.load(SeqCst);
        let deciding = ticker.decide();
        assert!(
            wait_until(&|| ticks.load(SeqCst) > before + 2),
            "it does not wake"
        );
        drop(deciding);
        assert!(
            wait_until(&|| shared.resting.load(SeqCst)),
            "it does not rest again"
        );
    }
}
