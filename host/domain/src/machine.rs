//! The life of a job as a pure function: [`step`] takes a fact and gives the job as it is then,
//! [`duty`] says what has to be done about a job in its state.
//!
//! Effects are a function of the saved state, so committing the state commits them too: after a
//! crash [`duty`] names the same work again, and every duty may be carried out twice.

use std::time::Duration;

use crate::{
    Attempt, Delivery, End, EndReason, ImageId, ImageRef, Job, Outcome, State, StopCause, Timestamp,
};

/// No start is begun in this last part of the time to start: one under way has to be resolved
/// before the client's answer is due.
pub const LAST_START: Duration = Duration::from_secs(10);

/// How a container ended, as the engine's inspect tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: i32,
    /// Whether it was killed for want of memory.
    pub out_of_memory: bool,
    /// When it ran.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// What an ended container left behind in its volume.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// Bytes of media files (`.mp4`); an empty media file counts as one byte.
    pub media_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

impl Leftovers {
    /// Counts a regular file of that name or path.
    pub fn add(&mut self, name: &[u8], bytes: u64) {
        self.total_bytes = self.total_bytes.saturating_add(bytes);
        if name.to_ascii_lowercase().ends_with(b".mp4") {
            // An empty one tells of a recording too.
            self.media_bytes = self.media_bytes.saturating_add(bytes.max(1));
        }
    }
}

/// What happens to the data of an ended job, after policy and gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Remove it now.
    Nothing,
    /// Keep it until then.
    Until(Timestamp),
    /// Keep it until somebody deletes the job.
    ForEver,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The image of the current attempt is present.
    Prepared {
        /// Which image that is.
        image_id: ImageId,
    },
    /// The current attempt failed before its container ran.
    AttemptFailed {
        /// Why.
        reason: EndReason,
        /// The pause before another attempt, where policy and gate want one.
        retry: Option<Duration>,
    },
    /// The pause is over and another attempt begins.
    NextAttempt {
        /// The image that policy and gate settled on for it.
        image: ImageRef,
    },
    /// The container runs.
    Launched {
        /// Since when.
        at: Timestamp,
    },
    /// It will not start any more.
    Abandoned {
        /// Why.
        reason: EndReason,
    },
    /// It is to stop.
    StopRequested {
        /// Why.
        cause: StopCause,
        /// How long it may take from now.
        grace: Duration,
    },
    /// It is to end now, without grace.
    KillRequested,
    /// Its container ended.
    Exited {
        /// How.
        exit: Exit,
        /// What became of the work.
        delivery: Delivery,
        /// The pause before another attempt, where policy and gate want one after a run.
        retry: Option<Duration>,
    },
    /// Its container is gone and nobody knows how it ended.
    Lost {
        /// [`EndReason::RuntimeLost`] or [`EndReason::RemovedByHand`].
        reason: EndReason,
        /// What became of the work.
        delivery: Delivery,
    },
    /// What happens to its data is decided.
    Settled {
        /// The decision.
        keep: Keep,
    },
    /// The time to keep its data is over.
    KeepingOver,
    /// Another job has sent in what this one could not deliver.
    Resent,
    /// Its owner or an administrator deletes it.
    DeleteRequested,
    /// Its containers and volumes are gone.
    Cleared,
}

/// A fact that cannot be true of a job in its state. The job stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} cannot take: {fact}")]
pub struct Illegal {
    /// The state's name.
    pub state: &'static str,
    /// The fact's name.
    pub fact: &'static str,
}

/// What has to be done about a job. Each duty may be carried out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Make the image of the current attempt present, giving up at `give_up_at`.
    Prepare {
        /// When no start may be begun any more; `None` where no client waits for one.
        give_up_at: Option<Timestamp>,
    },
    /// Wait until `at`, then begin another attempt.
    Retry {
        /// When.
        at: Timestamp,
        /// As for [`Self::Prepare`].
        give_up_at: Option<Timestamp>,
    },
    /// Create and start the container of the current attempt, unless that has happened.
    Launch {
        /// When a container that does not run yet must not run any more.
        start_by: Option<Timestamp>,
    },
    /// Wait for the container's end, asking it to stop at `deadline`.
    Watch {
        /// When it is stopped.
        deadline: Timestamp,
    },
    /// Ask the container to end, wait for that, and kill it at `kill_at`.
    Stop {
        /// When it is killed.
        kill_at: Timestamp,
    },
    /// Decide what happens to its data.
    Settle {
        /// How it ended.
        end: End,
    },
    /// Keep its data until then.
    Keep {
        /// `None`: until somebody deletes the job.
        until: Option<Timestamp>,
    },
    /// Remove its containers and volumes.
    Remove {
        /// Whether the record goes too.
        forget: bool,
    },
    /// Nothing.
    Rest,
}

