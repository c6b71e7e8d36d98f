//! Callers as handlers see them.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use domain::{ClientId, Job, RegistrationId};

use crate::Api;
use crate::auth::{Caller, Unknown};
use crate::error::ApiError;

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let unknown = Unknown::MayRegister(Peer::of(parts).address());
        Ok(api.auth.caller(authorization(parts), unknown).await?)
    }
}

fn authorization(parts: &Parts) -> Option<&[u8]> {
    parts
        .headers
        .get(AUTHORIZATION)
        .map(|value| value.as_bytes())
}

/// The other end of the connection, as far as that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) Option<SocketAddr>);

impl Peer {
    fn of(parts: &Parts) -> Self {
        let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Self(info.map(|ConnectInfo(address)| *address))
    }

    pub(crate) fn address(self) -> Option<IpAddr> {
        self.0.map(|address| address.ip())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // An IPv4 client of a socket for both protocols.
            Some(address) => write!(f, "{}", address.ip().to_canonical()),
            None => f.write_str("unknown"),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// The administrator, and nobody else. A client that is not registered stays so.
pub(crate) struct Administrator(pub(crate) Peer);

impl FromRequestParts<Api> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        match api
            .auth
            .caller(authorization(parts), Unknown::Refuse)
            .await?
        {
            Caller::Admin => Ok(Self(Peer::of(parts))),
            Caller::Client(_) => Err(ApiError::administrators_only()),
        }
    }
}

impl Caller {
    /// Whether the caller may see and handle a job.
    pub(crate) fn owns(&self, job: &Job) -> bool {
        match self {
            Self::Admin => true,
            Self::Client(client) => client.registration == job.owner,
        }
    }

    /// Whose jobs a list shows; `None` shows all.
    pub(crate) fn scope(&self) -> Option<RegistrationId> {
        match self {
            Self::Admin => None,
            Self::Client(client) => Some(client.registration),
        }
    }

    /// To whom new jobs belong.
    pub(crate) fn owner(&self, api: &Api) -> (RegistrationId, ClientId) {
        match self {
            Self::Admin => api.administrator.clone(),
            Self::Client(client) => (client.registration, client.id.clone()),
        }
    }
}
