//! Trying a registered client's key against its slow hash.
//!
//! One key of a client is tried at a time, so that whoever sends wrong ones for it holds up nobody
//! else. When many were wrong they are tried a second apart: they cost little then, and the
//! rightful key waits for its turn instead of being refused. A trial goes on when its caller hangs
//! up, and what it finds is remembered, so that nobody escapes the count by not waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::Secret;
use engine::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Client;
use super::hashing::{Busy, Lane};
use super::verified::{Mark, Pair, Verified};

/// How long a call waits until its key is tried.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far apart keys are tried for a client for which many were wrong.
const APART: Duration = Duration::from_secs(1);
/// How many callers the lane of all clients holds. Each client brings one at most.
const QUEUE: usize = 1_024;
/// How many clients are kept in mind that nobody tries a key of.
const MOST_IDLE: usize = 1_024;

/// Gives out turns.
pub(crate) struct Trials {
    clients: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
    lane: Lane,
}

/// A client's turn: no other key of it is tried meanwhile.
pub(crate) struct Turn {
    until: Instant,
    permit: OwnedSemaphorePermit,
}

/// What is tried.
pub(crate) struct Trial {
    /// The client that it is if the key is right.
    pub(crate) client: Arc<Client>,
    /// The key.
    pub(crate) key: Secret,
    /// The hash of the right key.
    pub(crate) hash: String,
    /// The client and the key.
    pub(crate) pair: Pair,
    /// When nothing was known of them.
    pub(crate) mark: Mark,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self {
            clients: Mutex::default(),
            lane: Lane::new(QUEUE),
        }
    }

    /// Waits for a registered client's turn.
    pub(crate) async fn turn(&self, client: &str) -> Result<Turn, Busy> {
        let until = Instant::now() + PATIENCE;
        let permit = timeout_at(until, self.client(client).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(Turn { until, permit }),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    fn client(&self, client: &str) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_IDLE {
            // Whoever waits for a turn or has one holds on to it.
            clients.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = clients
            .entry(client.into())
            .or_insert_with(|| Arc::new(Semaphore::new(1)));
        Arc::clone(turns)
    }

    /// Whether the key is right. That is remembered in `verified`.
    pub(crate) async fn run(
        &self,
        turn: Turn,
        trial: Trial,
        verified: &Arc<Verified>,
        clock: &Arc<dyn Clock>,
    ) -> Result<bool, Busy> {
        let work = timeout_at(turn.until, self.lane.turn())
            .await
            .map_err(|_| Busy)??;
        let (verified, clock) = (Arc::clone(verified), Arc::clone(clock));
        let run = tokio::spawn(async move {
            let next = Instant::now() + APART;
            let Trial {
                client, mark, pair, ..
            } = trial;
            if work.verify(&trial.key, &trial.hash).await {
                verified.accept(mark, pair, &client);
                return true;
            }
            tracing::warn!(client = client.id.as_str(), "wrong key");
            if verified.refuse(mark, client.id.as_str(), pair, clock.now()) {
                tokio::spawn(async move {
                    sleep_until(next).await;
                    drop(turn.permit);
                });
            }
            false
        });
        run.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_has_one_turn_at_a_time_and_waiting_for_it_ends() {
        let trials = Trials::new();
        let held = trials.turn("a").await.ok().unwrap();
        assert!(trials.turn("b").await.is_ok());
        let began = Instant::now();
        assert_eq!(trials.turn("a").await.err(), Some(Busy));
        assert_eq!(began.elapsed(), PATIENCE);
        drop(held);
        assert!(trials.turn("a").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_nobody_asks_about_are_forgotten_and_no_others() {
        let trials = Trials::new();
        let held = trials.turn("held").await.ok().unwrap();
        for n in 0..2 * MOST_IDLE {
            drop(trials.turn(&n.to_string()).await);
        }
        assert!(trials.clients.lock().unwrap().len() <= MOST_IDLE);
        assert!(trials.turn("held").await.is_err());
        drop(held);
    }
}
