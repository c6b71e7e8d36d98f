//! The one map from what went wrong to what the client is told.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::{EndReason, JobId, JobKind};
use engine::{
    DeleteError, FilesError, PrefetchError, ResendError, RunnerError, StopError, StoreError,
    SubmitError,
};
use gate::{Origin, Refusal};

use crate::auth::{AuthError, RegisterError, Unchecked};
use crate::decode::DecodeError;

/// When to try again where nothing better is known.
const SOON: Duration = Duration::from_secs(5);
/// When to try again when all slots are taken.
const SLOT: Duration = Duration::from_secs(30);

/// An error as the client sees it: `{"error": TEXT, "code": "STATUS"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    pub(crate) retry_after: Option<Duration>,
}

impl ApiError {
    /// An error that trying again does not help.
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            retry_after: None,
        }
    }

    /// An error that may be over after a while.
    fn later(status: StatusCode, text: impl Into<String>, after: Duration) -> Self {
        Self {
            status,
            text: text.into(),
            retry_after: Some(after),
        }
    }

    /// A request that makes no sense.
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// No such path.
    pub(crate) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    /// The path has other methods.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    }

    /// Somebody who may call, but not for this.
    pub(crate) fn administrators_only() -> Self {
        Self::new(StatusCode::FORBIDDEN, "only the administrator may do this")
    }

    /// No such job, or none of this caller's: the two are not told apart.
    pub(crate) fn unknown_job(id: &JobId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("failed to get job {id}: not found"),
        )
    }

    /// No such client is registered.
    pub(crate) fn unknown_registration(client: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("failed to get registration {client}: not found"),
        )
    }

    /// The job is there, its container is not.
    pub(crate) fn no_logs(id: &JobId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("failed to get logs of job {id}: it has no container"),
        )
    }

    /// A submission failed.
    pub(crate) fn submit(kind: JobKind, timeout: Duration, error: &SubmitError) -> Self {
        Self::not_started(&format!("failed to create {kind} job: "), timeout, error)
    }

    /// What a job left is not sent in again.
    pub(crate) fn resend(id: &JobId, timeout: Duration, error: &ResendError) -> Self {
        let what = format!("failed to resend job {id}: ");
        match error {
            ResendError::Unknown => Self::unknown_job(id),
            // It asked for nothing that could be refused: things are not as they were.
            ResendError::Running
            | ResendError::NothingUnsent
            | ResendError::Resend(_)
            | ResendError::UnderWay(_)
            | ResendError::Gone
            | ResendError::NotOffered(_)
            | ResendError::NotStarted(SubmitError::Refused(_)) => {
                Self::new(StatusCode::CONFLICT, format!("{what}{error}"))
            }
            ResendError::Engine(error) => Self::runner(&what, error),
            ResendError::NotStarted(error) => Self::not_started(&what, timeout, error),
        }
    }

    fn not_started(what: &str, timeout: Duration, error: &SubmitError) -> Self {
        let text = format!("{what}{error}");
        match error {
            SubmitError::Refused(refusal) => Self::new(refusal_status(refusal), text),
            SubmitError::Denied { .. } => Self::new(StatusCode::FORBIDDEN, text),
            SubmitError::Conflict(_) => Self::new(StatusCode::CONFLICT, text),
            SubmitError::Full | SubmitError::NoRoom { .. } => {
                Self::later(StatusCode::SERVICE_UNAVAILABLE, text, SLOT)
            }
            SubmitError::EngineUnreachable(_) | SubmitError::ShuttingDown => {
                Self::later(StatusCode::SERVICE_UNAVAILABLE, text, SOON)
            }
            SubmitError::NotStarted {
                reason: EndReason::StartTimeout,
                detail,
            } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "{what}not running within {} seconds: {detail}",
                    timeout.as_secs()
                ),
            ),
            SubmitError::NotStarted {
                reason: EndReason::Interrupted,
                ..
            } => Self::later(StatusCode::SERVICE_UNAVAILABLE, text, SOON),
            SubmitError::NotStarted { .. } => Self::new(StatusCode::BAD_GATEWAY, text),
            // Nothing of it was saved, and a disk may have room again.
            SubmitError::Store(error) => Self {
                retry_after: Some(SOON),
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..Self::store(what, error)
            },
        }
    }

    /// Images could not be made present.
    pub(crate) fn prefetch(error: &PrefetchError) -> Self {
        match error {
            PrefetchError::Refused(refusal) if refusal.origin == Origin::Client => {
                Self::bad_request(format!("invalid job service config: {refusal}"))
            }
            PrefetchError::Refused(_) | PrefetchError::Denied { .. } => Self::new(
                StatusCode::FORBIDDEN,
                format!("failed to update job runner: {error}"),
            ),
            PrefetchError::Unavailable(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("failed to update job runner: {error}"),
            ),
        }
    }

    /// A job could not be deleted.
    pub(crate) fn delete(id: &JobId, error: &DeleteError) -> Self {
        match error {
            DeleteError::Unknown => Self::unknown_job(id),
            DeleteError::Running => Self::bad_request(error.to_string()),
            DeleteError::BeingResent(_) => {
                let text = format!("failed to delete job {id}: {error}");
                Self::new(StatusCode::CONFLICT, text)
            }
            DeleteError::Engine(_) => {
                let text = format!("failed to delete job {id}: {error}");
                Self::later(StatusCode::SERVICE_UNAVAILABLE, text, SOON)
            }
            DeleteError::Store(error) => {
                Self::store(&format!("failed to delete job {id}: "), error)
            }
        }
    }

    /// A job could not be stopped.
    pub(crate) fn stop(id: &JobId, error: &StopError) -> Self {
        match error {
            StopError::Unknown => Self::unknown_job(id),
            StopError::NotRunning => Self::bad_request(error.to_string()),
            StopError::Store(error) => Self::store(&format!("failed to stop job {id}: "), error),
        }
    }

    /// A job's logs could not be read.
    pub(crate) fn logs(id: &JobId, error: &RunnerError) -> Self {
        Self::runner(&format!("failed to get logs of job {id}: "), error)
    }

    fn runner(what: &str, error: &RunnerError) -> Self {
        let text = format!("{what}{error}");
        if error.unreachable {
            Self::later(StatusCode::SERVICE_UNAVAILABLE, text, SOON)
        } else {
            Self::new(StatusCode::BAD_GATEWAY, text)
        }
    }

    /// The job is there, what it left is not.
    pub(crate) fn no_files(id: &JobId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("failed to get files of job {id}: nothing of it is kept"),
        )
    }

    /// What a job left could not be had.
    pub(crate) fn files(id: &JobId, error: &FilesError) -> Self {
        let what = format!("failed to get files of job {id}: ");
        match error {
            FilesError::Running | FilesError::BeingResent(_) | FilesError::ContainerGone { .. } => {
                Self::new(StatusCode::CONFLICT, format!("{what}{error}"))
            }
            FilesError::Engine(error) => Self::runner(&what, error),
        }
    }

    fn store(what: &str, error: &StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{what}{error}"))
    }
}

