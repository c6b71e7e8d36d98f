//! A job, its attempts and the states of its life.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{
    ClientId, Delivery, EndReason, ImageId, ImageRef, Inputs, JobId, Outcome, RegistrationId,
    SiteUrl, Timestamp,
};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobKind {
    /// Records the call's picture and sound.
    Recording,
    /// Transcribes the call, and captions it live where asked to.
    Transcribing,
}

/// A text that names no kind of job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown job type")]
pub struct UnknownKind;

impl JobKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Recording, Self::Transcribing];

    /// `recording` or `transcribing`, as the job API says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Transcribing => "transcribing",
        }
    }

    /// The input that names the work and is unique per job in Mattermost.
    #[must_use]
    pub fn work_id_input(self) -> &'static str {
        match self {
            Self::Recording => "recording_id",
            Self::Transcribing => "transcription_id",
        }
    }
}

impl FromStr for JobKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|k| k.as_str() == text)
            .ok_or(UnknownKind)
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job as it is now. What the store keeps and the API shows.
///
/// Secrets are not part of it: they live in memory until the container is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its identifier.
    pub id: JobId,
    /// The registration that created it and to which it belongs.
    pub owner: RegistrationId,
    /// The name of that client when it created the job.
    pub client: ClientId,
    /// What it does.
    pub kind: JobKind,
    /// The image that the client asked for, as it was written.
    pub image_asked: String,
    /// The site URL that the client asked for, as it was written; empty where it sent none.
    pub site_url_asked: String,
    /// The site URL that policy and gate settled on.
    pub site_url: Option<SiteUrl>,
    /// How long it may run, counted from when its container runs.
    pub max_duration: Duration,
    /// The client's inputs without the secret ones.
    pub inputs: Inputs,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// After this time its container may not run any more if it does not yet.
    pub start_by: Timestamp,
    /// The job whose undelivered work it sends in again, in place of work of its own.
    pub resends: Option<JobId>,
    /// Its attempts, the first one first; never empty. The last is the current one.
    pub attempts: Vec<Attempt>,
    /// Where it is in its life.
    pub state: State,
}

/// One try at running the job in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// The image that policy and gate settled on for it.
    pub image: ImageRef,
    /// What the engine calls that image, once it is there. What runs must be this.
    pub image_id: Option<ImageId>,
    /// When it began, with looking for the image.
    pub started_at: Timestamp,
    /// When its container ran, if it ever did.
    pub running_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<EndReason>,
}

impl Attempt {
    /// An attempt that begins now.
    #[must_use]
    pub fn new(number: u32, image: ImageRef, now: Timestamp) -> Self {
        Self {
            number,
            image,
            image_id: None,
            started_at: now,
            running_at: None,
            ended_at: None,
            reason: None,
        }
    }
}

/// Why a running job is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// Its longest duration has passed.
    Deadline,
    /// An administrator asked.
    Admin,
}

impl StopCause {
    /// `deadline` or `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Admin => "admin",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When that became known, which retention counts from: the container engine's clock may be
    /// another, and an end seen late must not shorten what is kept. The attempt's `ended_at` says
    /// when the container ended.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Whether it did its work.
    pub outcome: Outcome,
    /// What became of the work.
    pub delivery: Delivery,
}

