//! The page that the recorder's browser opens, and what that page asks of the site.

use std::sync::Arc;

use axum::{
    Json,
    extract::{OriginalUri, Query, State},
    http::{HeaderMap, header::CACHE_CONTROL, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    events::Happening,
    report::JobType,
    server::{Denied, Shared},
};

/// The page itself. It holds nothing secret: the token is in the fragment, which never gets here.
pub(crate) async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, include_str!("recording.html")).into_response()
}

#[derive(Deserialize)]
pub(crate) struct View {
    call_id: String,
    job_id: String,
    /// What the page tells in passing, each once: `opened`, `sound-blocked`.
    #[serde(default)]
    note: String,
}

/// What the page is to show and play at this moment; it asks several times a second.
pub(crate) async fn call(
    State(shared): State<Arc<Shared>>,
    Query(view): Query<View>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Denied> {
    let call = shared.call_of_bot(&headers, &view.call_id, uri.path())?;
    if call.look(|state| state.job_of(&view.job_id)) != Some(JobType::Recording) {
        return Err(Denied::bad_request("invalid job ID"));
    }
    match view.note.as_str() {
        "opened" => shared.log.record(Some(call.id()), Happening::PageOpened),
        "sound-blocked" => shared.log.record(Some(call.id()), Happening::SoundBlocked),
        _ => {}
    }
    let now = call.look(|state| state.page_view(tokio::time::Instant::now()));
    Ok(Json(
        json!({ "speech_in_ms": now.speech_in_ms, "closed": now.closed }),
    ))
}

/// What is said, as WAV.
pub(crate) async fn speech(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    shared.call_of_token(&headers, uri.path())?;
    Ok(([(CONTENT_TYPE, "audio/wav")], shared.speech.wav()).into_response())
}
