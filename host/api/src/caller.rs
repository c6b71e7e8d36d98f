//! Callers as handlers see them.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use domain::{ClientId, Job, RegistrationId};

use crate::Api;
use crate::auth::{Caller, Unknown};
use crate::error::ApiError;

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .map(|value| value.as_bytes());
        Ok(api.auth.caller(header, Unknown::MayRegister).await?)
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
