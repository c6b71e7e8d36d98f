//! The engine's handle: starting, looking, deleting, ending.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::{ClientId, Delivery, Duty, InstanceId, Job, JobId, JobKind, Purpose, State};
use futures_util::future::try_join_all;
use gate::{Gate, Origin};
use tokio::sync::{Mutex, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::job_loop::JobLoop;
use crate::live::{Command, Live, LiveJobs};
use crate::measure::Removals;
use crate::removed::RemovedJobs;
use crate::rules::duty;
use crate::sleep::wake_by_the_clock;
use crate::submit::too_little_room;
use crate::sweep::{StrayRules, Sweeper};
use crate::{
    Clock, DeleteError, FaultPoint, JobQuery, JobView, LogStream, LogsUntil, Policies,
    PrefetchError, Runner, RunnerError, Slots, StopError, Store, StoreError, SubmitError, facts,
    measure,
};

/// How long a deleted job's key is remembered after the job ended, as the job API promises.
pub(crate) const KEY_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a client waits for a deletion that the container engine holds up. It goes on.
const DELETE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a start waits for a container engine that is slow to say what it holds.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// What the engine is told by the configuration.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Names this installation in the container engine.
    pub instance: InstanceId,
    /// How many jobs may be active.
    pub slots: Slots,
    /// A job is refused when the container engine has fewer bytes of disk free; 0 asks for none.
    pub min_free_bytes: u64,
    /// How long a submission may take until its container runs.
    pub start_timeout: Duration,
    /// How long the data of a failed job is kept; `None` keeps it until the job is deleted.
    pub failed_retention: Option<Duration>,
    /// How long the record of a job is kept after nothing else is left of it.
    pub history_retention: Duration,
    /// What is done about containers and volumes that no job looks after.
    pub strays: StrayRules,
}

/// The adapters.
#[derive(Clone)]
pub struct Ports {
    /// Runs containers.
    pub runner: Arc<dyn Runner>,
    /// Keeps jobs.
    pub store: Arc<dyn Store>,
    /// Site policy.
    pub policies: Arc<dyn Policies>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Whether new jobs can be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What stands in the way, for people; empty when nothing does.
    pub reasons: Vec<String>,
    /// What somebody should look at, for people, though it is in nobody's way.
    pub warnings: Vec<String>,
}

/// The engine. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) gate: Gate,
    pub(crate) ports: Ports,
    pub(crate) live: LiveJobs,
    /// Held while a job is woken: what was read of one that sleeps is true until it has a task.
    pub(crate) waking: Mutex<()>,
    pub(crate) removed: RemovedJobs,
    /// When unsent work will be removed.
    pub(crate) removals: Arc<Removals>,
    pub(crate) tasks: TaskTracker,
    pub(crate) ending: CancellationToken,
    runner_trouble: RwLock<Option<String>>,
    /// How many bytes the container engine has free, when they are too few for a job.
    no_room: RwLock<Option<u64>>,
}

