//! Containers that do as they are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::*;
use gate::{ContainerName, ImagePermit, LaunchPermit};
use tokio::sync::watch;

use crate::*;

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
