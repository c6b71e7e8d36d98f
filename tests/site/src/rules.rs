//! The plugin's rules about one call: who may report what and when, what ends what, what is still
//! awaited. No clock, socket or task: time comes in as an argument, what happened comes out as
//! [`Happening`]s, and [`CallState::next_deadline`] says when [`CallState::tick`] is due.

mod job;

use std::{collections::BTreeMap, time::Duration};

use job::Job;
use tokio::time::Instant;

use crate::{
    events::Happening,
    report::{Artifact, JobReport, JobType},
};

/// Silence between the moment that everybody is ready and the first word.
const LEAD_IN: Duration = Duration::from_millis(1500);
/// Silence, at least, between the last word and the end of the call.
const TAIL: Duration = Duration::from_millis(1500);

const JOIN_ERROR: &str = "timed out waiting for bot to join call";

/// How long things take in a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How long a bot may take to join, counted from the answer to POST /jobs.
    pub(crate) join: Duration,
    /// How long the speaking takes.
    pub(crate) speech: Duration,
    /// How long people stay, counted from the first word, or from the failure that comes instead.
    pub(crate) length: Duration,
    /// How long a bot that has finished its part may take to attach something.
    pub(crate) result: Duration,
}

/// Why a bot's report is refused; answered with 400 and these very words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no call ongoing")]
    NoCall,
    #[error("no job ongoing")]
    NoJob,
    #[error("invalid job ID")]
    InvalidJobId,
    #[error("job has ended")]
    Ended,
    #[error("job has already started")]
    AlreadyStarted,
}

/// What a bot reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BotStatus {
    Started,
    Failed(String),
}

/// What the recording page shows and plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageView {
    /// Milliseconds until the first word; negative once it is spoken. `None`: not known yet.
    pub(crate) speech_in_ms: Option<i64>,
    /// Whether the client in the page is to close.
    pub(crate) closed: bool,
}

/// A call and the jobs that work on it.
#[derive(Debug)]
pub(crate) struct CallState {
    timing: Timing,
    jobs: BTreeMap<JobType, Job>,
    speech_at: Option<Instant>,
    ends_at: Option<Instant>,
    ended: bool,
    happened: Vec<Happening>,
}

impl CallState {
    /// A call that begins now, with the recording and transcription ids of the bots it will ask for.
    pub(crate) fn new(timing: Timing, bots: impl IntoIterator<Item = (JobType, String)>) -> Self {
        Self {
            timing,
            jobs: bots
                .into_iter()
                .map(|(job, bot_id)| (job, Job::new(job, bot_id)))
                .collect(),
            speech_at: None,
            ends_at: None,
            ended: false,
            happened: vec![Happening::CallOpened],
        }
    }

    /// What has happened since this was last asked.
    pub(crate) fn drain(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }

    /// The recording or transcription id of a job, if the call asks for such a job.
    pub(crate) fn bot_id(&self, job: JobType) -> Option<&str> {
        self.jobs.get(&job).map(|job| job.bot_id.as_str())
    }

    /// Which job a recording or transcription id belongs to.
    pub(crate) fn job_of(&self, bot_id: &str) -> Option<JobType> {
        self.jobs
            .iter()
            .find(|(_, job)| job.bot_id == bot_id)
            .map(|(&kind, _)| kind)
    }

    /// POST /jobs was answered well: from now on the bot has its time to join.
    pub(crate) fn accepted(&mut self, kind: JobType, job_id: Option<String>, now: Instant) {
        let join = self.timing.join;
        let Some(job) = self.jobs.get_mut(&kind) else {
            return;
        };
        job.job_id = job_id;
        if !job.ended && !job.joined() {
            job.join_by = Some(now + join);
        }
    }

    /// POST /jobs was answered with an error, or not at all.
    pub(crate) fn refused(&mut self, kind: JobType, why: &str, now: Instant) {
        self.fail(kind, why, now);
    }

