//! A world for tests: containers that do as they are told, a store in memory, policies that
//! answer from a list, and a clock that tokio's paused time drives.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::*;
use gate::{ContainerName, Gate, Grants, ImagePermit, LaunchPermit};
use tokio::sync::watch;

use crate::*;

pub(crate) struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub(crate) fn starting_now() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(self.0.elapsed())
    }
}

/// What a scripted container does once it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    /// Ends by itself after this long.
    pub(crate) runs_for: Option<Duration>,
    pub(crate) exit_code: i32,
    /// Ends this long after SIGTERM; `None` ignores it.
    pub(crate) ends_after_term: Option<Duration>,
    pub(crate) code_after_term: i32,
    pub(crate) media_left: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            runs_for: None,
            exit_code: 0,
            ends_after_term: Some(Duration::from_secs(1)),
            code_after_term: 1,
            media_left: 0,
        }
    }
}

struct Container {
    sighting: Sighting,
    script: Script,
    changes: watch::Sender<u32>,
    env: BTreeMap<String, Secret>,
}

#[derive(Default)]
pub(crate) struct World {
    containers: BTreeMap<ContainerName, Container>,
    /// How each further pull goes; then pulls succeed at once.
    pub(crate) pulls: Vec<Result<Duration, EndReason>>,
    /// How each further launch goes; then launches succeed at once.
    pub(crate) launches: Vec<LaunchPlay>,
    pub(crate) script: Script,
    /// The same of those that send in again what another one left.
    pub(crate) resend_script: Script,
    /// Whether images say that they do so.
    pub(crate) offers_resend: bool,
    /// Whether pulls give another image from now on.
    pub(crate) other_image: bool,
    pub(crate) down: bool,
    /// At which further calls the runner panics, one after the other.
    pub(crate) panics: Vec<&'static str>,
    /// Whether nobody can look into volumes.
    pub(crate) blind: bool,
    described: BTreeMap<ContainerName, Described>,
    /// Every effect that was seen, in order.
    pub(crate) seen: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum LaunchPlay {
    Refused,
    /// Starts, and the answer is lost.
    AnswerLost,
    /// Starts, and somebody removes it at once.
    Gone,
    /// The same, and the answer is lost.
    GoneUnseen,
    /// Starts and panics.
    Panics,
    /// Starts, and the container engine is away from then on; panics too.
    PanicsAndDown,
    /// Takes this long before the ticket is asked.
    Slow(Duration),
}

#[derive(Clone, Default)]
pub(crate) struct ScriptedRunner(pub(crate) Arc<Mutex<World>>);

impl ScriptedRunner {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self) -> Result<MutexGuard<'_, World>, RunnerError> {
        let world = self.world();
        if world.down {
            Err(unreachable())
        } else {
            Ok(world)
        }
    }

    /// Panics if the script says so.
    fn may_panic(&self, at: &'static str) {
        let first = self.world().panics.first().copied();
        if first == Some(at) {
            self.world().panics.remove(0);
            panic!("the script says so, at {at}");
        }
    }

    pub(crate) fn starts(&self) -> usize {
        self.world()
            .seen
            .iter()
            .filter(|s| s.starts_with("start "))
            .count()
    }

    /// A container that nobody asked for now: one whose creation landed late.
    pub(crate) fn appear(&self, name: ContainerName) {
        self.appear_as(name, Sighting::Created);
    }

    /// The same, which does what the script says.
    pub(crate) fn appear_as(&self, name: ContainerName, sighting: Sighting) {
        let (script, changes) = (self.world().script, watch::Sender::new(0));
        let container = Container {
            sighting,
            script,
            changes,
            env: BTreeMap::new(),
        };
        self.world().containers.insert(name, container);
    }

    /// The container of a recording, whose labels tell of it, and which may have run since.
    pub(crate) fn describe_as(&self, name: ContainerName, ran_at: Option<Timestamp>) {
        let image_id = format!("sha256:{}", "a".repeat(64));
        let described = Described {
            kind: JobKind::Recording,
            client: ClientId::new("site").unwrap(),
            submitted_at: Timestamp::from_millis(1_700_000_000_000),
            max_duration: Duration::from_secs(600),
            resends: None,
            image: "mattermost/calls-recorder:v0.8.13".parse().unwrap(),
            image_id: image_id.parse().unwrap(),
            ran_at,
        };
        let running = ran_at.map(|since| Sighting::Running { since });
        self.world().described.insert(name.clone(), described);
        self.appear_as(name, running.unwrap_or(Sighting::Created));
    }

    /// Lets the labels of a container that ran tell of it, and of the job whose volume it works on.
    pub(crate) fn describe_resend(&self, name: &ContainerName, resends: Option<JobId>) {
        let image_id = format!("sha256:{}", "a".repeat(64));
        let submitted_at = Timestamp::from_millis(1_700_000_000_000);
        let described = Described {
            kind: JobKind::Recording,
            client: ClientId::new("site").unwrap(),
            submitted_at,
            max_duration: Duration::from_secs(86_400),
            resends,
            image: "mattermost/calls-recorder:v0.8.13".parse().unwrap(),
            image_id: image_id.parse().unwrap(),
            ran_at: Some(submitted_at),
        };
        self.world().described.insert(name.clone(), described);
    }

    /// The environment of a container, secrets too.
    pub(crate) fn env_of(&self, name: &ContainerName) -> Vec<(String, String)> {
        let shown = |(name, value): (&String, &Secret)| (name.clone(), value.reveal().to_owned());
        let world = self.world();
        world.containers[name].env.iter().map(shown).collect()
    }

    pub(crate) fn containers(&self) -> usize {
        self.world().containers.len()
    }

    /// Ends a container as if by itself.
    pub(crate) fn end(&self, now: Timestamp, exit_code: i32) {
        let mut world = self.world();
        for container in world.containers.values_mut() {
            end(container, now, exit_code);
        }
    }

    pub(crate) fn remove_by_hand(&self) {
        for (_, container) in std::mem::take(&mut self.world().containers) {
            container.changes.send_modify(|n| *n += 1);
        }
    }

    /// Containers as after an engine restart without live-restore.
    pub(crate) fn lose(&self) {
        for container in self.world().containers.values_mut() {
            container.sighting = Sighting::Lost;
            container.changes.send_modify(|n| *n += 1);
        }
    }

    fn end_later(&self, name: &ContainerName, after: Duration, code: i32) {
        let (world, name) = (self.clone(), name.clone());
        let end_at = Timestamp::from_millis(0);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(container) = world.world().containers.get_mut(&name) {
                end(container, end_at, code);
            }
        });
    }
}

