//! Ways to break the engine on purpose, to see that the simulation notices. A build without the
//! simulation has none of it.

use std::cell::Cell;
use std::time::Duration;

use domain::{Delivery, Duty, Fact, Illegal, Job, JobId, Keep, State, Timestamp};

/// One way to break it. The doc comment says what would be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Success is told before it is durable.
    AnswerBeforeCommit,
    /// The keys of submissions are forgotten: the same work runs twice.
    NoKeys,
    /// Jobs are accepted without counting them.
    NoSlots,
    /// A job that will not start keeps its slot.
    ForgetSlot,
    /// A start whose outcome nobody knows is begun again.
    StartAgain,
    /// A container is started without asking whether anybody waits for it.
    StartWithoutLeave,
    /// The time to start is not looked at.
    NoStartBy,
    /// Starts are begun in the last ten seconds.
    LastSeconds,
    /// A container of the right name counts as the attempt's, whatever its labels say.
    AdoptAnything,
    /// An error of inspect is taken for the container's end.
    ErrorIsAnEnd,
    /// What is left in the volume is not looked at.
    SeeNothingLeft,
    /// What was decided to be kept is removed.
    DeleteUnsent,
    /// What is kept is kept for half the time.
    KeepTooShort,
    /// What is kept for a time is kept for ever.
    KeepForEver,
    /// After a restart the grace begins anew.
    ForgetKillAt,
    /// After a restart the time to run begins anew.
    ForgetDeadline,
    /// Containers are killed before their grace is over.
    KillEarly,
    /// Containers that ignore SIGTERM are never killed.
    NeverKill,
    /// The longest duration is not looked at.
    NoDeadline,
    /// A job that ran is run again.
    RetryAfterRun,
    /// What is to be removed is not.
    RemoveNothing,
    /// Containers are removed without their volumes.
    LeaveVolumes,
    /// After a restart the wall clock is believed, though somebody set it.
    TrustTheWallClock,
    /// Nobody knows that a job sends in again what another one left.
    ForgetResends,
    /// What a job was to send in again is removed with it.
    RemoveWhatIsResent,
    /// What a job could not send in again either counts as sent.
    ResentAnyway,
    /// What a job has sent in goes on to count as unsent.
    NeverResent,
    /// Images that do not offer it are to send in again what a job left.
    ResendAnything,
}

impl Mutation {
    /// Every one.
    pub const ALL: [Self; 28] = [
        Self::AnswerBeforeCommit,
        Self::NoKeys,
        Self::NoSlots,
        Self::ForgetSlot,
        Self::StartAgain,
        Self::StartWithoutLeave,
        Self::NoStartBy,
        Self::LastSeconds,
        Self::AdoptAnything,
        Self::ErrorIsAnEnd,
        Self::SeeNothingLeft,
        Self::DeleteUnsent,
        Self::KeepTooShort,
        Self::KeepForEver,
        Self::ForgetKillAt,
        Self::ForgetDeadline,
        Self::KillEarly,
        Self::NeverKill,
        Self::NoDeadline,
        Self::RetryAfterRun,
        Self::RemoveNothing,
        Self::LeaveVolumes,
        Self::TrustTheWallClock,
        Self::ForgetResends,
        Self::RemoveWhatIsResent,
        Self::ResentAnyway,
        Self::NeverResent,
        Self::ResendAnything,
    ];
}

/// Longer than any history.
const FAR: Duration = Duration::from_secs(1_000_000);

thread_local! {
    static RULES: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Breaks the rules of this thread's histories, or mends them.
pub(super) fn break_rules(mutation: Option<Mutation>) {
    RULES.set(mutation);
}

/// [`domain::duty`], or what a broken engine makes of it.
pub(crate) fn duty(job: &Job) -> Duty {
    match (RULES.get(), domain::duty(job)) {
        (Some(Mutation::NoStartBy), Duty::Prepare { .. }) => Duty::Prepare { give_up_at: None },
        (Some(Mutation::NoStartBy), Duty::Launch { .. }) => Duty::Launch { start_by: None },
        (Some(Mutation::LastSeconds), Duty::Launch { start_by }) => Duty::Launch {
            start_by: start_by.map(|by| by.plus(domain::LAST_START)),
        },
        (Some(Mutation::KillEarly), Duty::Stop { kill_at }) => Duty::Stop {
            kill_at: kill_at.minus(Duration::from_secs(5)),
        },
        (Some(Mutation::NeverKill), Duty::Stop { kill_at }) => Duty::Stop {
            kill_at: kill_at.plus(FAR),
        },
        (Some(Mutation::NoDeadline), Duty::Watch { deadline }) => Duty::Watch {
            deadline: deadline.plus(FAR),
        },
        (Some(Mutation::KeepForEver), Duty::Keep { .. }) => Duty::Keep { until: None },
        (_, duty) => duty,
    }
}

/// The job whose undelivered work a job sends in again.
pub(crate) fn resends(job: &Job) -> Option<&JobId> {
    let known = RULES.get() != Some(Mutation::ForgetResends);
    job.resends.as_ref().filter(|_| known)
}

/// [`domain::step`], or what a broken engine makes of it.
pub(crate) fn step(job: &Job, fact: &Fact, now: Timestamp) -> Result<Job, Illegal> {
    let broken = RULES.get();
    let mut fact = fact.clone();
    if let Fact::Settled { keep } = &mut fact {
        match (broken, *keep) {
            (Some(Mutation::DeleteUnsent), _) => *keep = Keep::Nothing,
            (Some(Mutation::KeepTooShort), Keep::Until(until)) => {
                *keep = Keep::Until(now.plus(until.after(now) / 2));
            }
            _ => {}
        }
    }
    if let Fact::Exited { delivery, .. } | Fact::Lost { delivery, .. } = &mut fact
        && job.resends.is_some()
        && broken == Some(Mutation::ResentAnyway)
    {
        *delivery = Delivery::Delivered;
    }
    let mut next = domain::step(job, &fact, now)?;
    if fact == Fact::Resent && broken == Some(Mutation::NeverResent) {
        next.state = job.state;
    }
    if broken == Some(Mutation::ForgetSlot)
        && matches!(fact, Fact::Abandoned { .. })
        && matches!(next.state, State::Removing { .. })
    {
        let until = now.plus(FAR);
        next.state = State::Waiting { until };
    }
    Ok(next)
}

/// What a broken engine makes of a job that it finds in the store.
pub(super) fn found_after_restart(broken: Option<Mutation>, job: &mut Job, now: Timestamp) {
    match (broken, &mut job.state) {
        (Some(Mutation::ForgetKillAt), State::Stopping { kill_at, .. }) => *kill_at = now.plus(FAR),
        (Some(Mutation::ForgetDeadline), State::Running { deadline, .. }) => {
            *deadline = now.plus(job.max_duration);
        }
        _ => {}
    }
}
