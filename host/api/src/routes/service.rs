//! What the service tells about itself, to anybody.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use engine::JobQuery;
use serde::Serialize;
use serde_json::json;

use super::json;
use crate::Api;

/// The level of the standard service's API that this one is compatible with. The plugin compares
/// it with the oldest it can work with.
const COMPATIBLE_WITH: &str = "v0.9.4";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    build_date: &'static str,
    build_version: &'static str,
    build_hash: &'static str,
    go_version: &'static str,
    name: &'static str,
    version: &'static str,
}

pub(super) async fn version(State(api): State<Api>) -> Response {
    json(&Version {
        build_date: api.build.date,
        build_version: COMPATIBLE_WITH,
        build_hash: api.build.hash,
        go_version: "none",
        name: "offloader",
        version: api.build.version,
    })
}

/// Whether the service can do its work: it cannot serve without its store, and cannot start jobs
/// without a container engine.
pub(super) async fn health(State(api): State<Api>) -> Response {
    let probe = JobQuery {
        limit: 1,
        ..JobQuery::default()
    };
    if let Err(error) = api.engine.page(&probe).await {
        let body = json(&json!({ "status": "unavailable", "reasons": [error.to_string()] }));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    let health = api.engine.health();
    let mut told = match health.reasons.is_empty() {
        true => json!({ "status": "ok" }),
        false => json!({ "status": "degraded", "reasons": health.reasons }),
    };
    if !health.warnings.is_empty() {
        told["warnings"] = json!(health.warnings);
    }
    json(&told)
}
