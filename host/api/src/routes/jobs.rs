//! One job, and the images that jobs will need.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use domain::JobId;
use engine::{JobView, PrefetchError};

use super::{JobPath, json};
use crate::Api;
use crate::audit;
use crate::auth::Caller;
use crate::caller::Peer;
use crate::decode::{self, Fields};
use crate::error::ApiError;
use crate::job_body::JobBody;

/// The most images that may be asked for at once. The client asks for two.
const MOST_RUNNERS: usize = 16;

pub(super) async fn init(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let runners = Fields::parse(&decode::read(body).await?)?.texts("runners")?;
    if runners.is_empty() {
        return Err(ApiError::bad_request(
            "invalid job service config: invalid empty Runners",
        ));
    }
    if runners.len() > MOST_RUNNERS {
        return Err(ApiError::bad_request(format!(
            "invalid job service config: more than {MOST_RUNNERS} Runners"
        )));
    }
    for runner in &runners {
        api.engine
            .gate()
            .runner(runner)
            .map_err(|refusal| ApiError::prefetch(&PrefetchError::Refused(refusal)))?;
    }
    let (_, client) = caller.owner(&api);
    api.engine
        .prefetch(&client, &runners)
        .await
        .map_err(|error| ApiError::prefetch(&error))?;
    Ok(StatusCode::OK)
}

pub(super) async fn show(
    State(api): State<Api>,
    JobPath(id): JobPath,
    caller: Caller,
) -> Result<Response, ApiError> {
    let view = owned(&api, &id, &caller).await?;
    Ok(json(&JobBody::new(&view)))
}

pub(super) async fn logs(
    State(api): State<Api>,
    JobPath(id): JobPath,
    caller: Caller,
) -> Result<Response, ApiError> {
    let view = owned(&api, &id, &caller).await?;
    match api.engine.logs(&view.job).await {
        Ok(Some(stream)) => {
            // The text comes from a container: no browser should take it for anything else.
            let headers = [
                (
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; charset=utf-8"),
                ),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            ];
            Ok((headers, Body::from_stream(stream)).into_response())
        }
        Ok(None) => Err(ApiError::no_logs(&id)),
        Err(error) => Err(ApiError::logs(&id, &error)),
    }
}

pub(super) async fn delete(
    State(api): State<Api>,
    JobPath(id): JobPath,
    caller: Caller,
    from: Peer,
) -> Result<StatusCode, ApiError> {
    owned(&api, &id, &caller).await?;
    api.engine
        .delete(&id)
        .await
        .map_err(|error| ApiError::delete(&id, &error))?;
    tracing::info!(job = %id, "deleted by request");
    if let Caller::Admin = caller {
        audit::record(from, "delete-job", id.as_str(), "ok");
    }
    Ok(StatusCode::OK)
}

/// The job of that id, if it is the caller's.
pub(super) async fn owned(
    api: &Api,
    id: &JobId,
    caller: &Caller,
) -> Result<Arc<JobView>, ApiError> {
    match api.engine.job(id).await? {
        Some(view) if caller.owns(&view.job) => Ok(view),
        _ => Err(ApiError::unknown_job(id)),
    }
}
