//! Looks now and then whether the container engine holds something of this installation that
//! no job is left to look after: a stray. What has been one for a while is removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Delivery, Job, State, Timestamp};
use gate::ContainerName;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::engine::Shared;
use crate::orphan::{self, Orphan};
use crate::{RunnerError, Sighting, measure};

/// The pause between two looks.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// For how long after the start it is looked more often: the container engine may still carry out
/// what a service asked of it that is gone.
const FRESH: Duration = Duration::from_secs(2 * 60);

/// The pause between two looks then.
const WHILE_FRESH: Duration = Duration::from_secs(15);

/// The pause while the container engine does not answer, and while something is to end.
const AGAIN: Duration = Duration::from_secs(5);

/// Why a stray is ended that runs.
const RUNS: &str = "it runs, and its client was told that it does not";

/// What is done about strays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrayRules {
    /// How long something has to have been a stray before it is removed.
    pub grace: Duration,
    /// Whether it is only told what would be removed.
    pub dry_run: bool,
}

impl Default for StrayRules {
    /// A minute, and then it goes.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60),
            dry_run: false,
        }
    }
}

/// Removes what a late answer of the engine left of jobs of which nothing should be left, and
/// takes up jobs that the store does not know.
pub(crate) struct Sweeper {
    shared: Arc<Shared>,
    strays: BTreeMap<ContainerName, Stray>,
    began: Timestamp,
    /// When the last look began.
    now: Timestamp,
}

/// What is known of a stray from earlier looks.
#[derive(Debug, Clone, Copy)]
struct Stray {
    since: Timestamp,
    /// When it was asked to end.
    stopping: Option<Timestamp>,
    /// Whether it was said what is not done about it.
    told: bool,
    /// Whether it was seen to hold somebody's work, which does not change any more.
    unsent: bool,
}

