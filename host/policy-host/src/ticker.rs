//! The clock that ends decisions which take too long.
//!
//! Compiled guests look at the engine's epoch in every loop and call; a new epoch lets the host look
//! at the time. The ticker makes one when the time of a decision is up, and sleeps until then: a
//! decision that ends in time, as nearly all do, is not interrupted.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wasmtime::Engine;

/// Time between two epochs while a decision overruns. One alone could be missed by a guest that is
/// just being let off an earlier one.
const AGAIN: Duration = Duration::from_micros(500);

/// The running ticker; ends when dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When the time of each decision under way is up. There are few at once.
    deadlines: Vec<Instant>,
    /// When the ticker looks next; `None` while it waits for a decision.
    wakes_at: Option<Instant>,
    stop: bool,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let engine = engine.clone();
        Self::with(move || engine.increment_epoch())
    }

    fn with(tick: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new()
            .name("policy-ticker".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(tick)
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Epochs come from the deadline on, for as long as the result lives.
    pub(crate) fn decide(&self, deadline: Instant) -> Deciding<'_> {
        let mut state = self.shared.state();
        state.deadlines.push(deadline);
        if state.wakes_at.is_none_or(|at| deadline < at) {
            state.wakes_at = Some(deadline);
            self.shared.earlier.notify_one();
        }
        Deciding {
            shared: &self.shared,
            deadline,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.earlier.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has no way to panic, and nothing would follow from it here.
            let _ = thread.join();
        }
    }
}

/// A decision under way.
#[derive(Debug)]
pub(crate) struct Deciding<'a> {
    shared: &'a Shared,
    deadline: Instant,
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        let deadlines = &mut self.shared.state().deadlines;
        // One of the same time is as good.
        if let Some(index) = deadlines.iter().position(|at| *at == self.deadline) {
            deadlines.swap_remove(index);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, tick: impl Fn()) {
        let mut state = self.state();
        while !state.stop {
            let now = Instant::now();
            if state.deadlines.iter().any(|at| *at <= now) {
                tick();
            }
            let next = state.deadlines.iter().map(|at| (*at).max(now + AGAIN));
            state.wakes_at = next.min();
            state = match state.wakes_at {
                None => self
                    .earlier
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    self.earlier
                        .wait_timeout(state, at - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(600);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A ticker, and the times of its epochs.
    fn ticker() -> (Ticker, Receiver<Instant>) {
        let (send, ticks) = channel();
        let ticker = Ticker::with(move || {
            // A test that is over listens no more.
            let _ = send.send(Instant::now());
        })
        .unwrap();
        (ticker, ticks)
    }

    #[test]
    fn epochs_come_from_the_deadline_on_until_the_decision_ends() {
        let (ticker, ticks) = ticker();
        let deadline = Instant::now() + SOON;
        let deciding = ticker.decide(deadline);
        for _ in 0..3 {
            assert!(ticks.recv_timeout(PATIENCE).unwrap() >= deadline);
        }
        drop(deciding);
        while ticks.recv_timeout(SOON).is_ok() {}
        assert!(ticks.recv_timeout(SOON).is_err(), "it ticks for nobody");
    }

    #[test]
    fn an_earlier_deadline_is_not_slept_through() {
        let (ticker, ticks) = ticker();
        let _late = ticker.decide(Instant::now() + LATE);
        assert!(ticks.recv_timeout(SOON).is_err(), "it ticks too early");
        let _soon = ticker.decide(Instant::now() + SOON);
        ticks.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn decisions_that_end_in_time_meet_no_epoch() {
        let (ticker, ticks) = ticker();
        let until = Instant::now() + 3 * SOON;
        while Instant::now() < until {
            drop(ticker.decide(Instant::now() + LATE));
            drop(ticker.decide(Instant::now() + PATIENCE));
        }
        assert!(ticks.try_recv().is_err());
    }
}
