//! What the plugin keeps about one job of a call.

use tokio::time::Instant;

use crate::report::{Artifact, JobType};

/// One job of the call, as the plugin keeps it.
#[derive(Debug)]
pub(super) struct Job {
    kind: JobType,
    /// The recording or transcription id.
    pub(super) bot_id: String,
    /// The job service's id.
    pub(super) job_id: Option<String>,
    /// When the bot is late, while it may still join.
    pub(super) join_by: Option<Instant>,
    /// When a result is given up, once one is awaited.
    pub(super) result_by: Option<Instant>,
    /// The bot reported that it had.
    pub(super) started: bool,
    /// The transcriber has asked for the sound.
    pub(super) listening: bool,
    /// Its part in the call is over.
    pub(super) ended: bool,
    /// What went wrong first.
    pub(super) error: Option<String>,
    /// What it attached.
    pub(super) artifacts: Vec<Artifact>,
}

impl Job {
    /// A job that has been neither asked for nor started.
    pub(super) fn new(kind: JobType, bot_id: String) -> Self {
        Self {
            kind,
            bot_id,
            job_id: None,
            join_by: None,
            result_by: None,
            started: false,
            listening: false,
            ended: false,
            error: None,
            artifacts: Vec::new(),
        }
    }

    /// Nothing more is expected of it.
    pub(super) fn concluded(&self) -> bool {
        self.error.is_some() || !self.artifacts.is_empty()
    }

    /// Its part in the call is over. Once started, a result may still come.
    pub(super) fn end(&mut self, why: &str, result_by: Instant) {
        self.ended = true;
        self.join_by = None;
        if !self.started {
            self.error
                .get_or_insert_with(|| format!("ended before it started: {why}"));
        } else if !self.concluded() {
            self.result_by = Some(result_by);
        }
    }

    /// A recorder has joined when it says so; a transcriber, when it listens too.
    pub(super) fn joined(&self) -> bool {
        self.started && (self.kind == JobType::Recording || self.listening)
    }
}
