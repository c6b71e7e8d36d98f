//! What is remembered about keys that were checked, so that a slow hash is paid for once.
//!
//! A pair of client and key is remembered as a fast hash under a random key of this process: who
//! reads the memory of one process learns nothing to try elsewhere, and who sends guesses cannot
//! choose the digests they are compared by.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use domain::{Secret, Timestamp};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Client;

/// How many verified clients are remembered.
const MOST_VERIFIED: usize = 10_000;
/// How many wrong pairs are remembered.
const MOST_WRONG: usize = 4_096;
/// How long a wrong pair is refused without another look.
const WRONG_FOR: Duration = Duration::from_secs(60);
/// From how many different wrong keys on within [`WRONG_FOR`] they are many for one client.
const MANY_WRONG_KEYS: u32 = 10;

/// The keyed digest of a client and a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pair([u8; 32]);

/// What is known of a pair without a slow hash.
pub(crate) enum Known {
    /// It was verified.
    Valid(Arc<Client>),
    /// It was found wrong a short while ago.
    Wrong,
    /// Nothing. What is found out may be remembered under this mark.
    Nothing(Mark),
}

/// When it was that nothing was known. The end of a registration in between makes it void.
#[derive(Clone, Copy)]
pub(crate) struct Mark(u64);

/// Remembers what was found out about keys.
pub(crate) struct Verified {
    process_key: [u8; 32],
    memory: RwLock<Memory>,
}

#[derive(Default)]
struct Memory {
    epoch: u64,
    valid: HashMap<Box<str>, (Pair, Arc<Client>)>,
    wrong: HashMap<Pair, Timestamp>,
    guesses: HashMap<Box<str>, (u32, Timestamp)>,
}

impl Verified {
    pub(crate) fn new(process_key: [u8; 32]) -> Self {
        Self {
            process_key,
            memory: RwLock::default(),
        }
    }

    /// The digest of a client and a key, as this process keeps it.
    pub(crate) fn pair(&self, client: &str, key: &Secret) -> Pair {
        let mut hash = Sha256::new();
        hash.update(self.process_key);
        // With its length ahead no other client and key make the same text.
        hash.update((client.len() as u64).to_le_bytes());
        hash.update(client);
        hash.update(key.reveal());
        Pair(hash.finalize().into())
    }

    /// What is known of a pair.
    pub(crate) fn recall(&self, client: &str, pair: &Pair, now: Timestamp) -> Known {
        let memory = self.read();
        if let Some((known, caller)) = memory.valid.get(client)
            && known.matches(pair)
        {
            return Known::Valid(Arc::clone(caller));
        }
        if memory.wrong.get(pair).is_some_and(|until| *until > now) {
            return Known::Wrong;
        }
        Known::Nothing(Mark(memory.epoch))
    }