    /// A bot reports how it is.
    pub(crate) fn status(
        &mut self,
        kind: JobType,
        bot_id: &str,
        status: BotStatus,
        now: Instant,
    ) -> Result<(), Refusal> {
        let refusal = match self.jobs.get(&kind) {
            _ if self.ended => Refusal::NoCall,
            None => Refusal::NoJob,
            Some(job) if job.bot_id != bot_id => Refusal::InvalidJobId,
            Some(job) if job.ended => Refusal::Ended,
            Some(job) if job.started && status == BotStatus::Started => Refusal::AlreadyStarted,
            Some(_) => {
                match status {
                    BotStatus::Started => self.start(kind),
                    BotStatus::Failed(error) => {
                        self.happened.push(Happening::Failed {
                            job: kind,
                            error: error.clone(),
                        });
                        self.fail(kind, &error, now);
                    }
                }
                return Ok(());
            }
        };
        let (name, error) = match status {
            BotStatus::Started => ("started", None),
            BotStatus::Failed(error) => ("failed", Some(error)),
        };
        // Too late to matter to the call, but nothing will come of this bot any more.
        if let Some((job, error)) = self
            .jobs
            .get_mut(&kind)
            .filter(|job| job.bot_id == bot_id)
            .zip(error)
        {
            job.error.get_or_insert(error);
        }
        self.happened.push(Happening::StatusRefused {
            job: kind,
            status: name.into(),
            reason: refusal.to_string(),
        });
        Err(refusal)
    }

    /// The transcriber asks for the call's sound.
    pub(crate) fn audio_joined(&mut self) -> Result<(), Refusal> {
        let job = match self.jobs.get_mut(&JobType::Transcribing) {
            _ if self.ended => return Err(Refusal::NoCall),
            None => return Err(Refusal::NoJob),
            Some(job) if job.ended => return Err(Refusal::Ended),
            Some(job) => job,
        };
        job.listening = true;
        if job.joined() {
            job.join_by = None;
        }
        self.happened.push(Happening::AudioJoined);
        Ok(())
    }

    /// Whether the recording has started: what the transcriber waits for.
    pub(crate) fn recording_started(&self) -> bool {
        self.jobs
            .get(&JobType::Recording)
            .is_some_and(|job| job.started)
    }

    /// Whether a job's part in the call is over.
    pub(crate) fn job_ended(&self, kind: JobType) -> bool {
        self.jobs.get(&kind).is_none_or(|job| job.ended)
    }

    /// When the first word is spoken, once that is settled.
    pub(crate) fn speech_at(&self) -> Option<Instant> {
        self.speech_at
    }

    /// What the recording page shows and plays at this moment.
    pub(crate) fn page_view(&self, now: Instant) -> PageView {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        PageView {
            speech_in_ms: self.speech_at.map(|at| {
                millis(at.saturating_duration_since(now))
                    - millis(now.saturating_duration_since(at))
            }),
            closed: self.job_ended(JobType::Recording),
        }
    }