fn end(container: &mut Container, now: Timestamp, code: i32) {
    if let Sighting::Running { since } = container.sighting {
        let ended_at = if now < since { since } else { now };
        container.sighting = Sighting::Ended(Exit {
            code,
            out_of_memory: false,
            started_at: since,
            ended_at,
        });
        container.changes.send_modify(|n| *n += 1);
    }
}

fn unreachable() -> RunnerError {
    RunnerError {
        operation: "ping",
        detail: "connection refused".into(),
        unreachable: true,
    }
}

#[async_trait]
impl Runner for ScriptedRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        self.may_panic("prepare");
        let play = {
            let mut world = self.up()?;
            world.seen.push(format!("pull {}", image.image()));
            if world.pulls.is_empty() {
                Ok(Duration::ZERO)
            } else {
                world.pulls.remove(0)
            }
        };
        match play {
            Ok(takes) => {
                tokio::time::sleep(takes).await;
                let digit = if self.world().other_image { "b" } else { "a" };
                Ok(format!("sha256:{}", digit.repeat(64)).parse().unwrap())
            }
            Err(reason) => Err(PrepareError::Pull {
                image: image.image().to_string(),
                reason,
                detail: "as the script says".into(),
            }),
        }
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        let play = {
            let mut world = self.up()?;
            if world.launches.is_empty() {
                None
            } else {
                Some(world.launches.remove(0))
            }
        };
        match play {
            Some(LaunchPlay::Refused) => return Err(LaunchError::Refused("no room".into())),
            Some(LaunchPlay::Slow(takes)) => tokio::time::sleep(takes).await,
            _ => {}
        }
        if let Some(Container {
            sighting: Sighting::Running { since },
            ..
        }) = self.world().containers.get(permit.name())
        {
            return Ok(Launched { at: *since });
        }
        if ticket.ask(&permit.name().to_string()) == Leave::Refused {
            return Err(LaunchError::Withdrawn);
        }
        let at = Timestamp::from_millis(1_700_000_000_000);
        let script = {
            let mut world = self.up()?;
            world.seen.push(format!("start {}", permit.name()));
            let script = match permit.resends() {
                Some(_) => world.resend_script,
                None => world.script,
            };
            let env = permit.env().map(|(n, v)| (n.to_owned(), v.clone()));
            let container = Container {
                sighting: Sighting::Running { since: at },
                script,
                changes: watch::Sender::new(0),
                env: env.collect(),
            };
            world.containers.insert(permit.name().clone(), container);
            script
        };
        if let Some(after) = script.runs_for {
            self.end_later(permit.name(), after, script.exit_code);
        }
        match play {
            Some(LaunchPlay::Gone) => {
                self.remove_by_hand();
                Err(LaunchError::Gone)
            }
            Some(LaunchPlay::GoneUnseen) => {
                self.remove_by_hand();
                Err(LaunchError::Engine(unreachable()))
            }
            Some(LaunchPlay::AnswerLost) => Err(LaunchError::Engine(unreachable())),
            Some(LaunchPlay::Panics) => panic!("the script says so, after the start"),
            Some(LaunchPlay::PanicsAndDown) => {
                self.world().down = true;
                panic!("the script says so, after the start")
            }
            _ => Ok(Launched { at }),
        }
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        Ok(self
            .up()?
            .containers
            .get(name)
            .map_or(Sighting::Absent, |c| c.sighting))
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.may_panic("changed");
        let watch = self
            .up()?
            .containers
            .get(name)
            .map(|c| c.changes.subscribe());
        if let Some(mut watch) = watch {
            drop(watch.changed().await);
        }
        Ok(())
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let script = {
            let mut world = self.up()?;
            world.seen.push(format!("terminate {name}"));
            world.containers.get(name).map(|c| c.script)
        };
        if let Some(Script {
            ends_after_term: Some(after),
            code_after_term,
            ..
        }) = script
        {
            self.end_later(name, after, code_after_term);
        }
        Ok(())
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let mut world = self.up()?;
        world.seen.push(format!("kill {name}"));
        if let Some(container) = world.containers.get_mut(name) {
            end(container, Timestamp::from_millis(0), 137);
        }
        Ok(())
    }

    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        let left = |c: &Container| Leftovers {
            media_bytes: c.script.media_left,
            total_bytes: c.script.media_left + 10,
        };
        let mut world = self.up()?;
        world.seen.push(format!("look at {name}"));
        if world.blind {
            return Err(RunnerError {
                operation: "look at the volume",
                detail: "input/output error".into(),
                unreachable: false,
            });
        }
        Ok(world.containers.get(name).map(left))
    }

    async fn remains(&self, name: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        let world = self.up()?;
        Ok(world.containers.get(name).map(|container| {
            let mut env = container.env.clone();
            env.insert("PATH".to_owned(), Secret::new("/usr/bin"));
            Remains {
                env,
                offers_resend: world.offers_resend,
            }
        }))
    }

    async fn files(&self, name: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        let there = self.up()?.containers.contains_key(name);
        let files = async { Ok("what it left".into()) };
        Ok(there.then(|| Box::pin(futures_util::stream::once(files)) as FileStream))
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.may_panic("remove");
        let mut world = self.up()?;
        world.seen.push(format!("remove {name}"));
        world.containers.remove(name);
        Ok(())
    }

    async fn logs(
        &self,
        name: &ContainerName,
        _: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        let there = self.up()?.containers.contains_key(name);
        Ok(there.then(|| Box::pin(futures_util::stream::empty()) as LogStream))
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        Ok(self.up()?.containers.keys().cloned().collect())
    }

    async fn describe(&self, name: &ContainerName) -> Result<Option<Described>, RunnerError> {
        Ok(self.up()?.described.get(name).cloned())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        Ok(None)
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        self.up().map(drop)
    }
}