    /// The present moment, for what is about to be found out.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.read().epoch)
    }

    /// Remembers a pair that was verified.
    pub(crate) fn accept(&self, mark: Mark, pair: Pair, caller: &Arc<Client>) {
        let mut memory = self.write();
        if memory.epoch == mark.0 {
            make_room(&mut memory.valid, MOST_VERIFIED);
            memory.guesses.remove(caller.id.as_str());
            memory
                .valid
                .insert(caller.id.as_str().into(), (pair, Arc::clone(caller)));
        }
    }

    /// Remembers a wrong key of a registered client. Tells whether many were sent for it lately.
    pub(crate) fn refuse(&self, mark: Mark, client: &str, pair: Pair, now: Timestamp) -> bool {
        let mut memory = self.write();
        let until = now.plus(WRONG_FOR);
        if memory.epoch == mark.0 {
            if memory.wrong.len() >= MOST_WRONG {
                memory.wrong.retain(|_, until| *until > now);
            }
            make_room(&mut memory.wrong, MOST_WRONG);
            memory.wrong.insert(pair, until);
        }
        make_room(&mut memory.guesses, MOST_WRONG);
        let guesses = memory.guesses.entry(client.into()).or_insert((0, until));
        if guesses.1 <= now {
            *guesses = (0, until);
        }
        guesses.0 += 1;
        guesses.0 >= MANY_WRONG_KEYS
    }

    /// A client was unregistered: what was known of it is void.
    pub(crate) fn forget(&self, client: &str) {
        let mut memory = self.write();
        memory.epoch += 1;
        memory.valid.remove(client);
        memory.guesses.remove(client);
        memory.wrong.clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    /// Whether both are the same, in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Drops any one entry of a full map. Which one does not matter: it costs one more slow hash.
fn make_room<K: Clone + Eq + Hash, V>(map: &mut HashMap<K, V>, most: usize) {
    if map.len() >= most
        && let Some(any) = map.keys().next().cloned()
    {
        map.remove(&any);
    }
}

#[cfg(test)]
mod tests {
    use domain::{ClientId, RegistrationId};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn client(id: &str) -> Arc<Client> {
        Arc::new(Client {
            registration: RegistrationId(1),
            id: ClientId::new(id).unwrap(),
        })
    }

    fn mark(verified: &Verified, id: &str, pair: &Pair) -> Mark {
        match verified.recall(id, pair, NOW) {
            Known::Nothing(mark) => mark,
            _ => panic!("something is known of {id}"),
        }
    }

    #[test]
    fn a_verified_pair_is_known_until_its_client_is_forgotten() {
        let verified = Verified::new([1; 32]);
        let pair = verified.pair("a", &Secret::new("key"));
        verified.accept(mark(&verified, "a", &pair), pair, &client("a"));
        assert!(matches!(verified.recall("a", &pair, NOW), Known::Valid(_)));
        let other = verified.pair("a", &Secret::new("other"));
        assert!(matches!(
            verified.recall("a", &other, NOW),
            Known::Nothing(_)
        ));
        verified.forget("a");
        assert!(matches!(
            verified.recall("a", &pair, NOW),
            Known::Nothing(_)
        ));
    }

    #[test]
    fn what_was_found_out_before_a_change_is_not_remembered_after_it() {
        let verified = Verified::new([1; 32]);
        let pair = verified.pair("a", &Secret::new("key"));
        let before = mark(&verified, "a", &pair);
        verified.forget("a");
        verified.accept(before, pair, &client("a"));
        verified.refuse(before, "a", pair, NOW);
        assert!(matches!(
            verified.recall("a", &pair, NOW),
            Known::Nothing(_)
        ));
    }

    #[test]
    fn a_wrong_pair_is_refused_for_a_minute() {
        let verified = Verified::new([1; 32]);
        let pair = verified.pair("a", &Secret::new("key"));
        verified.refuse(mark(&verified, "a", &pair), "a", pair, NOW);
        assert!(matches!(
            verified.recall("a", &pair, NOW.plus(WRONG_FOR / 2)),
            Known::Wrong
        ));
        assert!(matches!(
            verified.recall("a", &pair, NOW.plus(WRONG_FOR)),
            Known::Nothing(_)
        ));
    }

    #[test]
    fn many_wrong_keys_for_a_client_within_a_minute_are_told() {
        let verified = Verified::new([1; 32]);
        let refuse = |id: &str, n: u32, now| {
            let pair = verified.pair(id, &Secret::new(format!("guess {n}")));
            verified.refuse(verified.mark(), id, pair, now)
        };
        for n in 1..MANY_WRONG_KEYS {
            assert!(!refuse("a", n, NOW));
        }
        assert!(refuse("a", 10, NOW));
        assert!(refuse("a", 11, NOW.plus(WRONG_FOR / 2)));
        assert!(!refuse("b", 1, NOW));
        assert!(!refuse("a", 12, NOW.plus(WRONG_FOR)));

        for n in 13..30 {
            refuse("a", n, NOW.plus(WRONG_FOR));
        }
        let good = verified.pair("a", &Secret::new("good"));
        verified.accept(verified.mark(), good, &client("a"));
        assert!(!refuse("a", 30, NOW.plus(WRONG_FOR)));
    }

    #[test]
    fn client_and_key_cannot_be_cut_elsewhere() {
        let verified = Verified::new([1; 32]);
        assert!(verified.pair("ab", &Secret::new("c")) != verified.pair("a", &Secret::new("bc")));
        assert!(
            Verified::new([2; 32]).pair("a", &Secret::new("b"))
                != verified.pair("a", &Secret::new("b"))
        );
    }

    #[test]
    fn memory_is_bounded() {
        let verified = Verified::new([1; 32]);
        for n in 0..MOST_WRONG + 100 {
            let name = n.to_string();
            let pair = verified.pair(&name, &Secret::new("x"));
            verified.refuse(mark(&verified, &name, &pair), &name, pair, NOW);
        }
        let memory = verified.read();
        assert_eq!(
            (memory.wrong.len(), memory.guesses.len()),
            (MOST_WRONG, MOST_WRONG)
        );
    }
}