fn refusal_status(refusal: &Refusal) -> StatusCode {
    match refusal.origin {
        Origin::Client => StatusCode::BAD_REQUEST,
        Origin::Policy(_) => StatusCode::FORBIDDEN,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::store("", &error)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unchecked(unchecked) => unchecked.into(),
            refused => Self::new(StatusCode::UNAUTHORIZED, refused.to_string()),
        }
    }
}

impl From<Unchecked> for ApiError {
    fn from(error: Unchecked) -> Self {
        let text = error.to_string();
        match error {
            Unchecked::Busy => Self::later(StatusCode::SERVICE_UNAVAILABLE, text, SOON),
            Unchecked::Store(error) => error.into(),
            Unchecked::NoRandomness => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Unchecked(unchecked) => unchecked.into(),
            refused => Self::bad_request(refused.to_string()),
        }
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let status = match error {
            DecodeError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            DecodeError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            DecodeError::Broken | DecodeError::Syntax(_) | DecodeError::Shape { .. } => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::new(status, format!("failed to decode request body: {error}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // The code is a string: clients decode some answers into maps from string to string.
        let body = serde_json::json!({ "error": self.text, "code": self.status.as_str() });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status.is_server_error() {
            tracing::warn!(
                status = self.status.as_u16(),
                error = self.text,
                "request failed"
            );
        } else {
            tracing::debug!(
                status = self.status.as_u16(),
                error = self.text,
                "request refused"
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use gate::Refusal;

    use super::*;

    fn refusal(origin: Origin) -> Refusal {
        Refusal {
            origin,
            subject: "image x".into(),
            why: "no".into(),
            setting: "gate.registries".into(),
        }
    }

    #[test]
    fn every_failed_submission_has_its_status_and_its_beginning() {
        let store = StoreError {
            operation: "accept",
            detail: "disk full".into(),
        };
        let denial = domain::Denial {
            code: "old".into(),
            message: "too old".into(),
        };
        let not_started = |reason| SubmitError::NotStarted {
            reason,
            detail: "pulling".into(),
        };
        for (error, status, text, retry) in [
            (
                SubmitError::Refused(refusal(Origin::Client)),
                400,
                "image x refused: no (see gate.registries)",
                false,
            ),
            (
                SubmitError::Refused(refusal(Origin::Policy("p".into()))),
                403,
                "image x (proposed by policy p) refused: no (see gate.registries)",
                false,
            ),
            (
                SubmitError::Denied {
                    policy: "p".into(),
                    denial,
                },
                403,
                "too old",
                false,
            ),
            (SubmitError::Full, 503, "max concurrent jobs reached", true),
            (
                SubmitError::NoRoom {
                    free_bytes: 1_999_999,
                    needed_bytes: 5_000_000_000,
                },
                503,
                "the container engine has 1 MB of disk free and jobs.min_free_disk asks for 5000 MB",
                true,
            ),
            (
                SubmitError::EngineUnreachable("x".into()),
                503,
                "the container engine cannot be reached: x",
                true,
            ),
            (
                SubmitError::ShuttingDown,
                503,
                "the service is shutting down",
                true,
            ),
            (
                not_started(EndReason::StartTimeout),
                504,
                "not running within 100 seconds: pulling",
                false,
            ),
            (not_started(EndReason::Interrupted), 503, "pulling", true),
            (not_started(EndReason::ImageNotFound), 502, "pulling", false),
            (not_started(EndReason::StartFailed), 502, "pulling", false),
            (
                SubmitError::Store(store),
                503,
                "store: accept: disk full",
                true,
            ),
        ] {
            let told = ApiError::submit(JobKind::Transcribing, Duration::from_secs(100), &error);
            assert_eq!(told.status.as_u16(), status, "{error}");
            assert_eq!(
                told.text,
                format!("failed to create transcribing job: {text}")
            );
            assert_eq!(told.retry_after.is_some(), retry, "{error}");
        }
    }

    #[test]
    fn a_resend_that_is_refused_says_why_and_whether_to_try_again() {
        let job = JobId::from_random([1; JobId::LEN]);
        let engine = |unreachable| {
            ResendError::Engine(RunnerError {
                operation: "inspect",
                detail: "x".into(),
                unreachable,
            })
        };
        let not_started = ResendError::NotStarted;
        let timeout = SubmitError::NotStarted {
            reason: EndReason::StartTimeout,
            detail: "pulling".into(),
        };
        for (error, status, retry) in [
            (ResendError::Unknown, 404, false),
            (ResendError::Running, 409, false),
            (ResendError::NothingUnsent, 409, false),
            (ResendError::Resend(job.clone()), 409, false),
            (ResendError::UnderWay(job.clone()), 409, false),
            (ResendError::Gone, 409, false),
            (
                ResendError::NotOffered("m/r:v1".parse().unwrap()),
                409,
                false,
            ),
            (
                not_started(SubmitError::Refused(refusal(Origin::Client))),
                409,
                false,
            ),
            (not_started(SubmitError::Full), 503, true),
            (not_started(timeout), 504, false),
            (engine(true), 503, true),
            (engine(false), 502, false),
        ] {
            let told = ApiError::resend(&job, Duration::from_secs(100), &error);
            assert_eq!(told.status.as_u16(), status, "{error}");
            assert_eq!(told.retry_after.is_some(), retry, "{error}");
            let unknown = matches!(error, ResendError::Unknown);
            let begins = format!("failed to resend job {job}: ");
            assert!(unknown || told.text.starts_with(&begins), "{}", told.text);
        }
    }
}