impl Engine {
    /// Takes up every job that still has a duty, then serves.
    ///
    /// The container engine need not answer: jobs stay as they are until it does.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(config: EngineConfig, gate: Gate, ports: Ports) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            config,
            gate,
            ports,
            live: LiveJobs::default(),
            waking: Mutex::default(),
            removed: RemovedJobs::default(),
            removals: Arc::default(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            runner_trouble: RwLock::new(None),
            no_room: RwLock::new(None),
        });
        measure::describe(&shared.config.slots);
        let loops = find_jobs(&shared).await?;
        // Only now, so that none removes what another one uses, which is known by then.
        for job_loop in loops {
            job_loop.spawn();
        }
        FaultPoint::Recovery.reach();
        shared.tasks.spawn(watch_runner(Arc::clone(&shared)));
        shared.tasks.spawn(prune_history(Arc::clone(&shared)));
        shared.tasks.spawn(wake_by_the_clock(Arc::clone(&shared)));
        let (looked, first_look) = oneshot::channel();
        shared
            .tasks
            .spawn(Sweeper::new(Arc::clone(&shared)).run(looked));
        // So that a job that the store lost is known again before anybody asks for it.
        let _ = tokio::time::timeout(FIRST_LOOK, first_look).await;
        Ok(Self { shared })
    }

    /// The gate, for those who check the form of a request before they ask anything else.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// A job.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn job(&self, id: &JobId) -> Result<Option<Arc<JobView>>, StoreError> {
        self.shared.view(id).await
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(&self, query: &JobQuery) -> Result<Vec<Arc<JobView>>, StoreError> {
        let page = self.shared.ports.store.page(query).await?;
        let view = |(job, decisions)| {
            Arc::new(JobView {
                job: Arc::new(job),
                decisions,
            })
        };
        Ok(page.into_iter().map(view).collect())
    }

    /// What a job's container wrote, of its last attempt, and writes until then; `None` when there
    /// is no such container.
    ///
    /// # Errors
    /// When the container engine fails.
    pub async fn logs(
        &self,
        job: &Job,
        until: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        if job.running_at().is_none() || matches!(job.state, State::Removed { .. }) {
            return Ok(None);
        }
        let name = self
            .shared
            .gate
            .container_name(&job.id, job.attempt().number);
        self.shared.ports.runner.logs(&name, until).await
    }

    /// Makes images present that a client will ask for.
    ///
    /// # Errors
    /// The first image that is refused or cannot be had.
    pub async fn prefetch(
        &self,
        client: &ClientId,
        runners: &[String],
    ) -> Result<(), PrefetchError> {
        try_join_all(runners.iter().map(|asked| self.prefetch_one(client, asked))).await?;
        Ok(())
    }

    async fn prefetch_one(&self, client: &ClientId, asked: &str) -> Result<(), PrefetchError> {
        let shared = &self.shared;
        let runner = shared.gate.runner(asked)?;
        let (kind, asked) = (runner.kind.unwrap_or(JobKind::Recording), &runner.text);
        let facts = facts::of_prefetch(client.as_str(), kind, asked, shared.now());
        let ruling = shared
            .ports
            .policies
            .select_image(&facts, Purpose::Prefetch)
            .await;
        let (image, origin) =
            shared
                .settle_choice(ruling, asked)
                .map_err(|denied| PrefetchError::Denied {
                    policy: denied.policy,
                    denial: denied.denial,
                })?;
        let permit = shared.gate.image(kind, &image, &origin)?;
        info!(asked, %image, "making image present");
        match shared.ports.runner.prepare(&permit).await {
            Ok(_) => Ok(()),
            Err(error) => Err(PrefetchError::Unavailable(error.to_string())),
        }
    }

    /// Stops a running job for an administrator; returns when the request is saved.
    ///
    /// # Errors
    /// See [`StopError`].
    pub async fn stop(&self, id: &JobId) -> Result<(), StopError> {
        let Some(live) = self.shared.live.get(id) else {
            return match self.shared.ports.store.job(id).await? {
                Some(_) => Err(StopError::NotRunning),
                None => Err(StopError::Unknown),
            };
        };
        let (reply, told) = oneshot::channel();
        if live.commands.send(Command::Stop(reply)).await.is_err() {
            return Err(StopError::NotRunning);
        }
        told.await.unwrap_or(Err(StopError::NotRunning))
    }

    /// Deletes a job that does not run: containers, volumes and record.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn delete(&self, id: &JobId) -> Result<(), DeleteError> {
        if let Some(live) = self.shared.wake(id).await? {
            if live.view.borrow().job.state.lifecycle().holds_slot() {
                return Err(DeleteError::Running);
            }
            let (reply, told) = oneshot::channel();
            let asking = async {
                live.commands.send(Command::Delete(reply)).await.ok()?;
                told.await.ok()
            };
            match tokio::time::timeout(DELETE_PATIENCE, asking).await {
                Ok(Some(result)) => return result,
                Ok(None) => {} // Its task ended meanwhile; the store knows how far it came.
                Err(_) => {
                    let why = self.shared.runner_trouble();
                    return Err(DeleteError::Engine(
                        why.unwrap_or_else(|| "it takes long".into()),
                    ));
                }
            }
        }
        match self.shared.ports.store.job(id).await? {
            None => Err(DeleteError::Unknown),
            Some(job) if job.state.lifecycle().holds_slot() => Err(DeleteError::Running),
            Some(job) if matches!(job.state, State::Removed { .. }) => {
                // Goes on when the client hangs up: whoever forgets a record sees to it that it is
                // not shown any more.
                let shared = Arc::clone(&self.shared);
                let forgetting = self
                    .shared
                    .tasks
                    .spawn(async move { shared.forget(&job).await });
                match forgetting.await {
                    Ok(forgotten) => Ok(forgotten?),
                    Err(_) => Err(DeleteError::Engine("the service is ending".into())),
                }
            }
            // Its containers and volumes are still there, and so must be its record.
            Some(_) => Err(DeleteError::Engine("the service is ending".into())),
        }
    }

    /// Deletes a job for an administrator, whatever it does: what runs is killed first. Tells what
    /// became of the work that is gone now.
    ///
    /// # Errors
    /// See [`DeleteError`]. A kill that takes too long to be waited for goes on.
    pub async fn delete_by_force(&self, id: &JobId) -> Result<Delivery, DeleteError> {
        if let Some(live) = self.shared.live.get(id) {
            let over = tokio::time::timeout(DELETE_PATIENCE, kill(&live)).await;
            if over.is_err() {
                let why = self.shared.runner_trouble();
                return Err(DeleteError::Engine(
                    why.unwrap_or_else(|| "killing it takes long".into()),
                ));
            }
        }
        let view = self.job(id).await?.ok_or(DeleteError::Unknown)?;
        let end = view.job.state.end().ok_or(DeleteError::Running)?;
        self.delete(id).await?;
        Ok(end.delivery)
    }

    /// Whether new jobs can be started.
    #[must_use]
    pub fn health(&self) -> Health {
        let runner = self.shared.runner_trouble();
        let store = self.shared.ports.store.trouble();
        let store = store.map(|why| format!("store: {why}"));
        let no_room = *self
            .shared
            .no_room
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let no_room = no_room.map(|free_bytes| {
            let needed_bytes = self.shared.config.min_free_bytes;
            SubmitError::NoRoom {
                free_bytes,
                needed_bytes,
            }
            .to_string()
        });
        let warnings = self.shared.ports.store.warnings().into_iter();
        Health {
            reasons: runner.into_iter().chain(store).chain(no_room).collect(),
            warnings: warnings
                .map(|warning| format!("store: {warning}"))
                .collect(),
        }
    }

    /// Stops accepting, gives up starts that are not under way, leaves containers running, and
    /// returns when all is saved.
    pub async fn shutdown(&self) {
        self.shared.ending.cancel();
        for live in self.shared.live.all() {
            live.answer.desert();
        }
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// Kills a job's container, if there is any, and waits until the job holds no slot any more.
async fn kill(live: &Live) {
    let mut view = live.view.clone();
    let is_over = |view: &Arc<JobView>| !view.job.state.lifecycle().holds_slot();
    if is_over(&view.borrow()) {
        return;
    }
    let (reply, _) = oneshot::channel();
    // When its task ends meanwhile, the job is over.
    if live.commands.send(Command::Kill(reply)).await.is_ok() {
        let _ = view.wait_for(is_over).await;
    }
}

/// A policy's denial with its name.
pub(crate) struct Denied {
    pub(crate) policy: String,
    pub(crate) denial: domain::Denial,
}

impl Shared {
    pub(crate) fn now(&self) -> domain::Timestamp {
        self.ports.clock.now()
    }

    pub(crate) async fn view(&self, id: &JobId) -> Result<Option<Arc<JobView>>, StoreError> {
        if let Some(view) = self.live.view(id) {
            return Ok(Some(view));
        }
        if let Some(view) = self.removed.get(id) {
            return Ok(Some(view));
        }
        let mark = self.removed.mark();
        let view = self.read(id).await?;
        if let Some(view) = &view {
            self.removed.keep(mark, view);
        }
        Ok(view)
    }

    /// A job as the store has it.
    pub(crate) async fn read(&self, id: &JobId) -> Result<Option<Arc<JobView>>, StoreError> {
        let Some(job) = self.ports.store.job(id).await? else {
            return Ok(None);
        };
        let decisions = self.ports.store.decisions(id).await?;
        Ok(Some(Arc::new(JobView {
            job: Arc::new(job),
            decisions,
        })))
    }

    /// What a chain of policies chose, and who that was.
    pub(crate) fn settle_choice(
        &self,
        ruling: domain::Ruling<domain::Choice>,
        asked: &str,
    ) -> Result<(String, Origin), Denied> {
        let origin = ruling.by.clone().map_or(Origin::Client, Origin::Policy);
        match ruling.verdict {
            domain::Choice::AsAsked => Ok((asked.to_owned(), Origin::Client)),
            domain::Choice::Use(text) => Ok((text, origin)),
            domain::Choice::Deny(denial) => Err(Denied {
                policy: ruling.by.unwrap_or_default(),
                denial,
            }),
        }
    }

    pub(crate) async fn forget(&self, job: &Job) -> Result<(), StoreError> {
        let ended = job.state.end().map_or_else(|| self.now(), |end| end.at);
        let forgotten = self
            .ports
            .store
            .forget(&job.id, ended.plus(KEY_MEMORY))
            .await;
        // Also after an error, of which it is not known what became of it.
        self.removed.clear();
        forgotten
    }

    pub(crate) fn runner_trouble(&self) -> Option<String> {
        self.runner_trouble
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the container engine whether it is there, and remembers the answer for `/healthz`.
    pub(crate) async fn check_runner(&self) -> Result<(), RunnerError> {
        let result = self.ports.runner.ping().await;
        let trouble = result.as_ref().err().map(ToString::to_string);
        if let Err(error) = &result {
            measure::engine_error(error);
        }
        let before = self.runner_trouble();
        match (&before, &trouble) {
            (None, Some(trouble)) => {
                warn!(%trouble, "no new jobs until the container engine answers")
            }
            (Some(_), None) => info!("the container engine answers again"),
            _ => {}
        }
        if before != trouble {
            *self
                .runner_trouble
                .write()
                .unwrap_or_else(PoisonError::into_inner) = trouble;
        }
        result
    }
}

impl Shared {
    /// Looks whether the container engine has room for a job, and remembers it for `/healthz`.
    async fn check_room(&self) {
        let no_room = too_little_room(self).await;
        let mut known = self.no_room.write().unwrap_or_else(PoisonError::into_inner);
        match (*known, no_room) {
            (None, Some(free_bytes)) => warn!(
                free_bytes,
                needed_bytes = self.config.min_free_bytes,
                "no new jobs until the container engine has room for them"
            ),
            (Some(_), None) => info!("the container engine has room for jobs again"),
            _ => {}
        }
        *known = no_room;
    }
}

async fn watch_runner(shared: Arc<Shared>) {
    const UP: Duration = Duration::from_secs(5);
    const DOWN: Duration = Duration::from_secs(1);
    loop {
        let pause = if shared.check_runner().await.is_ok() {
            shared.check_room().await;
            UP
        } else {
            DOWN
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = shared.ending.cancelled() => return,
        }
    }
}

/// Takes up every job that still has a duty; those that are kept sleep.
async fn find_jobs(shared: &Arc<Shared>) -> Result<Vec<JobLoop>, StoreError> {
    let store = &shared.ports.store;
    let (mut loops, mut kept, mut last) = (Vec::new(), 0, None);
    loop {
        let some = store.unfinished(last.as_ref()).await?;
        let Some(job) = some.last() else { break };
        last = Some(job.id.clone());
        for job in some {
            FaultPoint::Recovery.reach();
            if let Duty::Keep { until } = duty(&job) {
                shared.let_sleep(&job, until);
                kept += 1;
                continue;
            }
            info!(job = %job.id, state = job.state.lifecycle().as_str(), "taking up");
            measure::recovery();
            let decisions = store.decisions(&job.id).await?;
            let view = Arc::new(JobView {
                job: Arc::new(job),
                decisions,
            });
            loops.push(JobLoop::recovered(shared, view));
        }
    }
    if kept > 0 {
        info!(jobs = kept, "keeping what jobs left that are over");
    }
    Ok(loops)
}

async fn prune_history(shared: Arc<Shared>) {
    const EVERY: Duration = Duration::from_secs(60 * 60);
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(EVERY) => {}
            () = shared.ending.cancelled() => return,
        }
        let now = shared.now();
        let pruned = shared
            .ports
            .store
            .prune(now.minus(shared.config.history_retention), now)
            .await;
        shared.removed.clear();
        match pruned {
            Ok(0) => {}
            Ok(records) => info!(
                records,
                "removed records of jobs of which nothing has been left for long"
            ),
            Err(error) => warn!(%error, "could not remove old records; trying again in an hour"),
        }
    }
}
