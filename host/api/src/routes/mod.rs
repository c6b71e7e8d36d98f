//! Every path of the API.

mod accounts;
mod files;
mod jobs;
mod list;
mod policies;
mod registrations;
mod service;
mod submit;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use domain::JobId;
use serde::Serialize;

use crate::Api;
use crate::error::ApiError;
use crate::http_metrics;

pub(crate) fn router(api: Api) -> Router {
    let other_method = || async { ApiError::method_not_allowed() };
    let unknown_path = || async { ApiError::unknown_path() };
    let measured = api.metrics.is_some();
    // HEAD is another method too; left to itself the router takes it for GET.
    let mut router = Router::new()
        .route(
            "/version",
            get(service::version)
                .head(unknown_path)
                .fallback(unknown_path),
        )
        .route(
            "/healthz",
            get(service::health)
                .head(other_method)
                .fallback(other_method),
        )
        .route("/login", post(accounts::login).fallback(unknown_path))
        .route("/register", post(accounts::register).fallback(unknown_path))
        .route(
            "/unregister",
            post(accounts::unregister).fallback(unknown_path),
        )
        .route(
            "/jobs",
            post(submit::submit)
                .get(list::list)
                .head(other_method)
                .fallback(other_method),
        )
        .route("/jobs/init", post(jobs::init).fallback(other_method))
        .route(
            "/jobs/{id}",
            get(jobs::show)
                .head(other_method_on_job)
                .delete(jobs::delete)
                .fallback(other_method_on_job),
        )
        .route(
            "/jobs/{id}/logs",
            get(jobs::logs)
                .head(other_method_on_job)
                .fallback(other_method_on_job),
        )
        .route(
            "/jobs/{id}/files",
            get(files::files)
                .head(other_method_on_job)
                .fallback(other_method_on_job),
        )
        .route(
            "/jobs/{id}/decisions",
            get(policies::decisions)
                .head(other_method_on_job)
                .fallback(other_method_on_job),
        )
        .route(
            "/jobs/{id}/stop",
            post(jobs::stop).fallback(other_method_on_job),
        )
        .route(
            "/jobs/{id}/resend",
            post(jobs::resend).fallback(other_method_on_job),
        )
        .route(
            "/policies",
            get(policies::show)
                .head(other_method)
                .fallback(other_method),
        )
        .route(
            "/policies/reload",
            post(policies::reload).fallback(other_method),
        )
        .route(
            "/registrations",
            get(registrations::list)
                .head(other_method)
                .fallback(other_method),
        )
        .route(
            "/registrations/{client}",
            delete(registrations::reset).fallback(other_method),
        )
        .fallback(unknown_path);
    if measured {
        http_metrics::describe();
        router = router
            .route(
                "/metrics",
                get(http_metrics::show)
                    .head(other_method)
                    .fallback(other_method),
            )
            .layer(middleware::from_fn(http_metrics::count));
    }
    router.with_state(api)
}

/// The job that a path names. A path whose id has another form does not exist, whoever asks.
struct JobPath(JobId);

impl FromRequestParts<Api> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        let id = path.ok().and_then(|Path(id)| id.parse().ok());
        id.map(Self).ok_or_else(ApiError::unknown_path)
    }
}

async fn other_method_on_job(_: JobPath) -> ApiError {
    ApiError::method_not_allowed()
}

fn json(body: &impl Serialize) -> Response {
    let mut text = Vec::with_capacity(1024);
    if let Err(error) = serde_json::to_writer(&mut text, body) {
        return ApiError::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )
        .into_response();
    }
    (
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        text,
    )
        .into_response()
}

#[cfg(test)]
mod tests;
