//! What came of a call.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The two kinds of job that work on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobType {
    /// Records screen and sound.
    Recording,
    /// Writes down what was said.
    Transcribing,
}

impl JobType {
    /// The job that works on the same call beside this one.
    pub fn partner(self) -> Self {
        match self {
            Self::Recording => Self::Transcribing,
            Self::Transcribing => Self::Recording,
        }
    }

    /// The name that the job API and the bots use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Transcribing => "transcribing",
        }
    }
}

impl fmt::Display for JobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file that a bot uploaded and attached to its call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Where it lies.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// The id under which it was uploaded.
    pub file_id: String,
    /// The recording or transcription id of the bot that attached it.
    pub attached_by: String,
    /// The kind of that bot.
    pub job: JobType,
}

/// What came of one job, as the site saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobReport {
    /// The kind of job.
    pub job: JobType,
    /// The recording or transcription id that the site gave it.
    pub bot_id: String,
    /// The id that the job service gave it, if it took it.
    pub job_id: Option<String>,
    /// Whether the bot reported that it had started.
    pub started: bool,
    /// Whether something was attached.
    pub delivered: bool,
    /// What went wrong.
    pub error: Option<String>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallReport {
    /// The call.
    pub call_id: String,
    /// The recorded picture and sound.
    pub recording: Option<Artifact>,
    /// What was said, as WebVTT.
    pub captions: Option<Artifact>,
    /// What was said, as plain text.
    pub text: Option<Artifact>,
    /// Everything that was attached, in order.
    pub artifacts: Vec<Artifact>,
    /// One entry for each job the call asked for.
    pub jobs: Vec<JobReport>,
    /// What went wrong, a line for each job that did; empty when all is well.
    pub errors: Vec<String>,
}

impl CallReport {
    pub(crate) fn new(call_id: &str, jobs: Vec<JobReport>, artifacts: Vec<Artifact>) -> Self {
        let last = |job: JobType, extension: &str| {
            let matches =
                |a: &&Artifact| a.job == job && a.path.extension().is_some_and(|e| e == extension);
            artifacts.iter().rfind(matches).cloned()
        };
        let error = |job: &JobReport| Some(format!("{}: {}", job.job, job.error.as_ref()?));
        Self {
            call_id: call_id.to_owned(),
            recording: last(JobType::Recording, "mp4"),
            captions: last(JobType::Transcribing, "vtt"),
            text: last(JobType::Transcribing, "txt"),
            errors: jobs.iter().filter_map(error).collect(),
            jobs,
            artifacts,
        }
    }
}