/// A store in memory with the rules of the real one, and faults on demand.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Default)]
pub(crate) struct Memory {
    jobs: Vec<Job>,
    decisions: HashMap<JobId, Vec<Decision>>,
    keys: Vec<(JobKey, KeyedJob)>,
    /// This many further commits fail.
    pub(crate) failing_commits: u32,
    /// After this many commits that succeed.
    pub(crate) good_commits_first: u32,
    /// Whether reading fails.
    pub(crate) unreadable: bool,
    /// Whether reading panics.
    pub(crate) panics: bool,
    /// The job that cannot be read.
    pub(crate) unreadable_job: Option<JobId>,
    /// What the store says is in the way of saving.
    pub(crate) trouble: Option<String>,
    /// How long accepting a job takes.
    pub(crate) accept_takes: Duration,
}

impl MemoryStore {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    fn save_new(&self, new: NewJob) -> Result<Accepted, StoreError> {
        let mut memory = self.memory();
        for key in &new.keys {
            if let Some(known) = memory.keyed(key, new.job.submitted_at) {
                return Ok(Accepted::Known(known));
            }
        }
        let active: Vec<Job> = memory
            .jobs
            .iter()
            .filter(|j| j.state.lifecycle().holds_slot())
            .cloned()
            .collect();
        if !new.slots.admit(&new.job, &active) {
            return Ok(Accepted::Full);
        }
        let keyed = KeyedJob {
            id: new.job.id.clone(),
            body_sha256: new.body_sha256.clone(),
        };
        memory
            .keys
            .extend(new.keys.into_iter().map(|key| (key, keyed.clone())));
        memory.decisions.insert(new.job.id.clone(), new.decisions);
        memory.jobs.push(Job::clone(&new.job));
        Ok(Accepted::New)
    }
}

