//! `GET /jobs/{id}/files`: what an ended job left.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::JobId;
use engine::{FileStream, RunnerError};
use futures_util::{Stream, StreamExt as _};

use super::JobPath;
use super::jobs::owned;
use crate::Api;
use crate::audit;
use crate::auth::Caller;
use crate::caller::{Administrator, Peer};
use crate::error::ApiError;

const ACT: &str = "fetch-files";

/// Streams a tar archive. One that breaks off ends with its connection, so that nobody takes it for
/// all.
pub(super) async fn files(
    State(api): State<Api>,
    JobPath(id): JobPath,
    Administrator(from): Administrator,
    version: Version,
) -> Result<Response, ApiError> {
    if version < Version::HTTP_11 {
        // There every answer of unknown length ends with its connection.
        let text = "HTTP/1.1 is needed to tell a whole archive from one that breaks off";
        return Err(ApiError::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, text));
    }
    let view = owned(&api, &id, &Caller::Admin).await?;
    let files = match api.engine.files(&view.job).await {
        Ok(Some(files)) => files,
        Ok(None) => return Err(ApiError::no_files(&id)),
        Err(error) => return Err(ApiError::files(&id, &error)),
    };
    audit::record(from, ACT, id.as_str(), "begun");
    let disposition = format!("attachment; filename=\"{id}.tar\"");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            CONTENT_DISPOSITION,
            HeaderValue::try_from(disposition).map_err(|_| ApiError::unknown_path())?,
        ),
    ];
    let files = Audited {
        files,
        id,
        from,
        bytes: 0,
        end: End::Left,
    };
    Ok((headers, Body::from_stream(files)).into_response())
}

/// An archive of which the audit log is told how it ended.
struct Audited {
    files: FileStream,
    id: JobId,
    from: Peer,
    bytes: u64,
    end: End,
}

enum End {
    /// All of it was taken.
    Whole,
    /// It broke off.
    Broken(RunnerError),
    /// Whoever read it went away.
    Left,
}

impl Stream for Audited {
    type Item = Result<Bytes, RunnerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = ready!(self.files.poll_next_unpin(context));
        match &part {
            Some(Ok(part)) => self.bytes += part.len() as u64,
            Some(Err(error)) => self.end = End::Broken(error.clone()),
            None => self.end = End::Whole,
        }
        Poll::Ready(part)
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let bytes = self.bytes;
        let result = match &self.end {
            End::Whole => format!("whole, {bytes} bytes"),
            End::Broken(error) => format!("broke off after {bytes} bytes: {error}"),
            End::Left => format!("not read to its end, {bytes} bytes"),
        };
        audit::record(self.from, ACT, self.id.as_str(), &result);
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
