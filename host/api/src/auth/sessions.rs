//! Bearer tokens of `/login`. They live in memory: a restart ends every session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Secret, Timestamp};
use sha2::{Digest as _, Sha256};

use super::Client;

/// How many sessions there may be, of all clients together.
const MOST: usize = 10_000;

/// A token that opens no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSession {
    /// There is none of that token.
    Unknown,
    /// It is over.
    Expired,
}

/// The sessions, by the hash of their token.
pub(crate) struct Sessions {
    lifetime: Duration,
    open: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    client: Arc<Client>,
    expires: Timestamp,
}

impl Sessions {
    /// Sessions that live for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            open: Mutex::default(),
        }
    }

    /// Opens a session under the token made of these random bytes.
    pub(crate) fn open(&self, client: Arc<Client>, random: [u8; 32], now: Timestamp) -> Secret {
        let token = Secret::new(URL_SAFE_NO_PAD.encode(random));
        let mut open = self.lock();
        if open.len() >= MOST {
            open.retain(|_, session| session.expires > now);
        }
        if open.len() >= MOST
            && let Some(oldest) = open
                .iter()
                .min_by_key(|(_, s)| s.expires)
                .map(|(hash, _)| *hash)
        {
            open.remove(&oldest);
        }
        open.insert(
            hash(&token),
            Session {
                client,
                expires: now.plus(self.lifetime),
            },
        );
        token
    }

    /// The client of a session.
    ///
    /// # Errors
    /// When the token opens none, or its session is over.
    pub(crate) fn client(&self, token: &Secret, now: Timestamp) -> Result<Arc<Client>, NoSession> {
        match self.lock().get(&hash(token)) {
            None => Err(NoSession::Unknown),
            Some(session) if session.expires <= now => Err(NoSession::Expired),
            Some(session) => Ok(Arc::clone(&session.client)),
        }
    }

    /// Ends one session.
    pub(crate) fn close(&self, token: &Secret) {
        self.lock().remove(&hash(token));
    }

    /// Ends all sessions of a client.
    pub(crate) fn end(&self, client: &str) {
        self.lock()
            .retain(|_, session| session.client.id.as_str() != client);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens are random, so a fast hash hides them well enough, and looking one up by its hash tells
/// nothing by the time it takes.
fn hash(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.reveal()).into()
}

#[cfg(test)]
mod tests {
    use domain::{ClientId, RegistrationId};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);
    const HOUR: Duration = Duration::from_secs(3600);

    fn client(id: &str) -> Arc<Client> {
        Arc::new(Client {
            registration: RegistrationId(1),
            id: ClientId::new(id).unwrap(),
        })
    }

    #[test]
    fn a_session_lives_its_time_and_is_told_apart_from_none() {
        let sessions = Sessions::new(HOUR);
        let token = sessions.open(client("a"), [7; 32], NOW);
        assert_eq!(
            sessions
                .client(&token, NOW.plus(HOUR / 2))
                .unwrap()
                .id
                .as_str(),
            "a"
        );
        assert_eq!(
            sessions.client(&token, NOW.plus(HOUR)).err(),
            Some(NoSession::Expired)
        );
        assert_eq!(
            sessions.client(&Secret::new("x"), NOW).err(),
            Some(NoSession::Unknown)
        );
    }

    #[test]
    fn a_clients_sessions_end_together_and_no_others() {
        let sessions = Sessions::new(HOUR);
        let first = sessions.open(client("a"), [1; 32], NOW);
        let second = sessions.open(client("a"), [2; 32], NOW);
        let other = sessions.open(client("b"), [3; 32], NOW);
        sessions.end("a");
        assert_eq!(sessions.client(&first, NOW).err(), Some(NoSession::Unknown));
        assert_eq!(
            sessions.client(&second, NOW).err(),
            Some(NoSession::Unknown)
        );
        assert!(sessions.client(&other, NOW).is_ok());
    }

    #[test]
    fn the_number_of_sessions_is_bounded_and_the_oldest_goes_first() {
        let sessions = Sessions::new(HOUR);
        let random = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
            bytes
        };
        let first = sessions.open(client("a"), random(0), NOW);
        let later = NOW.plus(Duration::from_secs(1));
        let second = sessions.open(client("a"), random(1), later);
        for n in 2..=MOST {
            sessions.open(client("a"), random(n), later);
        }
        assert_eq!(sessions.lock().len(), MOST);
        assert_eq!(
            sessions.client(&first, later).err(),
            Some(NoSession::Unknown)
        );
        assert!(sessions.client(&second, later).is_ok());
    }
}