impl Memory {
    fn keyed(&self, key: &JobKey, now: Timestamp) -> Option<KeyedJob> {
        let (_, keyed) = self.keys.iter().rev().find(|(k, _)| k == key)?;
        let holds = match self.jobs.iter().find(|j| j.id == keyed.id) {
            Some(job) => match job.state.end() {
                None => true,
                Some(end) => job.ever_ran() && end.at.plus(Duration::from_secs(86_400)) > now,
            },
            None => true,
        };
        holds.then(|| keyed.clone())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn accept(&self, new: NewJob) -> Result<Accepted, StoreError> {
        // As the real one does, it saves also when nobody waits for it any more.
        let (store, takes) = (self.clone(), self.memory().accept_takes);
        let saving = tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            store.save_new(new)
        });
        saving.await.expect("it does not panic")
    }

    async fn commit(&self, job: Arc<Job>, decisions: Vec<Decision>) -> Result<(), StoreError> {
        let mut memory = self.memory();
        if memory.good_commits_first > 0 {
            memory.good_commits_first -= 1;
        } else if memory.failing_commits > 0 {
            memory.failing_commits -= 1;
            return Err(StoreError {
                operation: "commit",
                detail: "disk full".into(),
            });
        }
        memory
            .decisions
            .entry(job.id.clone())
            .or_default()
            .extend(decisions);
        let saved = memory
            .jobs
            .iter_mut()
            .find(|j| j.id == job.id)
            .expect("an accepted job");
        *saved = Job::clone(&job);
        Ok(())
    }

    async fn forget(&self, id: &JobId, _: Timestamp) -> Result<(), StoreError> {
        let mut memory = self.memory();
        memory.jobs.retain(|j| j.id != *id);
        memory.decisions.remove(id);
        Ok(())
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        let memory = self.memory();
        assert!(!memory.panics, "as the test wants it");
        if memory.unreadable || memory.unreadable_job.as_ref() == Some(id) {
            return Err(StoreError {
                operation: "job",
                detail: "input/output error".into(),
            });
        }
        Ok(memory.jobs.iter().find(|j| j.id == *id).cloned())
    }

    async fn decisions(&self, id: &JobId) -> Result<Vec<Decision>, StoreError> {
        Ok(self.memory().decisions.get(id).cloned().unwrap_or_default())
    }

    async fn by_key(&self, key: &JobKey, now: Timestamp) -> Result<Option<KeyedJob>, StoreError> {
        Ok(self.memory().keyed(key, now))
    }

    async fn page(&self, query: &JobQuery) -> Result<Vec<(Job, Vec<Decision>)>, StoreError> {
        let memory = self.memory();
        let owned = |j: &&Job| query.owner.is_none_or(|owner| j.owner == owner);
        let with_decisions = |j: &Job| {
            let decisions = memory.decisions.get(&j.id).cloned();
            (j.clone(), decisions.unwrap_or_default())
        };
        let jobs = memory.jobs.iter().rev().filter(owned);
        Ok(jobs.map(with_decisions).collect())
    }

    async fn unfinished(&self, after: Option<&JobId>) -> Result<Vec<Job>, StoreError> {
        let unfinished = |j: &&Job| !matches!(j.state, State::Removed { .. });
        let memory = self.memory();
        let place = |id: &JobId| memory.jobs.iter().position(|j| j.id == *id);
        let last = after.map(|id| place(id).expect("a job that was found"));
        let next = memory.jobs.iter().skip(last.map_or(0, |last| last + 1));
        Ok(next.filter(unfinished).take(1).cloned().collect())
    }

    async fn prune(&self, _: Timestamp, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn trouble(&self) -> Option<String> {
        self.memory().trouble.clone()
    }
}

