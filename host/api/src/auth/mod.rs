//! Who calls.
//!
//! Clients present a key with every call. Keys are kept as slow hashes only; a pair of client and
//! key that was verified once is remembered in memory, so that the slow hash is paid for once and
//! not on every call.

mod argon;
mod hashing;
mod header;
mod sessions;
mod trial;
mod verified;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use domain::{ClientId, RegistrationId, Secret};
use engine::{Clock, Registered, RegisteredClient, Registrations, StoreError};
use ipnet::IpNet;
use tokio::sync::Mutex;

use hashing::{Busy, Lane};
use header::Credentials;
use sessions::{NoSession, Sessions};
use trial::{Trial, Trials};
use verified::{Known, Pair, Verified};

/// Bytes of the shortest key.
const SHORTEST_KEY: usize = 32;
/// Bytes of the longest client id.
const LONGEST_CLIENT_ID: usize = 256;
/// How many callers with clients that are not registered wait at most.
const UNKNOWN_QUEUE: usize = 32;

/// Who may call, and as whom.
#[derive(Debug)]
pub struct AuthSettings {
    /// Whether an unknown client is registered by its first call.
    pub allow_self_registration: bool,
    /// Where such a call has to come from; empty is anywhere.
    pub self_registration_networks: Vec<IpNet>,
    /// No client is registered so while there are that many; `None` is no limit.
    pub self_registration_clients: Option<NonZeroU32>,
    /// The administrator's secret, where there is to be one.
    pub admin_secret: Option<Secret>,
    /// How long a session of `/login` lives.
    pub session_lifetime: Duration,
}

/// A caller whose credentials were checked.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// The administrator.
    Admin,
    /// A registered client.
    Client(Arc<Client>),
}

/// A registered client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Which registration of it.
    pub(crate) registration: RegistrationId,
    /// Its name.
    pub(crate) id: ClientId,
}

/// What a call by an unknown client means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It registers the client, where the settings allow that for a call from this address.
    MayRegister(Option<IpAddr>),
    /// It is refused.
    Refuse,
}

/// Why a call is not answered. The texts are part of the API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// There is no `Authorization` header that makes sense.
    #[error("authentication failed: invalid auth header")]
    Header,
    /// The token opens no session.
    #[error("authentication failed: token is invalid")]
    TokenInvalid,
    /// The session is over.
    #[error("authentication failed: session is expired")]
    SessionExpired,
    /// The client is unknown or its key wrong.
    #[error("authentication failed")]
    Failed,
    /// There is no client id, and the administrator's secret it is not.
    #[error("authentication failed: unauthorized")]
    Unauthorized,
    /// The key is too short to register the client with.
    #[error("unauthorized")]
    KeyTooShort,
    /// Keys could not be checked.
    #[error(transparent)]
    Unchecked(#[from] Unchecked),
}

/// Why a key was not checked: nothing is known about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unchecked {
    /// Too many keys wait to be checked.
    #[error("authentication failed: too many keys are being checked")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes.
    #[error("no randomness")]
    NoRandomness,
}

impl From<Busy> for Unchecked {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// What came of checking a client's key.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is the client's.
    Valid(Arc<Client>),
    /// It is not.
    WrongKey,
    /// There is no such client.
    NotFound,
    /// There is none, and the key is too short for it to register itself.
    KeyTooShort,
}

/// Why a client was not registered. The texts are part of the API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    /// It has no name.
    #[error("registration failed: error: empty key")]
    EmptyId,
    /// Its name is longer than [`LONGEST_CLIENT_ID`].
    #[error("registration failed: client id too long")]
    LongId,
    /// The key is shorter than [`SHORTEST_KEY`].
    #[error("registration failed: key not long enough")]
    ShortKey,
    /// It is registered already.
    #[error("registration failed: already registered")]
    Known,
    /// There are as many clients as may register themselves.
    #[error("registration failed: too many clients are registered")]
    Full,
    /// The key could not be hashed or kept.
    #[error(transparent)]
    Unchecked(#[from] Unchecked),
}

/// Checks callers and keeps registrations.
pub(crate) struct Auth {
    settings: AuthSettings,
    admin: Option<Pair>,
    registrations: Arc<dyn Registrations>,
    clock: Arc<dyn Clock>,
    verified: Arc<Verified>,
    sessions: Sessions,
    trials: Trials,
    unknown_lane: Lane,
    /// Held while a client registers itself, from the count of the others on.
    registering: Mutex<()>,
}

/// Who registers a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// It does so itself.
    Itself,
    /// The administrator, or a client that is registered.
    Another,
}

/// What came of registering a client.
enum Added {
    New(Arc<Client>),
    /// It is registered already.
    Known,
    /// There are as many clients as may register themselves.
    Full,
}