/// What is to be done about a stray now.
enum Todo {
    Remove(&'static str),
    Stop,
    /// It may hold the only copy of somebody's work.
    Leave(Delivery),
}

impl Sweeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (strays, now) = (BTreeMap::new(), shared.now());
        Self {
            shared,
            strays,
            began: now,
            now,
        }
    }

    /// Looks again and again until the service ends. The first look is at the start: what the store
    /// lost is to be looked after from then on; `looked` hears when that is over.
    pub(crate) async fn run(mut self, looked: oneshot::Sender<()>) {
        let ending = self.shared.ending.clone();
        let mut looked = Some(looked);
        let sweeping = async {
            loop {
                let pause = self.sweep().await;
                // Whoever waited may have stopped waiting.
                let _ = looked.take().map(|looked| looked.send(()));
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = sweeping => {}
            () = ending.cancelled() => {}
        }
    }

    /// Looks once; tells after which pause to look again.
    async fn sweep(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        self.now = shared.now();
        // Errors are no news here: the watch over the engine tells of them.
        let Ok(mut names) = shared.ports.runner.list().await else {
            return AGAIN;
        };
        names.sort_unstable();
        let mut before = std::mem::take(&mut self.strays);
        let mut unknown = Vec::new();
        for containers in names.chunk_by(|a, b| a.job() == b.job()) {
            let id = containers[0].job();
            if shared.live.knows(id) {
                continue;
            }
            let job = shared.ports.store.job(id).await;
            if let Ok(Some(job)) = &job
                && !matches!(job.state, State::Removed { .. })
            {
                continue;
            }
            for name in containers {
                let known = before.remove(name);
                let stray = known.unwrap_or_else(|| Stray::seen(self.now));
                self.strays.insert(name.clone(), stray);
            }
            match job {
                Ok(Some(job)) => {
                    for name in containers {
                        self.clear(name, &job).await;
                    }
                }
                Ok(None) => unknown.push((containers, orphan::look(&shared, containers).await)),
                Err(_) => {}
            }
        }
        // First those that send in again what another one left: that one has to wait for them.
        unknown.sort_by_key(|(_, seen)| match seen {
            Ok(Orphan::Job(job)) => job.resends.is_none(),
            _ => true,
        });
        for (containers, seen) in unknown {
            self.take_up(containers, seen).await;
        }
        measure::strays(self.strays.len());
        self.pause()
    }

    /// Until the next look: sooner when a grace is over before.
    fn pause(&self) -> Duration {
        let due = self.strays.values().filter_map(|stray| {
            let over = stray.since.plus(self.shared.config.strays.grace);
            match stray.stopping {
                Some(_) => Some(AGAIN),
                None => (over > self.now).then(|| over.after(self.now)),
            }
        });
        let every = if self.now < self.began.plus(FRESH) {
            WHILE_FRESH
        } else {
            EVERY
        };
        due.min().map_or(every, |due| due.min(every))
    }

    /// Whether something has been a stray for as long as it has to be.
    fn is_due(&self, name: &ContainerName) -> bool {
        let since = self.strays.get(name).map(|stray| stray.since);
        since.is_some_and(|since| since.plus(self.shared.config.strays.grace) <= self.now)
    }

    /// Removes a container and its volume of a job of which nothing should be left, when it is
    /// time and nothing is lost by it.
    async fn clear(&mut self, name: &ContainerName, job: &Job) {
        let (shared, due) = (Arc::clone(&self.shared), self.is_due(name));
        let Some(stray) = self.strays.get_mut(name).filter(|s| due && !s.unsent) else {
            return;
        };
        let stray_seconds = self.now.after(stray.since).as_secs();
        let first_time = !stray.told;
        match todo(&shared, name, job).await {
            Err(error) => {
                measure::engine_error(&error);
                warn!(container = %name, %error, "could not look at a stray; it stays");
            }
            Ok(Todo::Leave(delivery)) => {
                stray.told = true;
                stray.unsent = matches!(delivery, Delivery::Unsent { .. });
                if first_time {
                    warn!(
                        container = %name, ?delivery, stray_seconds,
                        "its job's record says that it never ran, but it did, and its volume may \
                         hold the only copy of somebody's work; left alone"
                    );
                }
            }
            Ok(Todo::Stop | Todo::Remove(_)) if shared.config.strays.dry_run && !first_time => {}
            Ok(Todo::Stop) if shared.config.strays.dry_run => {
                stray.told = true;
                info!(container = %name, why = RUNS, stray_seconds, "would end a stray");
            }
            Ok(Todo::Remove(why)) if shared.config.strays.dry_run => {
                stray.told = true;
                info!(container = %name, why, stray_seconds, "would remove a stray");
            }
            Ok(Todo::Stop) => {
                let since = *stray.stopping.get_or_insert(self.now);
                let over = since.plus(shared.gate.stop_grace(job.kind)) <= self.now;
                if since < self.now && !over {
                    return;
                }
                info!(container = %name, why = RUNS, stray_seconds, kill = over, "ending a stray");
                let runner = &shared.ports.runner;
                let signalled = match over {
                    true => runner.kill(name).await,
                    false => runner.terminate(name).await,
                };
                if let Err(error) = signalled {
                    // Not asked, so that its grace has not begun.
                    stray.stopping = stray.stopping.filter(|_| over);
                    measure::engine_error(&error);
                    warn!(container = %name, %error, "could not end a stray");
                }
            }
            Ok(Todo::Remove(why)) => match shared.ports.runner.remove(name).await {
                Ok(()) => {
                    measure::stray_removed();
                    self.strays.remove(name);
                    info!(container = %name, why, stray_seconds, "removed a stray");
                }
                Err(error) => {
                    measure::engine_error(&error);
                    warn!(container = %name, %error, "could not remove a stray");
                }
            },
        }
    }

    /// Takes up the job of these containers, which the store does not know. One that never ran is
    /// taken up only to be removed, so that it has its grace first.
    async fn take_up(&mut self, containers: &[ContainerName], seen: Result<Orphan, RunnerError>) {
        let rules = self.shared.config.strays;
        let due = containers.iter().all(|name| self.is_due(name));
        match seen {
            Ok(Orphan::Job(job)) if job.ever_ran() || (due && !rules.dry_run) => {
                if orphan::take_up(&self.shared, *job).await {
                    self.strays.retain(|name, _| !containers.contains(name));
                }
            }
            Ok(Orphan::Job(_)) if due => {
                let strays = self.strays.iter_mut().filter(|(_, stray)| !stray.told);
                for (name, stray) in strays.filter(|(name, _)| containers.contains(name)) {
                    stray.told = true;
                    let why = "the store does not know its job, and it never ran";
                    info!(container = %name, why, "would remove a stray");
                }
            }
            Ok(Orphan::Untold(name)) if due => {
                let stray = self.strays.get_mut(&name).filter(|stray| !stray.told);
                if let Some(stray) = stray {
                    stray.told = true;
                    warn!(
                        container = %name,
                        "the container or volume of an unknown job, which does not tell enough of \
                         it; left alone"
                    );
                }
            }
            // What failed is tried again at the next look.
            Ok(_) | Err(_) => {}
        }
    }
}

impl Stray {
    fn seen(since: Timestamp) -> Self {
        Self {
            since,
            stopping: None,
            told: false,
            unsent: false,
        }
    }
}

/// What is to be done about a container or volume of a job that is removed.
async fn todo(shared: &Shared, name: &ContainerName, job: &Job) -> Result<Todo, RunnerError> {
    let ran = |attempt: &&domain::Attempt| {
        attempt.number == name.attempt() && attempt.running_at.is_some()
    };
    if job.attempts.iter().any(|attempt| ran(&attempt)) {
        // What becomes of its data was decided when it ended.
        return Ok(Todo::Remove("its job ran, and is over and cleared"));
    }
    if job.resends.is_some() {
        let why = "its job is over, and what it was to send in is another one's";
        return Ok(Todo::Remove(why));
    }
    let exit_code = match shared.ports.runner.inspect(name).await? {
        Sighting::Absent | Sighting::Created => {
            return Ok(Todo::Remove("its job is over, and it never ran"));
        }
        Sighting::Running { .. } => return Ok(Todo::Stop),
        Sighting::Ended(exit) => Some(exit.code),
        Sighting::Lost => None,
    };
    // The record lies, or is older than the container. Nobody has decided about its data.
    let rule = shared.gate.delivered_when(job.kind);
    let leftovers = shared.ports.runner.leftovers(name).await;
    if let Err(error) = &leftovers {
        measure::engine_error(error);
        warn!(container = %name, %error, "cannot look at what a stray left");
    }
    let delivery = rule.judge(exit_code, leftovers.ok().flatten());
    Ok(if delivery.may_be_unsent() {
        Todo::Leave(delivery)
    } else {
        Todo::Remove("its job is over, and all of its work was delivered")
    })
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
