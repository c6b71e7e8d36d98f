//! Containers of this installation whose job the store does not know, because it was lost or
//! restored from an older copy: their jobs are taken up again by what the containers' labels say.

use std::sync::Arc;

use domain::{Attempt, EndReason, Job, JobId, RegistrationId, State, Timestamp};
use gate::ContainerName;
use tracing::{info, warn};

use crate::engine::Shared;
use crate::job_loop::JobLoop;
use crate::{Accepted, Described, JobView, NewJob, RunnerError, Slots};

/// The owner of jobs whose owner is not known any more. No registration has this id, so only
/// administrators see them.
const NOBODY: RegistrationId = RegistrationId(0);

/// What the containers of an unknown job tell of it.
pub(crate) enum Orphan {
    /// The job, as far as they tell.
    Job(Box<Job>),
    /// This container or volume does not tell enough. It may be all that is left of somebody's
    /// recording.
    Untold(ContainerName),
}

/// Looks at these containers, which are all those of one job.
pub(crate) async fn look(
    shared: &Shared,
    containers: &[ContainerName],
) -> Result<Orphan, RunnerError> {
    let (mut attempts, mut untold) = (Vec::new(), None);
    for name in containers {
        match shared.ports.runner.describe(name).await? {
            Some(described) => attempts.push((name.attempt(), described)),
            None => untold = Some(name),
        }
    }
    let job = rebuild(containers[0].job(), attempts, shared.now());
    Ok(match (job, untold) {
        (Some(job), _) => Orphan::Job(Box::new(job)),
        (None, untold) => Orphan::Untold(untold.unwrap_or(&containers[0]).clone()),
    })
}

/// Takes up a job that the store does not know. False when that failed.
pub(crate) async fn take_up(shared: &Arc<Shared>, job: Job) -> bool {
    let job = Arc::new(job);
    let new = NewJob {
        job: Arc::clone(&job),
        decisions: Vec::new(),
        keys: Vec::new(),
        body_sha256: String::new(),
        slots: Slots::default(),
    };
    match shared.ports.store.accept(new).await {
        Ok(Accepted::New) => {
            info!(
                job = %job.id, client = %job.client, attempt = job.attempt().number,
                state = job.state.lifecycle().as_str(),
                "took up the container of a job that the store did not know"
            );
            let decisions = Vec::new();
            JobLoop::recovered(shared, Arc::new(JobView { job, decisions })).spawn();
            true
        }
        Ok(_) => false,
        Err(error) => {
            warn!(job = %job.id, %error, "could not take up the container of an unknown job");
            false
        }
    }
}

/// A job as far as its containers tell. `attempts` are in their order; the last is the current one.
fn rebuild(id: &JobId, attempts: Vec<(u32, Described)>, now: Timestamp) -> Option<Job> {
    let (_, last) = attempts.last()?;
    let (last, submitted_at) = (last.clone(), last.submitted_at.min(now));
    let attempts: Vec<Attempt> = attempts
        .into_iter()
        .map(|(number, described)| Attempt {
            image_id: Some(described.image_id),
            running_at: described.ran_at.map(|at| at.clamp(submitted_at, now)),
            ended_at: Some(now),
            reason: Some(EndReason::RuntimeLost),
            ..Attempt::new(number, described.image, submitted_at)
        })
        .collect();
    let mut job = Job {
        id: id.clone(),
        owner: NOBODY,
        client: last.client,
        kind: last.kind,
        image_asked: last.image.to_string(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: last.max_duration,
        inputs: domain::Inputs::new(),
        submitted_at,
        start_by: submitted_at,
        resends: last.resends,
        attempts,
        state: State::Starting,
    };
    let current = job.attempts.last_mut()?;
    (current.ended_at, current.reason) = (None, None);
    // Whether it still runs, how it ended and what it left is found out as after any restart.
    if let Some(since) = current.running_at {
        let deadline = since.plus(job.max_duration);
        job.state = State::Running { since, deadline };
    }
    Some(job)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{ClientId, JobKind};

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn described(ran_at: Option<i64>) -> Described {
        Described {
            kind: JobKind::Recording,
            client: ClientId::new("site").unwrap(),
            submitted_at: at(1000),
            max_duration: Duration::from_secs(60),
            resends: None,
            image: "m/calls-recorder:v1.0.0".parse().unwrap(),
            image_id: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            ran_at: ran_at.map(at),
        }
    }

    fn job(attempts: Vec<(u32, Described)>, now: i64) -> Job {
        rebuild(&JobId::from_random([1; JobId::LEN]), attempts, at(now)).unwrap()
    }

    #[test]
    fn what_ran_goes_on_under_its_old_deadline() {
        let job = job(vec![(1, described(Some(5000)))], 30_000);
        let (since, deadline) = (at(5000), at(65_000));
        assert_eq!(job.state, State::Running { since, deadline });
        assert_eq!(job.submitted_at, at(1000));
        assert_eq!(job.owner, NOBODY);
    }

    #[test]
    fn what_never_ran_has_no_run_to_defend() {
        let job = job(vec![(1, described(None))], 30_000);
        assert_eq!((job.state, job.ever_ran()), (State::Starting, false));
    }

    #[test]
    fn times_that_cannot_be_stop_nothing_early() {
        for (ran_at, now, since) in [
            (90_000, 30_000, 30_000),
            (10, 30_000, 1000),
            (5000, 500, 500),
        ] {
            let job = job(vec![(1, described(Some(ran_at)))], now);
            let deadline = at(since + 60_000);
            assert_eq!(
                job.state,
                State::Running {
                    since: at(since),
                    deadline
                }
            );
        }
    }

    #[test]
    fn of_several_attempts_the_last_is_the_current_one() {
        let job = job(
            vec![(1, described(Some(2000))), (3, described(None))],
            30_000,
        );
        assert_eq!(job.state, State::Starting);
        let ended: Vec<_> = job.attempts.iter().map(|a| (a.number, a.reason)).collect();
        assert_eq!(ended, [(1, Some(EndReason::RuntimeLost)), (3, None)]);
        assert!(rebuild(&job.id, Vec::new(), at(1)).is_none());
    }
}