/// What has to be done about a job in its state.
#[must_use]
pub fn duty(job: &Job) -> Duty {
    let waited_for = (!job.ever_ran()).then_some(job.start_by);
    let give_up_at = waited_for.map(|by| by.minus(LAST_START));
    match job.state {
        State::Preparing => Duty::Prepare { give_up_at },
        State::Waiting { until } => Duty::Retry {
            at: until,
            give_up_at,
        },
        State::Starting => Duty::Launch {
            start_by: waited_for,
        },
        State::Running { deadline, .. } => Duty::Watch { deadline },
        State::Stopping { kill_at, .. } => Duty::Stop { kill_at },
        State::Ended(end) => Duty::Settle { end },
        State::Retained { until, .. } => Duty::Keep { until },
        State::Removing { forget, .. } => Duty::Remove { forget },
        State::Removed { .. } => Duty::Rest,
    }
}

/// The job after `fact`, which became known at `now`.
///
/// # Errors
/// When the fact cannot be true of a job in this state.
pub fn step(job: &Job, fact: &Fact, now: Timestamp) -> Result<Job, Illegal> {
    let mut next = job.clone();
    next.state = match (job.state, fact) {
        (State::Preparing, Fact::Prepared { image_id }) => {
            if too_late(job, now) {
                abandon(&mut next, EndReason::StartTimeout, now)
            } else {
                current(&mut next).image_id = Some(image_id.clone());
                State::Starting
            }
        }
        (State::Preparing | State::Starting, Fact::AttemptFailed { reason, retry }) => {
            match retry
                .map(|pause| now.plus(pause))
                .filter(|at| !too_late(job, *at))
            {
                Some(until) => {
                    close(&mut next, *reason, now);
                    State::Waiting { until }
                }
                None => abandon(&mut next, *reason, now),
            }
        }
        (State::Waiting { .. }, Fact::NextAttempt { image }) => {
            if too_late(job, now) {
                abandon(&mut next, EndReason::StartTimeout, now)
            } else {
                let number = job.attempt().number + 1;
                next.attempts.push(Attempt::new(number, image.clone(), now));
                State::Preparing
            }
        }
        (
            State::Preparing | State::Waiting { .. } | State::Starting,
            Fact::Abandoned { reason },
        ) => abandon(&mut next, *reason, now),
        (State::Starting, Fact::Launched { at }) => run(&mut next, *at, now),
        (State::Running { since, .. }, Fact::StopRequested { cause, grace }) => State::Stopping {
            since,
            kill_at: now.plus(*grace),
            cause: *cause,
        },
        (State::Running { since, .. }, Fact::KillRequested) => State::Stopping {
            since,
            kill_at: now,
            cause: StopCause::Admin,
        },
        (
            State::Stopping {
                since,
                kill_at,
                cause,
            },
            Fact::KillRequested,
        ) => State::Stopping {
            since,
            kill_at: kill_at.min(now),
            cause,
        },
        (
            State::Starting | State::Running { .. } | State::Stopping { .. },
            Fact::Exited {
                exit,
                delivery,
                retry,
            },
        ) => {
            let attempt = current(&mut next);
            attempt.running_at.get_or_insert(exit.started_at);
            let reason = exit_reason(&job.state, exit);
            close(&mut next, reason, exit.ended_at);
            // A second attempt beside the only copy of the first one's work would put it at risk.
            match retry.filter(|_| !delivery.may_be_unsent()) {
                Some(pause) => State::Waiting {
                    until: now.plus(pause),
                },
                None => State::Ended(End {
                    at: now,
                    reason,
                    outcome: outcome(&job.state, exit, *delivery),
                    delivery: *delivery,
                }),
            }
        }
        (
            State::Starting | State::Running { .. } | State::Stopping { .. },
            Fact::Lost { reason, delivery },
        ) => {
            // It was seen to have run, if only by what it left.
            current(&mut next).running_at.get_or_insert(now);
            close(&mut next, *reason, now);
            State::Ended(End {
                at: now,
                reason: *reason,
                outcome: Outcome::Failed,
                delivery: *delivery,
            })
        }
        (State::Ended(end), Fact::Settled { keep }) => match keep {
            Keep::Nothing => State::Removing { end, forget: false },
            Keep::Until(until) => State::Retained {
                end,
                until: Some(*until),
            },
            Keep::ForEver => State::Retained { end, until: None },
        },
        (
            State::Retained {
                end,
                until: Some(until),
            },
            Fact::KeepingOver,
        ) if until <= now => State::Removing { end, forget: false },
        // What happens to the data is decided anew: it is no longer the only copy.
        (State::Retained { end, .. }, Fact::Resent) if end.delivery.may_be_unsent() => {
            State::Ended(End {
                delivery: Delivery::Delivered,
                ..end
            })
        }
        (
            State::Ended(end)
            | State::Retained { end, .. }
            | State::Removing { end, .. }
            | State::Removed { end },
            Fact::DeleteRequested,
        ) => State::Removing { end, forget: true },
        (State::Removing { end, .. }, Fact::Cleared) => State::Removed { end },
        _ => {
            return Err(Illegal {
                state: job.state.lifecycle().as_str(),
                fact: fact.name(),
            });
        }
    };
    Ok(next)
}

