//! What policies were told when they made a decision that is on record.

use domain::{
    Decision, Delivery, EndReason, Exit, Fact, Hook, Job, JobFacts, State, Timestamp, step,
};

use crate::facts::of_job;

/// Why the facts of a decision cannot be told any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forgotten {
    /// It is about an attempt that the job's record does not have.
    #[error("the job's record does not have its attempt")]
    Attempt,
    /// It is about an attempt whose end the job's record does not tell.
    #[error("the job's record does not tell how its attempt ended")]
    EndOfAttempt,
    /// It is about an end that the job's record does not tell.
    #[error("the job's record does not tell how the job ended")]
    EndOfJob,
}

/// What the policy was told that made the decision at `index` of `decisions`, the job's own, oldest
/// first. `job` is the job as it is on record now, whatever became of it since. Exact, or an error:
/// submission, attempts and end are on record, and what policies asked before this one chose is in
/// their decisions.
///
/// An image-selection of a job is always one for a start: prefetches have no job and no record.
///
/// # Errors
/// What the record does not tell.
///
/// # Panics
/// When there is no decision of that index.
pub fn at_decision(job: &Job, decisions: &[Decision], index: usize) -> Result<JobFacts, Forgotten> {
    let (before, decision) = (&decisions[..index], &decisions[index]);
    let at = decision.at;
    let mut facts = match (decision.hook, decision.attempt) {
        (Hook::ImageSelection, None) => of_submission(job, at, job.image_asked.clone()),
        (Hook::SiteUrl, _) => {
            let first = job.attempts.first().ok_or(Forgotten::Attempt)?;
            of_submission(job, at, first.image.to_string())
        }
        (Hook::ImageSelection, Some(number)) => {
            let mut job = up_to(job, number)?;
            job.state = State::Waiting { until: at };
            let image_chosen = job.image_asked.clone();
            JobFacts {
                image_chosen,
                ..of_job(&job, at)
            }
        }
        (Hook::Retry, number) => {
            let job = up_to(job, number.ok_or(Forgotten::Attempt)?)?;
            of_job(&failed(job, at)?, at)
        }
        (Hook::Retention, _) => {
            job.state.end().ok_or(Forgotten::EndOfJob)?;
            // Asked again later: until then the work was not delivered, and how much that was is
            // not on record any more.
            let later = |d: &Decision| d.hook == Hook::Retention && d.at != at;
            if decisions[index..].iter().any(later) {
                return Err(Forgotten::EndOfJob);
            }
            of_job(job, at)
        }
    };
    let same_chain =
        |d: &&Decision| (d.hook, d.attempt, d.at) == (decision.hook, decision.attempt, at);
    let chosen = before
        .iter()
        .rev()
        .take_while(same_chain)
        .find(|d| d.enforced && d.verdict == "use")
        .and_then(|d| d.value.clone());
    match (decision.hook, chosen) {
        (Hook::ImageSelection, Some(image)) => facts.image_chosen = image,
        (Hook::SiteUrl, Some(url)) => facts.site_url_chosen = url,
        _ => {}
    }
    Ok(facts)
}

/// Before there were attempts.
fn of_submission(job: &Job, at: Timestamp, image_chosen: String) -> JobFacts {
    JobFacts {
        image_chosen,
        site_url_chosen: job.site_url_asked.clone(),
        attempts: Vec::new(),
        delivery: None,
        ..of_job(job, at)
    }
}

/// The job when the attempt of this number was its last.
fn up_to(job: &Job, number: u32) -> Result<Job, Forgotten> {
    let mut then = job.clone();
    then.attempts.retain(|attempt| attempt.number <= number);
    match then.attempts.last() {
        Some(last) if last.number == number => Ok(then),
        _ => Err(Forgotten::Attempt),
    }
}

/// The job with its last attempt failed at `at`, by the step that it was asked about with.
fn failed(mut job: Job, at: Timestamp) -> Result<Job, Forgotten> {
    let attempt = job.attempts.last_mut().ok_or(Forgotten::Attempt)?;
    let reason = attempt.reason.take().ok_or(Forgotten::EndOfAttempt)?;
    let ended_at = attempt.ended_at.take().ok_or(Forgotten::EndOfAttempt)?;
    let fact = match attempt.running_at {
        None => {
            job.state = State::Preparing;
            Fact::AttemptFailed {
                reason,
                retry: None,
            }
        }
        Some(since) => {
            let (code, out_of_memory) = match reason {
                EndReason::Exited(code) => (code, false),
                EndReason::OutOfMemory => (1, true),
                _ => return Err(Forgotten::EndOfAttempt),
            };
            job.state = State::Running {
                since,
                deadline: since.plus(job.max_duration),
            };
            Fact::Exited {
                exit: Exit {
                    code,
                    out_of_memory,
                    started_at: since,
                    ended_at,
                },
                // Nobody is asked beside work that may be unsent.
                delivery: Delivery::Delivered,
                retry: None,
            }
        }
    };
    step(&job, &fact, at).map_err(|_| Forgotten::EndOfAttempt)
}

#[cfg(test)]
#[path = "facts_past_tests.rs"]
mod tests;