/// Where a job is in its life. Each state carries what it alone needs.
///
/// `Preparing -> Starting -> Running -> [Stopping] -> Ended -> [Retained] -> Removing -> Removed`,
/// and from `Preparing` or `Starting` by way of `Waiting` to another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The image of the current attempt is being made present.
    Preparing,
    /// The last attempt failed before its container ran; another begins at `until`.
    Waiting {
        /// When the next attempt begins.
        until: Timestamp,
    },
    /// The container of the current attempt may exist, and may have been started.
    Starting,
    /// The container runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// When it is stopped.
        deadline: Timestamp,
    },
    /// SIGTERM was asked for; the container may take until `kill_at` to finish.
    Stopping {
        /// Since when the container runs.
        since: Timestamp,
        /// When it is killed.
        kill_at: Timestamp,
        /// Why it is stopped.
        cause: StopCause,
    },
    /// It ended; what happens to its data is not decided yet.
    Ended(End),
    /// Its container and volumes are kept.
    Retained {
        /// How it ended.
        end: End,
        /// Until when; `None` keeps them until somebody deletes the job.
        until: Option<Timestamp>,
    },
    /// Its container and volumes are being removed.
    Removing {
        /// How it ended.
        end: End,
        /// Whether the record goes too, because somebody deleted the job.
        forget: bool,
    },
    /// Nothing is left of it but this record.
    Removed {
        /// How it ended.
        end: End,
    },
}

/// The states without what they carry: names for store, API, metrics and log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lifecycle {
    /// [`State::Preparing`]
    Preparing,
    /// [`State::Waiting`]
    Waiting,
    /// [`State::Starting`]
    Starting,
    /// [`State::Running`]
    Running,
    /// [`State::Stopping`]
    Stopping,
    /// [`State::Ended`]
    Ended,
    /// [`State::Retained`]
    Retained,
    /// [`State::Removing`]
    Removing,
    /// [`State::Removed`]
    Removed,
}

impl Lifecycle {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Preparing,
        Self::Waiting,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Ended,
        Self::Retained,
        Self::Removing,
        Self::Removed,
    ];

    /// The state's name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Retained => "retained",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }

    /// Whether a job in this state holds one of the slots that `max_concurrent_jobs` counts.
    #[must_use]
    pub fn holds_slot(self) -> bool {
        matches!(
            self,
            Self::Preparing | Self::Waiting | Self::Starting | Self::Running | Self::Stopping
        )
    }
}

impl State {
    /// The state without what it carries.
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        match self {
            Self::Preparing => Lifecycle::Preparing,
            Self::Waiting { .. } => Lifecycle::Waiting,
            Self::Starting => Lifecycle::Starting,
            Self::Running { .. } => Lifecycle::Running,
            Self::Stopping { .. } => Lifecycle::Stopping,
            Self::Ended(_) => Lifecycle::Ended,
            Self::Retained { .. } => Lifecycle::Retained,
            Self::Removing { .. } => Lifecycle::Removing,
            Self::Removed { .. } => Lifecycle::Removed,
        }
    }

    /// How the job ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match *self {
            Self::Ended(end)
            | Self::Retained { end, .. }
            | Self::Removing { end, .. }
            | Self::Removed { end } => Some(end),
            _ => None,
        }
    }
}

impl Job {
    /// The current attempt.
    ///
    /// # Panics
    /// Never: a job is made with its first attempt and loses none.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        self.attempts
            .last()
            .expect("a job has at least one attempt")
    }

    /// Whether a container of the job ever ran.
    #[must_use]
    pub fn ever_ran(&self) -> bool {
        self.attempts.iter().any(|a| a.running_at.is_some())
    }

    /// When its first container ran.
    #[must_use]
    pub fn running_at(&self) -> Option<Timestamp> {
        self.attempts.iter().find_map(|a| a.running_at)
    }

    /// Whether it keeps work that was not delivered, as far as anybody knows. A job that sends in
    /// again what another one left keeps nothing of its own.
    #[must_use]
    pub fn keeps_unsent(&self) -> bool {
        let kept =
            matches!(self.state, State::Retained { end, .. } if end.delivery.may_be_unsent());
        kept && self.resends.is_none()
    }

    /// `recording_id` or `transcription_id`, whichever belongs to its kind.
    #[must_use]
    pub fn work_id(&self) -> Option<&str> {
        let value = |name: &str| name.eq_ignore_ascii_case(self.kind.work_id_input());
        self.inputs
            .iter()
            .find(|(name, _)| value(name))
            .map(|(_, v)| v.as_text())
    }
}