fn current(job: &mut Job) -> &mut Attempt {
    job.attempts
        .last_mut()
        .expect("a job has at least one attempt")
}

/// Whether at `now` no start may be begun any more. A client that was answered waits no longer.
fn too_late(job: &Job, now: Timestamp) -> bool {
    !job.ever_ran() && now >= job.start_by.minus(LAST_START)
}

fn close(job: &mut Job, reason: EndReason, at: Timestamp) {
    let attempt = current(job);
    attempt.reason = Some(reason);
    attempt.ended_at = Some(at);
}

/// Ends a job whose current attempt never ran. When none did there is nothing to decide about:
/// what little a start may have left in the engine is removed.
fn abandon(job: &mut Job, reason: EndReason, now: Timestamp) -> State {
    if job.attempt().ended_at.is_none() {
        close(job, reason, now);
    }
    let end = |delivery| End {
        at: now,
        reason,
        outcome: Outcome::Failed,
        delivery,
    };
    if job.ever_ran() {
        // No attempt follows one that left undelivered work.
        State::Ended(end(Delivery::Delivered))
    } else {
        State::Removing {
            end: end(Delivery::NeverRan),
            forget: false,
        }
    }
}

/// The container engine says when it ran, by its own clock. A deadline counted from a time that
/// cannot be right would come early or never, so such a time is not taken.
fn run(job: &mut Job, at: Timestamp, now: Timestamp) -> State {
    let attempt = current(job);
    let possible = attempt.started_at <= at && at <= now;
    let since = if possible { at } else { now };
    attempt.running_at = Some(since);
    State::Running {
        since,
        deadline: since.plus(job.max_duration),
    }
}

fn exit_reason(state: &State, exit: &Exit) -> EndReason {
    /// 128 + SIGKILL.
    const KILLED: i32 = 137;
    match *state {
        _ if exit.out_of_memory => EndReason::OutOfMemory,
        State::Stopping { .. } if exit.code == KILLED => EndReason::KilledAfterGrace,
        State::Stopping {
            cause: StopCause::Deadline,
            ..
        } => EndReason::Deadline,
        State::Stopping {
            cause: StopCause::Admin,
            ..
        } => EndReason::StoppedByAdmin,
        _ if exit.code == 0 => EndReason::Completed,
        _ => EndReason::Exited(exit.code),
    }
}

/// The recorder's container exits with 1 after a SIGTERM although all went well, so there the
/// code says nothing and only delivery counts.
fn outcome(state: &State, exit: &Exit, delivery: Delivery) -> Outcome {
    let clean = exit.code == 0 || (exit.code == 1 && matches!(state, State::Stopping { .. }));
    if clean && !exit.out_of_memory && delivery == Delivery::Delivered {
        Outcome::Succeeded
    } else {
        Outcome::Failed
    }
}

impl Fact {
    /// The fact's name, for logs and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepared { .. } => "prepared",
            Self::AttemptFailed { .. } => "attempt-failed",
            Self::NextAttempt { .. } => "next-attempt",
            Self::Launched { .. } => "launched",
            Self::Abandoned { .. } => "abandoned",
            Self::StopRequested { .. } => "stop-requested",
            Self::KillRequested => "kill-requested",
            Self::Exited { .. } => "exited",
            Self::Lost { .. } => "lost",
            Self::Settled { .. } => "settled",
            Self::KeepingOver => "keeping-over",
            Self::Resent => "resent",
            Self::DeleteRequested => "delete-requested",
            Self::Cleared => "cleared",
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
