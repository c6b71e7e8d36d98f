//! Slow hashes of keys, and how many of them are worked on.
//!
//! A slow hash costs tens of milliseconds and 19 MiB by intention, so nobody may order them
//! without bound: each lane works on one at a time and keeps a bounded queue. Clients that are
//! registered and clients that are not have a lane each, so that a flood of invented names cannot
//! keep a known client out.

use std::sync::Arc;

use domain::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::argon;

/// After work that was only pretended the lane rests this many times as long as it took, so that
/// a flood of unknown clients takes at most a fifth of one processor.
const REST: u32 = 4;

/// The lane's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// Works on one hash at a time.
pub(crate) struct Lane {
    queue: Arc<Semaphore>,
    work: Arc<Semaphore>,
}

impl Lane {
    /// A lane that holds that many callers, the one whose turn it is included.
    pub(crate) fn new(queue: usize) -> Self {
        Self {
            queue: Arc::new(Semaphore::new(queue)),
            work: Arc::new(Semaphore::new(1)),
        }
    }

    /// Waits for a turn; fails at once when too many wait already.
    pub(crate) async fn turn(&self) -> Result<Turn, Busy> {
        let queued = Arc::clone(&self.queue)
            .try_acquire_owned()
            .map_err(|_| Busy)?;
        let working = Arc::clone(&self.work)
            .acquire_owned()
            .await
            .map_err(|_| Busy)?;
        Ok(Turn {
            _queued: queued,
            _working: working,
        })
    }
}

/// A turn in a lane. It ends with the work and not with the wait for it: a caller that hangs up
/// early does not get another hash under way beside the first.
pub(crate) struct Turn {
    _queued: OwnedSemaphorePermit,
    _working: OwnedSemaphorePermit,
}

impl Turn {
    /// Whether `key` is the one behind `hash`: argon2id in PHC format, or bcrypt's.
    pub(crate) async fn verify(self, key: &Secret, hash: &str) -> bool {
        let (key, hash) = (key.clone(), hash.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let matches = verify(&key, &hash);
            drop(self);
            matches
        });
        work.await.unwrap_or(false)
    }

    /// Makes the hash of a new key; `None` when there is no randomness to salt it with.
    pub(crate) async fn hash(self, key: &Secret) -> Option<String> {
        let key = key.clone();
        let work = tokio::task::spawn_blocking(move || {
            let hash = argon::hash(&key);
            drop(self);
            hash
        });
        work.await.ok().flatten()
    }

    /// Takes as long as a verification that fails. The turn goes on for a while after that.
    pub(crate) async fn pretend(self, key: &Secret) {
        let key = key.clone();
        let work = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            argon::pretend(&key);
            let rest = began.elapsed() * REST;
            tokio::spawn(async move {
                tokio::time::sleep(rest).await;
                drop(self);
            });
        });
        let _ = work.await;
    }
}

fn verify(key: &Secret, hash: &str) -> bool {
    // Keys of the standard service come with bcrypt hashes.
    if hash.starts_with("$2") {
        bcrypt::verify(key.reveal(), hash).unwrap_or(false)
    } else {
        argon::verify(key, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn new_keys_get_a_salted_argon2id_hash_that_verifies() {
        let lane = Lane::new(4);
        let key = Secret::new("k".repeat(32));
        let first = lane.turn().await.unwrap().hash(&key).await.unwrap();
        let second = lane.turn().await.unwrap().hash(&key).await.unwrap();
        assert!(first.starts_with("$argon2id$v=19$"), "{first}");
        assert_ne!(first, second);
        assert!(lane.turn().await.unwrap().verify(&key, &first).await);
        assert!(
            !lane
                .turn()
                .await
                .unwrap()
                .verify(&Secret::new("x".repeat(32)), &first)
                .await
        );
    }

    #[test]
    fn hashes_of_the_standard_service_verify() {
        let hash = bcrypt::hash("0123456789abcdef0123456789abcdef", 4).unwrap();
        assert!(verify(
            &Secret::new("0123456789abcdef0123456789abcdef"),
            &hash
        ));
        assert!(!verify(
            &Secret::new("0123456789abcdef0123456789abcdeF"),
            &hash
        ));
        assert!(!verify(&Secret::new("anything"), "no hash at all"));
    }

    #[tokio::test]
    async fn a_full_queue_turns_callers_away() {
        let lane = Arc::new(Lane::new(4));
        let held = lane.turn().await.unwrap();
        let waiting: Vec<_> = (1..4)
            .map(|_| {
                let lane = Arc::clone(&lane);
                tokio::spawn(async move { lane.turn().await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(lane.turn().await.err(), Some(Busy));
        drop(held);
        for turn in waiting {
            assert!(turn.await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_keeps_its_turn_until_the_work_is_done() {
        let lane = Lane::new(4);
        let turn = lane.turn().await.unwrap();
        let key = Secret::new("k".repeat(32));
        {
            let work = turn.pretend(&key);
            tokio::pin!(work);
            assert!(futures_util::poll!(work.as_mut()).is_pending());
        }
        assert_eq!(lane.work.available_permits(), 0);
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), lane.turn()).await;
        assert!(next.unwrap().is_ok());
    }
}