    /// A bot attached files to the call.
    pub(crate) fn attached(&mut self, kind: JobType, artifacts: Vec<Artifact>, now: Instant) {
        let Some(job) = self.jobs.get_mut(&kind) else {
            return;
        };
        let name = |a: &Artifact| {
            a.path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        self.happened.push(Happening::Attached {
            job: kind,
            files: artifacts.iter().map(name).collect(),
        });
        job.artifacts.extend(artifacts);
        job.ended = true;
        job.result_by = None;
        // A bot that is done before everybody has joined leaves nothing to speak for.
        self.ends_at.get_or_insert(now + self.timing.length);
    }

    /// The host presses stop: both bots are asked to stop, the call goes on.
    pub(crate) fn stop_recording(&mut self, now: Instant) {
        for kind in [JobType::Recording, JobType::Transcribing] {
            self.stop(kind, "the host stopped the recording", now);
        }
        self.ends_at.get_or_insert(now + self.timing.length);
    }

    /// Everybody leaves.
    pub(crate) fn end(&mut self, now: Instant) {
        self.ends_at = Some(now);
        self.tick(now);
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Instant) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<JobType> = self
            .jobs
            .iter()
            .filter(|(_, job)| due(job.join_by))
            .map(|(&kind, _)| kind)
            .collect();
        for kind in late {
            // The first to time out stops its partner, which then is no longer late.
            if self.jobs.get(&kind).is_some_and(|job| due(job.join_by)) {
                self.happened.push(Happening::TimedOut { job: kind });
                self.fail(kind, JOIN_ERROR, now);
            }
        }
        if self.speech_at.is_none() && self.jobs.values().all(|job| job.joined() && !job.ended) {
            let speech_at = now + LEAD_IN;
            self.speech_at = Some(speech_at);
            self.ends_at
                .get_or_insert(speech_at + self.timing.length.max(self.timing.speech + TAIL));
            self.happened
                .push(Happening::SpeechBegins { after: LEAD_IN });
        }
        if due(self.ends_at) && !self.ended {
            self.ended = true;
            self.happened.push(Happening::CallEnded);
            for job in self.jobs.values_mut().filter(|job| !job.ended) {
                job.end("the call ended", now + self.timing.result);
            }
        }
        for job in self.jobs.values_mut() {
            if due(job.result_by) && !job.concluded() {
                job.error = Some(format!(
                    "nothing attached within {} s",
                    self.timing.result.as_secs()
                ));
            }
        }
    }

    /// When [`CallState::tick`] will next have something to do, unless something happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let of_jobs = self.jobs.values().filter(|job| !job.concluded());
        of_jobs
            .flat_map(|job| [job.join_by, job.result_by])
            .chain([self.ends_at.filter(|_| !self.ended)])
            .flatten()
            .min()
    }

    /// Nothing more is expected of any job.
    pub(crate) fn concluded(&self) -> bool {
        self.jobs.values().all(Job::concluded)
    }

    /// Nothing will happen any more.
    pub(crate) fn over(&self) -> bool {
        self.ended && self.concluded()
    }

    /// What came of the jobs, and what they attached.
    pub(crate) fn outcome(&self) -> (Vec<JobReport>, Vec<Artifact>) {
        let report = |(&kind, job): (&JobType, &Job)| JobReport {
            job: kind,
            bot_id: job.bot_id.clone(),
            job_id: job.job_id.clone(),
            started: job.started,
            delivered: !job.artifacts.is_empty(),
            error: job.error.clone(),
        };
        let artifacts = self
            .jobs
            .values()
            .flat_map(|job| job.artifacts.iter().cloned());
        (self.jobs.iter().map(report).collect(), artifacts.collect())
    }

    fn start(&mut self, kind: JobType) {
        if let Some(job) = self.jobs.get_mut(&kind) {
            job.started = true;
            if job.joined() {
                job.join_by = None;
            }
            self.happened.push(Happening::Started { job: kind });
        }
    }

    /// A job that fails takes its partner with it. People talk on for the length of a call.
    fn fail(&mut self, kind: JobType, error: &str, now: Instant) {
        let Some(job) = self.jobs.get_mut(&kind) else {
            return;
        };
        job.error.get_or_insert_with(|| error.to_owned());
        job.ended = true;
        job.join_by = None;
        self.stop(kind.partner(), &format!("{kind}: {error}"), now);
        self.ends_at.get_or_insert(now + self.timing.length);
    }

    fn stop(&mut self, kind: JobType, why: &str, now: Instant) {
        if let Some(job) = self.jobs.get_mut(&kind).filter(|job| !job.ended) {
            let somebody_to_ask = job.started || job.join_by.is_some();
            job.end(why, now + self.timing.result);
            if somebody_to_ask {
                self.happened.push(Happening::StopAsked {
                    job: kind,
                    why: why.to_owned(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