impl Auth {
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn new(
        settings: AuthSettings,
        registrations: Arc<dyn Registrations>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, getrandom::Error> {
        let verified = Verified::new(random()?);
        let admin = settings
            .admin_secret
            .as_ref()
            .map(|secret| verified.pair("", secret));
        let sessions = Sessions::new(settings.session_lifetime);
        Ok(Self {
            settings,
            admin,
            registrations,
            clock,
            verified: Arc::new(verified),
            sessions,
            trials: Trials::new(),
            unknown_lane: Lane::new(UNKNOWN_QUEUE),
            registering: Mutex::default(),
        })
    }

    /// Whether clients may register themselves, if only some.
    pub(crate) fn self_registration(&self) -> bool {
        self.settings.allow_self_registration
    }

    /// Whether a client may register itself by a call from this address.
    pub(crate) async fn may_register_itself(
        &self,
        from: Option<IpAddr>,
    ) -> Result<bool, StoreError> {
        if !self.settings.allow_self_registration {
            return Ok(false);
        }
        let networks = &self.settings.self_registration_networks;
        // An IPv4 client of a socket for both protocols comes in the clothes of IPv6.
        let from = from.map(|from| from.to_canonical());
        let inside = |from: IpAddr| networks.iter().any(|network| network.contains(&from));
        if !networks.is_empty() && !from.is_some_and(inside) {
            tracing::info!(?from, "a client may not register itself from this address");
            return Ok(false);
        }
        self.has_room().await
    }

    /// Whether there are fewer clients than may register themselves.
    async fn has_room(&self) -> Result<bool, StoreError> {
        let Some(most) = self.settings.self_registration_clients else {
            return Ok(true);
        };
        let registered = self.registrations.registered().await?;
        let room = registered < u64::from(most.get());
        if !room {
            tracing::warn!(registered, "no further client may register itself");
        }
        Ok(room)
    }

    /// Registered clients, newest first.
    pub(crate) async fn registrations(
        &self,
        before: Option<RegistrationId>,
        limit: u32,
    ) -> Result<Vec<RegisteredClient>, StoreError> {
        self.registrations.registrations(before, limit).await
    }

    /// Whether there is an administrator.
    pub(crate) fn has_admin(&self) -> bool {
        self.admin.is_some()
    }

    /// Who calls with this `Authorization` header.
    pub(crate) async fn caller(
        &self,
        header: Option<&[u8]>,
        unknown: Unknown,
    ) -> Result<Caller, AuthError> {
        match header
            .and_then(Credentials::parse)
            .ok_or(AuthError::Header)?
        {
            Credentials::Bearer(token) => match self.sessions.client(&token, self.clock.now()) {
                Ok(client) => Ok(Caller::Client(client)),
                Err(NoSession::Unknown) => Err(AuthError::TokenInvalid),
                Err(NoSession::Expired) => Err(AuthError::SessionExpired),
            },
            Credentials::Basic { client, key } => {
                if self.is_admin(&key) {
                    return Ok(Caller::Admin);
                }
                if client.is_empty() {
                    return Err(AuthError::Unauthorized);
                }
                match self.check(&client, &key, unknown).await? {
                    Verdict::Valid(client) => Ok(Caller::Client(client)),
                    Verdict::WrongKey | Verdict::NotFound => Err(AuthError::Failed),
                    Verdict::KeyTooShort => Err(AuthError::KeyTooShort),
                }
            }
        }
    }

    /// Compares digests under a random key, of which no guess tells anything, in constant time.
    fn is_admin(&self, key: &Secret) -> bool {
        self.admin
            .is_some_and(|admin| admin.matches(&self.verified.pair("", key)))
    }

    /// Checks a client's key; an unknown client may be registered by that.
    pub(crate) async fn check(
        &self,
        client: &str,
        key: &Secret,
        unknown: Unknown,
    ) -> Result<Verdict, Unchecked> {
        if let Some(verdict) = self.look_up(client, key).await? {
            return Ok(verdict);
        }
        let may_register = match unknown {
            Unknown::MayRegister(from) => self.may_register_itself(from).await?,
            Unknown::Refuse => false,
        };
        let long_enough = key.reveal().len() >= SHORTEST_KEY;
        if !may_register || client.len() > LONGEST_CLIENT_ID {
            if long_enough {
                self.unknown_lane.turn().await?.pretend(key).await;
            }
            return Ok(Verdict::NotFound);
        }
        if !long_enough {
            return Ok(Verdict::KeyTooShort);
        }
        match self.add(client, key, By::Itself).await? {
            Added::New(client) => {
                tracing::info!(client = client.id.as_str(), "client registered itself");
                return Ok(Verdict::Valid(client));
            }
            Added::Full => return Ok(Verdict::NotFound),
            Added::Known => {}
        }
        // Another call registered it in the meantime, with this key or another.
        Ok(self
            .look_up(client, key)
            .await?
            .unwrap_or(Verdict::NotFound))
    }

    /// Checks the key of a client that is registered; `None` when it is not.
    async fn look_up(&self, client: &str, key: &Secret) -> Result<Option<Verdict>, Unchecked> {
        let pair = self.verified.pair(client, key);
        match self.verified.recall(client, &pair, self.clock.now()) {
            Known::Valid(client) => return Ok(Some(Verdict::Valid(client))),
            Known::Wrong => return Ok(Some(Verdict::WrongKey)),
            Known::Nothing(_) => {}
        }
        let Some(id) = ClientId::new(client) else {
            return Ok(None);
        };
        if self.registrations.registration(&id).await?.is_none() {
            return Ok(None);
        }
        if key.reveal().len() < SHORTEST_KEY {
            return Ok(Some(Verdict::WrongKey));
        }
        let turn = self.trials.turn(client).await?;
        // Calls that waited for the same pair find out here.
        let mark = match self.verified.recall(client, &pair, self.clock.now()) {
            Known::Valid(client) => return Ok(Some(Verdict::Valid(client))),
            Known::Wrong => return Ok(Some(Verdict::WrongKey)),
            Known::Nothing(mark) => mark,
        };
        // Its registration may have ended during the wait.
        let Some(registration) = self.registrations.registration(&id).await? else {
            return Ok(None);
        };
        let client = Arc::new(Client {
            registration: registration.id,
            id,
        });
        let trial = Trial {
            client: Arc::clone(&client),
            key: key.clone(),
            hash: registration.key_hash,
            pair,
            mark,
        };
        let right = self
            .trials
            .run(turn, trial, &self.verified, &self.clock)
            .await?;
        Ok(Some(match right {
            true => Verdict::Valid(client),
            false => Verdict::WrongKey,
        }))
    }

    /// Registers a client. The name is not empty.
    async fn add(&self, client: &str, key: &Secret, by: By) -> Result<Added, Unchecked> {
        let Some(id) = ClientId::new(client) else {
            return Ok(Added::Known);
        };
        let turn = self.unknown_lane.turn().await?;
        if self.registrations.registration(&id).await?.is_some() {
            return Ok(Added::Known);
        }
        let hash = turn.hash(key).await.ok_or(Unchecked::NoRandomness)?;
        let _alone = self.registering.lock().await;
        if by == By::Itself && !self.has_room().await? {
            return Ok(Added::Full);
        }
        let mark = self.verified.mark();
        let registered = self
            .registrations
            .register(&id, &hash, self.clock.now())
            .await?;
        let Registered::New(registration) = registered else {
            return Ok(Added::Known);
        };
        let pair = self.verified.pair(client, key);
        let client = Arc::new(Client { registration, id });
        self.verified.accept(mark, pair, &client);
        Ok(Added::New(client))
    }

    /// Registers a client by `/register`.
    pub(crate) async fn register(
        &self,
        client: &str,
        key: &Secret,
        by: By,
    ) -> Result<(), RegisterError> {
        if client.is_empty() {
            return Err(RegisterError::EmptyId);
        }
        if client.len() > LONGEST_CLIENT_ID {
            return Err(RegisterError::LongId);
        }
        if key.reveal().len() < SHORTEST_KEY {
            return Err(RegisterError::ShortKey);
        }
        match self.add(client, key, by).await? {
            Added::New(_) => {}
            Added::Known => return Err(RegisterError::Known),
            Added::Full => return Err(RegisterError::Full),
        }
        tracing::info!(client, "client registered");
        Ok(())
    }

    /// Ends a client's registration and its sessions; false when it is not registered.
    pub(crate) async fn unregister(&self, client: &ClientId) -> Result<bool, StoreError> {
        let was_registered = self.registrations.unregister(client).await?;
        self.verified.forget(client.as_str());
        self.sessions.end(client.as_str());
        if was_registered {
            tracing::info!(client = client.as_str(), "client unregistered");
        }
        Ok(was_registered)
    }

    /// Opens a session and gives its token; `None` when the client's registration has ended since
    /// its key was checked.
    pub(crate) async fn open_session(
        &self,
        client: Arc<Client>,
    ) -> Result<Option<Secret>, Unchecked> {
        let random = random().map_err(|_| Unchecked::NoRandomness)?;
        let token = self
            .sessions
            .open(Arc::clone(&client), random, self.clock.now());
        // Whoever unregisters it from now on finds the session and ends it.
        let current = self.registrations.registration(&client.id).await;
        let stands = matches!(&current, Ok(Some(it)) if it.id == client.registration);
        if !stands {
            self.sessions.close(&token);
        }
        current?;
        Ok(stands.then_some(token))
    }
}

/// 32 bytes from the system.
fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
