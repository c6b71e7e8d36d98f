//! How many jobs may be active at once.

use std::time::Duration;

use domain::{Job, JobKind, Timestamp};

/// How long a recording that runs keeps a slot for its call's transcription. Mattermost asks for
/// that as soon as it was told that the recording runs.
const RESERVED: Duration = Duration::from_secs(60);

/// Limits on active jobs: those that hold a slot. The default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Jobs of both kinds; `None` is no limit.
    pub total: Option<u32>,
    /// Recordings; `None` is no limit of their own.
    pub recordings: Option<u32>,
    /// Transcriptions; `None` is no limit of their own.
    pub transcriptions: Option<u32>,
    /// Whether a recording needs room for its call's transcription too. It keeps that until the
    /// transcription takes it, but no longer than a minute after the recording ran.
    pub reserve_for_transcription: bool,
}

impl Slots {
    /// As many jobs in all, of whatever kind.
    #[must_use]
    pub fn of(total: u32) -> Self {
        Self {
            total: Some(total),
            ..Self::default()
        }
    }

    /// Whether only the number of active jobs matters, and not what they are.
    #[must_use]
    pub fn count_only(&self) -> bool {
        let Self {
            total: _,
            recordings,
            transcriptions,
            reserve_for_transcription,
        } = self;
        recordings.is_none() && transcriptions.is_none() && !reserve_for_transcription
    }

    /// Whether `new` may become active, at the time of its submission, beside `active`.
    #[must_use]
    pub fn admit(&self, new: &Job, active: &[Job]) -> bool {
        let of_kind = |kind| active.iter().filter(|job| job.kind == kind).count();
        let reserved = if self.reserve_for_transcription {
            let keeps = |job: &&Job| {
                !is_transcription_of(new, job) && reserves(job, active, new.submitted_at)
            };
            active.iter().filter(keeps).count()
        } else {
            0
        };
        let reserve = self.reserve_for_transcription && new.resends.is_none();
        let (recordings, transcriptions) = match new.kind {
            JobKind::Recording => (1, usize::from(reserve)),
            JobKind::Transcribing => (0, 1),
        };
        let fits = |more: usize, taken: usize, limit: Option<u32>| {
            more == 0 || limit.is_none_or(|limit| taken + more <= limit as usize)
        };
        fits(recordings, of_kind(JobKind::Recording), self.recordings)
            && fits(
                transcriptions,
                of_kind(JobKind::Transcribing) + reserved,
                self.transcriptions,
            )
            && fits(
                recordings + transcriptions,
                active.len() + reserved,
                self.total,
            )
    }
}

/// Whether a job is a recording that keeps a slot at `now`. Of a call whose recording is sent in
/// again there is nothing left to transcribe.
fn reserves(job: &Job, active: &[Job], now: Timestamp) -> bool {
    (job.kind, &job.resends) == (JobKind::Recording, &None)
        && job
            .running_at()
            .is_none_or(|ran_at| now < ran_at.plus(RESERVED))
        && !active.iter().any(|other| is_transcription_of(other, job))
}

fn is_transcription_of(job: &Job, recording: &Job) -> bool {
    (job.kind, recording.kind) == (JobKind::Transcribing, JobKind::Recording)
        && (&job.resends, &recording.resends) == (&None, &None)
        && job.owner == recording.owner
        && job.submitted_at >= recording.submitted_at
        && call(job).is_some_and(|id| call(recording) == Some(id))
}

fn call(job: &Job) -> Option<&str> {
    let input = job
        .inputs
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("call_id"));
    input
        .map(|(_, id)| id.as_text())
        .filter(|id| !id.is_empty())
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
