//! What is submitted, and how a submission fails.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{ClientId, Denial, EndReason, InputValue, JobId, JobKind, RegistrationId};
use gate::Refusal;

use crate::StoreError;

/// A job as a client asks for it, with its form checked and its owner known.
///
/// Has no `Debug`: its inputs hold secrets.
pub struct Submission {
    /// The registration that it will belong to.
    pub owner: RegistrationId,
    /// That client's name.
    pub client: ClientId,
    /// What it is to do.
    pub kind: JobKind,
    /// The image asked for, as written.
    pub runner: String,
    /// How long it may run; not zero.
    pub max_duration: Duration,
    /// `input_data` as sent.
    pub inputs: BTreeMap<String, InputValue>,
    /// The `Idempotency-Key` header, if there was one.
    pub idempotency_key: Option<String>,
    /// sha256 of the body's meaning, hexadecimal.
    pub body_sha256: String,
}

/// Why a submission did not become a running job. Nothing of it runs or ever will.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The gate refused what the client sent or what a policy chose.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A policy denied it.
    #[error("{}", denial.message)]
    Denied {
        /// Which policy.
        policy: String,
        /// With what words.
        denial: Denial,
    },
    /// The same work was submitted before with another body, or ran and was deleted.
    #[error("job {0} was submitted for the same work with another request")]
    Conflict(JobId),
    /// All slots are taken.
    #[error("max concurrent jobs reached")]
    Full,
    /// The container engine cannot be reached.
    #[error("the container engine cannot be reached: {0}")]
    EngineUnreachable(String),
    /// The container engine has too little disk free for a job's work.
    #[error(
        "the container engine has {} MB of disk free and jobs.min_free_disk asks for {} MB",
        free_bytes / 1_000_000,
        needed_bytes / 1_000_000
    )]
    NoRoom {
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that have to be.
        needed_bytes: u64,
    },
    /// It was accepted and did not get to run.
    #[error("{detail}")]
    NotStarted {
        /// Why it ended.
        reason: EndReason,
        /// For people.
        detail: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service is ending.
    #[error("the service is shutting down")]
    ShuttingDown,
}

/// Why images could not be made present.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PrefetchError {
    /// The gate refused the image asked for or chosen.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A policy denied it.
    #[error("{}", denial.message)]
    Denied {
        /// Which policy.
        policy: String,
        /// With what words.
        denial: Denial,
    },
    /// It could not be had.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a job could not be deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeleteError {
    /// There is no such job.
    #[error("no such job")]
    Unknown,
    /// It holds a slot still.
    #[error("job is running")]
    Running,
    /// Another job has sent in again what it left, or is at it, and is there still.
    #[error("job {0} sends in again what it left; delete that one first")]
    BeingResent(JobId),
    /// What it left could not be removed yet; it will be tried again.
    #[error("the job's container could not be removed yet: {0}")]
    Engine(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a job could not be stopped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StopError {
    /// There is no such job.
    #[error("no such job")]
    Unknown,
    /// It does not run, or not any more.
    #[error("job is not running")]
    NotRunning,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