/// Policies that say the same every time.
#[derive(Clone)]
pub(crate) struct FixedPolicies {
    pub(crate) image: Choice,
    pub(crate) retry: RetryVerdict,
    pub(crate) retention: RetentionVerdict,
    /// How long that takes to be said; `None` panics.
    pub(crate) retention_takes: Option<Duration>,
    /// The images that were chosen so far, each time one was asked for.
    pub(crate) asked_about: Arc<Mutex<Vec<String>>>,
}

impl Default for FixedPolicies {
    fn default() -> Self {
        Self {
            image: Choice::AsAsked,
            retry: RetryVerdict::Pass,
            retention: RetentionVerdict::Pass,
            retention_takes: Some(Duration::ZERO),
            asked_about: Arc::default(),
        }
    }
}

fn ruling<V>(verdict: V) -> Ruling<V> {
    Ruling {
        verdict,
        by: Some("fixed".into()),
        decisions: Vec::new(),
    }
}

#[async_trait]
impl Policies for FixedPolicies {
    async fn select_image(&self, facts: &JobFacts, _: Purpose) -> Ruling<Choice> {
        let mut asked = self
            .asked_about
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked.push(facts.image_chosen.clone());
        ruling(self.image.clone())
    }
    async fn select_site_url(&self, _: &JobFacts) -> Ruling<Choice> {
        ruling(Choice::AsAsked)
    }
    async fn retry(&self, _: &JobFacts) -> Ruling<RetryVerdict> {
        ruling(self.retry)
    }
    async fn retention(&self, _: &JobFacts) -> Ruling<RetentionVerdict> {
        let takes = self.retention_takes.expect("the policies panic");
        if takes > Duration::ZERO {
            tokio::time::sleep(takes).await;
        }
        ruling(self.retention)
    }
}

/// One engine over a scripted world, which outlives it.
#[derive(Clone, Default)]
pub(crate) struct Stage {
    pub(crate) runner: ScriptedRunner,
    pub(crate) store: MemoryStore,
    pub(crate) policies: FixedPolicies,
    pub(crate) strays: StrayRules,
    clock: Option<Arc<TokioClock>>,
}

impl Stage {
    pub(crate) fn clock(&mut self) -> Arc<TokioClock> {
        Arc::clone(
            self.clock
                .get_or_insert_with(|| Arc::new(TokioClock::starting_now())),
        )
    }

    pub(crate) async fn engine(&mut self) -> Engine {
        let config = EngineConfig {
            instance: "test".parse().unwrap(),
            slots: Slots::of(2),
            min_free_bytes: 0,
            start_timeout: Duration::from_secs(100),
            failed_retention: Some(Duration::from_secs(3600)),
            history_retention: Duration::from_secs(86_400),
            strays: self.strays,
        };
        let gate = Gate::new(Grants::standard("mattermost"), config.instance.clone()).unwrap();
        let ports = Ports {
            runner: Arc::new(self.runner.clone()),
            store: Arc::new(self.store.clone()),
            policies: Arc::new(self.policies.clone()),
            clock: self.clock(),
        };
        Engine::start(config, gate, ports).await.unwrap()
    }
}

/// A recording whose work id is 26 times `letter`.
pub(crate) fn recording(letter: char) -> Submission {
    let text = |s: &str| InputValue::Text(s.into());
    let id = letter.to_string().repeat(26);
    Submission {
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        runner: "mattermost/calls-recorder:v0.8.13".into(),
        max_duration: Duration::from_secs(600),
        inputs: BTreeMap::from([
            ("site_url".into(), text("https://mattermost.example.com")),
            ("call_id".into(), text(&"c".repeat(26))),
            ("post_id".into(), text(&"p".repeat(26))),
            ("recording_id".into(), text(&id)),
            ("auth_token".into(), text(&"t".repeat(26))),
        ]),
        idempotency_key: None,
        body_sha256: format!("body-{letter}"),
    }
}

/// A transcription whose work id is 26 times `letter`.
pub(crate) fn transcription(letter: char) -> Submission {
    let id = InputValue::Text(letter.to_string().repeat(26));
    let mut submission = recording(letter);
    submission.kind = JobKind::Transcribing;
    submission.runner = "mattermost/calls-transcriber:v0.7.2".into();
    submission.inputs.remove("recording_id");
    submission.inputs.insert("transcription_id".into(), id);
    submission
}
