//! The job API: routes, authentication, request and response bodies, and the one map from errors
//! to HTTP.
//!
//! It speaks to the client exactly as the standard service does where that matters, and knows of
//! the rest of the program only the [`Engine`] and who keeps registrations.

mod audit;
mod auth;
mod caller;
mod decision_body;
mod decode;
mod error;
mod http_metrics;
mod job_body;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use domain::{ClientId, RegistrationId};
use engine::{Clock, Engine, PolicyControl, Registrations};

pub use audit::AUDIT_TARGET;
use auth::Auth;
pub use auth::AuthSettings;
pub use http_metrics::METRICS_CONTENT_TYPE;

/// What `/version` tells. All of it is text, because clients decode it so.
#[derive(Debug, Clone)]
pub struct Build {
    /// This program's own version.
    pub version: &'static str,
    /// The commit that it was built from; may be empty.
    pub hash: &'static str,
    /// When it was built; may be empty.
    pub date: &'static str,
}

/// Gives all metrics in Prometheus' text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// All that the API works with.
pub struct ApiConfig {
    /// Runs jobs.
    pub engine: Engine,
    /// Keeps registrations.
    pub registrations: Arc<dyn Registrations>,
    /// Looks after the policies.
    pub policies: Arc<dyn PolicyControl>,
    /// What `GET /metrics` shows the administrator; without it there is no such path, and nothing
    /// is measured.
    pub metrics: Option<RenderMetrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who may call.
    pub auth: AuthSettings,
    /// What `jobs.start_timeout` says, for the text of an error.
    pub start_timeout: Duration,
    /// What this program is.
    pub build: Build,
}

/// No randomness for the keys that the API makes for itself.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness(#[from] getrandom::Error);

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct Api(Arc<Shared>);

struct Shared {
    engine: Engine,
    policies: Arc<dyn PolicyControl>,
    metrics: Option<RenderMetrics>,
    auth: Auth,
    start_timeout: Duration,
    build: Build,
    administrator: (RegistrationId, ClientId),
}

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The job API as a service.
///
/// # Errors
/// When the system gives no random bytes.
pub fn router(config: ApiConfig) -> Result<Router, NoRandomness> {
    let ApiConfig {
        engine,
        registrations,
        policies,
        metrics,
        clock,
        auth,
        start_timeout,
        build,
    } = config;
    let auth = Auth::new(auth, registrations, clock)?;
    // Jobs of the administrator belong to a registration that no client can have.
    let administrator = ClientId::new("administrator").map(|id| (RegistrationId(0), id));
    let administrator = administrator.expect("the name is not empty");
    Ok(routes::router(Api(Arc::new(Shared {
        engine,
        policies,
        metrics,
        auth,
        start_timeout,
        build,
        administrator,
    }))))
}

#[cfg(test)]
mod testing;
