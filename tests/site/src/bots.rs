//! What the bots tell the plugin and ask of it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    call::Call,
    report::{Artifact, JobType},
    rules::{BotStatus, CallState},
    server::{Denied, Shared},
};

/// The name of a result, without extension.
pub(crate) async fn filename(
    State(shared): State<Arc<Shared>>,
    Path(call_id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Denied> {
    let call = shared.call_of_bot(&headers, &call_id, uri.path())?;
    Ok(Json(json!({ "filename": format!("call_{}", call.id()) })))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StatusReport {
    job_type: JobType,
    status: StatusName,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StatusName {
    Started,
    Failed,
}

/// A bot has started, or has failed.
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Path((call_id, bot_id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Json(report): Json<StatusReport>,
) -> Result<Json<Value>, Denied> {
    let call = shared.call_of_bot(&headers, &call_id, uri.path())?;
    let status = match report.status {
        StatusName::Started => BotStatus::Started,
        StatusName::Failed => BotStatus::Failed(report.error),
    };
    call.update(|state, now| state.status(report.job_type, &bot_id, status, now))?;
    Ok(Json(json!({})))
}

/// Whether the transcriber may begin: 204 yes, 404 not yet.
pub(crate) async fn recording_started(
    State(shared): State<Arc<Shared>>,
    Path(call_id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<StatusCode, Denied> {
    let call = shared.call_of_bot(&headers, &call_id, uri.path())?;
    let started = call.look(CallState::recording_started);
    Ok(if started {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    })
}

#[derive(Deserialize)]
pub(crate) struct Recordings {
    job_id: String,
    file_ids: Vec<String>,
}

/// The recorder attaches what it uploaded.
pub(crate) async fn attach_recordings(
    State(shared): State<Arc<Shared>>,
    Path(call_id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Json(recordings): Json<Recordings>,
) -> Result<Json<Value>, Denied> {
    let call = shared.call_of_bot(&headers, &call_id, uri.path())?;
    attach(
        &shared,
        &call,
        JobType::Recording,
        &recordings.job_id,
        &recordings.file_ids,
    )
}

#[derive(Deserialize)]
pub(crate) struct Transcriptions {
    job_id: String,
    transcriptions: Vec<Transcription>,
}

#[derive(Deserialize)]
struct Transcription {
    file_ids: Vec<String>,
}

/// The transcriber attaches what it uploaded.
pub(crate) async fn attach_transcriptions(
    State(shared): State<Arc<Shared>>,
    Path(call_id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Json(attached): Json<Transcriptions>,
) -> Result<Json<Value>, Denied> {
    let call = shared.call_of_bot(&headers, &call_id, uri.path())?;
    let file_ids: Vec<String> = attached
        .transcriptions
        .into_iter()
        .flat_map(|one| one.file_ids)
        .collect();
    attach(
        &shared,
        &call,
        JobType::Transcribing,
        &attached.job_id,
        &file_ids,
    )
}

fn attach(
    shared: &Shared,
    call: &Call,
    job: JobType,
    bot_id: &str,
    file_ids: &[String],
) -> Result<Json<Value>, Denied> {
    if call.look(|state| state.job_of(bot_id)) != Some(job) {
        return Err(Denied::bad_request("invalid job ID"));
    }
    if file_ids.is_empty() {
        return Err(Denied::bad_request("no files to attach"));
    }
    let files = shared.uploads.take(call.id(), file_ids)?;
    let artifacts = files.into_iter().map(|file| Artifact {
        path: file.path,
        bytes: file.bytes,
        file_id: file.id,
        attached_by: bot_id.to_owned(),
        job,
    });
    let artifacts = artifacts.collect();
    call.update(|state, now| state.attached(job, artifacts, now));
    Ok(Json(json!({})))
}
