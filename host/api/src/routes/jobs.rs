//! One job, and the images that jobs will need.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use domain::{Delivery, JobId};
use engine::{JobView, LogsUntil, PrefetchError};
use serde::Serialize;

use super::{JobPath, json};
use crate::Api;
use crate::audit;
use crate::auth::Caller;
use crate::caller::{Administrator, Peer};
use crate::decode::{self, Fields};
use crate::error::ApiError;
use crate::job_body::{JobBody, delivery_name};

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

/// `GET /jobs/{id}/logs`; with `?follow=1` until the container ends.
pub(super) async fn logs(
    State(api): State<Api>,
    JobPath(id): JobPath,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let view = owned(&api, &id, &caller).await?;
    let until = match switch(query.as_deref().unwrap_or_default(), "follow")? {
        true => LogsUntil::End,
        false => LogsUntil::Now,
    };
    match api.engine.logs(&view.job, until).await {
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

/// `DELETE /jobs/{id}`; with `?force=1` also one that runs, for the administrator.
pub(super) async fn delete(
    State(api): State<Api>,
    JobPath(id): JobPath,
    caller: Caller,
    from: Peer,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    owned(&api, &id, &caller).await?;
    let forced = switch(query.as_deref().unwrap_or_default(), "force")?;
    match caller {
        Caller::Client(_) if forced => return Err(ApiError::administrators_only()),
        Caller::Admin if forced => return delete_by_force(&api, &id, from).await,
        _ => {}
    }
    api.engine
        .delete(&id)
        .await
        .map_err(|error| ApiError::delete(&id, &error))?;
    tracing::info!(job = %id, "deleted by request");
    if let Caller::Admin = caller {
        audit::record(from, "delete-job", id.as_str(), "ok");
    }
    Ok(StatusCode::OK.into_response())
}

/// `NAME=1` in a query.
fn switch(query: &str, name: &str) -> Result<bool, ApiError> {
    let mut on = false;
    for part in query.split('&') {
        on = match part.split_once('=') {
            Some((found, "1" | "true")) if found == name => true,
            Some((found, "0" | "false")) if found == name => false,
            Some((found, _)) if found == name => {
                let text = format!("invalid {name}: should be 1 or 0");
                return Err(ApiError::bad_request(text));
            }
            _ => on,
        };
    }
    Ok(on)
}

/// What became of the work of a job that was deleted by force: nobody can look any more.
#[derive(Serialize)]
struct DeletedBody<'a> {
    id: &'a str,
    delivery: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent_bytes: Option<u64>,
}

async fn delete_by_force(api: &Api, id: &JobId, from: Peer) -> Result<Response, ApiError> {
    const ACT: &str = "delete-job-by-force";
    // Before: what follows may outlast the caller.
    audit::record(from, ACT, id.as_str(), "begun");
    let delivery = match api.engine.delete_by_force(id).await {
        Ok(delivery) => delivery,
        Err(error) => {
            audit::record(from, ACT, id.as_str(), &error.to_string());
            return Err(ApiError::delete(id, &error));
        }
    };
    let unsent_bytes = match delivery {
        Delivery::Unsent { bytes } => Some(bytes),
        _ => None,
    };
    let delivery = delivery_name(delivery);
    let result = match unsent_bytes {
        Some(bytes) => format!("deleted with {bytes} bytes of unsent work"),
        None => format!("deleted; its work: {delivery}"),
    };
    audit::record(from, ACT, id.as_str(), &result);
    Ok(json(&DeletedBody {
        id: id.as_str(),
        delivery,
        unsent_bytes,
    }))
}

/// `POST /jobs/{id}/stop`: as at its deadline, with the grace of its type.
pub(super) async fn stop(
    State(api): State<Api>,
    JobPath(id): JobPath,
    Administrator(from): Administrator,
) -> Result<Response, ApiError> {
    api.engine
        .stop(&id)
        .await
        .map_err(|error| ApiError::stop(&id, &error))?;
    audit::record(from, "stop-job", id.as_str(), "ok");
    let view = owned(&api, &id, &Caller::Admin).await?;
    Ok(json(&JobBody::new(&view)))
}

/// `POST /jobs/{id}/resend`: a new job sends in what this one left. Answers with that one when it
/// runs.
pub(super) async fn resend(
    State(api): State<Api>,
    JobPath(id): JobPath,
    Administrator(from): Administrator,
) -> Result<Response, ApiError> {
    const ACT: &str = "resend-job";
    // Before: a start that is under way may outlast the caller.
    audit::record(from, ACT, id.as_str(), "begun");
    let timeout = api.start_timeout;
    match api.engine.resend(&id).await {
        Ok(view) => {
            audit::record(from, ACT, id.as_str(), &format!("job {}", view.job.id));
            Ok(json(&JobBody::new(&view)))
        }
        Err(error) => {
            audit::record(from, ACT, id.as_str(), &error.to_string());
            Err(ApiError::resend(&id, timeout, &error))
        }
    }
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
