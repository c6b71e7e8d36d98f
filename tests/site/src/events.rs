//! What happens at the site, as it happens: for the demo's progress and for tests to look at.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::report::JobType;

/// Something that happened, and when.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Wall-clock time.
    pub at: SystemTime,
    /// Time since the site started.
    pub since_start: Duration,
    /// The call it belongs to, if to one.
    pub call: Option<String>,
    /// What it was.
    pub what: Happening,
}

/// The things that happen at a site. No token or key is ever part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are named after what they hold")]
pub enum Happening {
    /// The job service told its version.
    Version { version: String },
    /// The job service answered, or did not answer (status 0), to POST /jobs/init.
    InitAnswered {
        try_number: u32,
        status: u16,
        text: String,
        took: Duration,
    },
    /// A call has begun.
    CallOpened,
    /// POST /jobs is on its way.
    JobPosted { job: JobType },
    /// POST /jobs was answered; status 0 when there was no answer at all.
    JobAnswered {
        job: JobType,
        status: u16,
        text: String,
        took: Duration,
    },
    /// The recorder's browser has the page open and its token was good.
    PageOpened,
    /// The recorder's browser does not let the page play sound.
    SoundBlocked,
    /// The transcriber is listening.
    AudioJoined,
    /// The transcriber is no longer listening; `complete` when the site ended the sound.
    AudioLeft { sent: Duration, complete: bool },
    /// The bot reported that it had started.
    Started { job: JobType },
    /// The bot, or the job service on its behalf, reported that it had failed.
    Failed { job: JobType, error: String },
    /// The bot did not join the call in time.
    TimedOut { job: JobType },
    /// The bot reported a status, and was told no.
    StatusRefused {
        job: JobType,
        status: String,
        reason: String,
    },
    /// The bot was asked to stop while the call went on.
    StopAsked { job: JobType, why: String },
    /// Speech will begin in so long.
    SpeechBegins { after: Duration },
    /// Everybody has left the call.
    CallEnded,
    /// A bot announced a file.
    UploadOpened { name: String, bytes: u64 },
    /// A bot was refused an upload or a chunk of one.
    UploadRefused { status: u16, reason: String },
    /// A file has arrived whole.
    UploadComplete { name: String, bytes: u64 },
    /// A bot attached files to the call.
    Attached { job: JobType, files: Vec<String> },
    /// Something came without a good token.
    Unauthorized { path: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2} s  {}", self.since_start.as_secs_f64(), self.what)
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { version } => write!(f, "job service announces version {version:?}"),
            Self::InitAnswered {
                try_number,
                status,
                text,
                took,
            } => {
                write!(
                    f,
                    "init, try {try_number}: {} after {:.2} s",
                    Outcome(*status, text),
                    took.as_secs_f64()
                )
            }
            Self::CallOpened => write!(f, "a call has begun"),
            Self::JobPosted { job } => write!(f, "{job}: asked of the job service"),
            Self::JobAnswered {
                job,
                status,
                text,
                took,
            } => {
                write!(
                    f,
                    "{job}: {} after {:.2} s",
                    Outcome(*status, text),
                    took.as_secs_f64()
                )
            }
            Self::PageOpened => write!(f, "recording: the page is open"),
            Self::SoundBlocked => write!(f, "recording: the browser lets the page play no sound"),
            Self::AudioJoined => write!(f, "transcribing: listening"),
            Self::AudioLeft { sent, complete } => {
                let how = if *complete {
                    "heard all of it"
                } else {
                    "hung up"
                };
                write!(f, "transcribing: {how}, {:.1} s", sent.as_secs_f64())
            }
            Self::Started { job } => write!(f, "{job}: started"),
            Self::Failed { job, error } => write!(f, "{job}: failed: {error}"),
            Self::TimedOut { job } => write!(f, "{job}: did not join the call in time"),
            Self::StatusRefused {
                job,
                status,
                reason,
            } => write!(f, "{job}: {status:?} was refused: {reason}"),
            Self::StopAsked { job, why } => write!(f, "{job}: asked to stop: {why}"),
            Self::SpeechBegins { after } => {
                write!(f, "speech begins in {:.1} s", after.as_secs_f64())
            }
            Self::CallEnded => write!(f, "the call has ended"),
            Self::UploadOpened { name, bytes } => {
                write!(f, "upload of {name} begins, {bytes} bytes")
            }
            Self::UploadRefused { status, reason } => {
                write!(f, "upload refused: {status} {reason}")
            }
            Self::UploadComplete { name, bytes } => {
                write!(f, "upload of {name} complete, {bytes} bytes")
            }
            Self::Attached { job, files } => write!(f, "{job}: attached {}", files.join(", ")),
            Self::Unauthorized { path } => write!(f, "no good token for {path}"),
        }
    }
}

/// An HTTP outcome in words: status 0 stands for no answer.
struct Outcome<'a>(u16, &'a str);

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (0, text) => write!(f, "no answer ({text})"),
            (status, "") => write!(f, "{status}"),
            (status, text) => write!(f, "{status} ({text})"),
        }
    }
}

/// All events of a site: kept, and told to whoever listens.
pub(crate) struct EventLog {
    start: Instant,
    kept: Mutex<Vec<Event>>,
    live: broadcast::Sender<Event>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            kept: Mutex::default(),
            live: broadcast::channel(1024).0,
        }
    }

    pub(crate) fn record(&self, call: Option<&str>, what: Happening) {
        let event = Event {
            at: SystemTime::now(),
            since_start: self.start.elapsed(),
            call: call.map(str::to_owned),
            what,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(event.clone());
        // Nobody listening is fine: the event is kept.
        let _ = self.live.send(event);
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }
}
