//! A container engine that is slow, loses requests and answers, refuses, goes away and comes
//! back; and over it a runner that keeps what [`Runner`] promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{EndReason, Exit, ImageId, ImageRef, JobKind, Leftovers, Secret};
use gate::{ContainerName, ImagePermit, LaunchPermit};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::mutation::Mutation;
use super::setup::chance;
use super::world::{Behaviour, Container, Event, Sim, Volume, World};
use crate::{
    Described, FileStream, FilesError, LaunchError, Launched, Leave, LogStream, LogsUntil,
    PrepareError, Remains, Runner, RunnerError, Sighting, StartTicket,
};

// As the real runner: what is begun after a ticket's yes has an answer within 20 s.
const QUICK: u64 = 8000;
const CREATE: u64 = 15_000;
const START: u64 = 12_000;
const SETTLING: u64 = 4000;
const CLEANING: u64 = 4000;
const REMOVAL: u64 = 60_000;

/// What changes something.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Create(Box<Creation>),
    Start(u64),
    Terminate(ContainerName),
    Kill(ContainerName),
    RemoveContainer(u64),
    RemoveVolume(ContainerName),
}

#[derive(Debug, Clone)]
pub(crate) struct Creation {
    name: ContainerName,
    plan: String,
    kind: JobKind,
    image: ImageRef,
    image_id: ImageId,
    volume_of: ContainerName,
    env: BTreeMap<String, Secret>,
    refused: bool,
    other_image: bool,
}

#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    Created(Seen),
    Conflict,
    Refused,
}

/// A container as it was seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    uid: u64,
    ours: bool,
    plan: String,
    image_id: ImageId,
    sighting: Sighting,
}

impl World {
    /// Carries a request out.
    pub(crate) fn perform(&mut self, request: &Request) -> Reply {
        match request {
            Request::Create(creation) => self.create(creation),
            Request::Start(uid) => self.start(*uid),
            Request::Terminate(name) => {
                let now = self.now();
                if let Some((uid, behaviour)) = self.signalled(name, false)
                    && let Some(after) = behaviour.heeds
                {
                    self.schedule(now + after, Event::Exit { uid, asked: true });
                }
                Reply::Done
            }
            Request::Kill(name) => {
                if let Some((uid, _)) = self.signalled(name, true) {
                    self.end(uid, Some(137), false);
                }
                Reply::Done
            }
            Request::RemoveContainer(uid) => {
                if let Some(name) = self.container(*uid).map(|(name, _)| name) {
                    self.saw_removal(&name, false);
                    if let Some(container) = self.containers.remove(&name) {
                        self.note(|_| format!("removed {name}"));
                        container.changed.notify_waiters();
                    }
                    // What it left is kept from now on, if it still ran.
                    let now = self.now();
                    if let Some(volume) = self.volumes.get_mut(&name) {
                        volume.ended = Some(volume.ended.unwrap_or(now));
                    }
                }
                Reply::Done
            }
            Request::RemoveVolume(name) => {
                // The engine refuses while a container uses it.
                if !self.is_used(name) {
                    if self.volumes.contains_key(name) {
                        self.saw_removal(name, true);
                        self.volumes.remove(name);
                    }
                    Reply::Done
                } else {
                    Reply::Refused
                }
            }
        }
    }

    /// The running container that a signal reaches.
    fn signalled(&mut self, name: &ContainerName, kill: bool) -> Option<(u64, Behaviour)> {
        let anybodys = self.mutation == Some(Mutation::AdoptAnything);
        let reached = |c: &&Container| (c.ours || anybodys) && c.runs();
        let container = self.containers.get(name).filter(reached)?;
        let reached = (container.uid, container.behaviour);
        self.saw_signal(name, kill);
        Some(reached)
    }

    fn create(&mut self, creation: &Creation) -> Reply {
        let name = &creation.name;
        if self.containers.contains_key(name) {
            return Reply::Conflict;
        }
        if creation.volume_of == *name {
            // The engine makes the volume first.
            self.make_volume(name);
        } else if !self.volumes.contains_key(&creation.volume_of) {
            return Reply::Refused;
        }
        if creation.refused {
            return Reply::Refused;
        }
        let uid = self.new_uid();
        let image_id = if creation.other_image {
            image_id('f')
        } else {
            creation.image_id.clone()
        };
        let container = Container {
            uid,
            ours: true,
            plan: creation.plan.clone(),
            kind: creation.kind,
            image: creation.image.clone(),
            image_id,
            volume_of: creation.volume_of.clone(),
            env: creation.env.clone(),
            sighting: Sighting::Created,
            behaviour: self.draw_behaviour(creation.kind),
            dying: false,
            changed: Arc::new(Notify::new()),
        };
        self.note(|_| format!("created {name} #{uid} {:?}", container.behaviour));
        let seen = see(&container);
        self.containers.insert(name.clone(), container);
        Reply::Created(seen)
    }

    fn make_volume(&mut self, name: &ContainerName) {
        let empty = Volume {
            left: Leftovers {
                media_bytes: 0,
                total_bytes: 0,
            },
            unsent: false,
            ended: None,
        };
        self.volumes.entry(name.clone()).or_insert(empty);
    }

    fn start(&mut self, uid: u64) -> Reply {
        let (now, since) = (self.now(), self.wall());
        // The engine keeps the order of what it is asked about one container.
        self.drop_late_start(uid);
        let Some((name, container)) = self.container(uid) else {
            return Reply::Refused;
        };
        if container.runs() {
            return Reply::Done;
        }
        if container.dying {
            return Reply::Refused;
        }
        container.sighting = Sighting::Running { since };
        let ends = container.behaviour.ends;
        let (kind, own) = (container.kind, container.volume_of == name);
        if let Some(volume) = self.volumes.get_mut(&name).filter(|_| own) {
            // It works from now on, and until it has delivered this is the only copy.
            volume.left = Leftovers {
                media_bytes: 7,
                total_bytes: 10,
            };
            volume.unsent = kind == JobKind::Recording;
        }
        self.note(|_| format!("started {name} #{uid}"));
        self.saw_start(&name);
        if let Some(after) = ends {
            self.schedule(now + after, Event::Exit { uid, asked: false });
        }
        Reply::Done
    }

    /// Something that is not ours takes a name.
    pub(crate) fn take_name(&mut self, name: ContainerName, kind: JobKind) {
        if self.containers.contains_key(&name) {
            return;
        }
        self.note(|_| format!("a foreign container takes the name {name}"));
        let uid = self.new_uid();
        let since = self.wall();
        let container = Container {
            uid,
            ours: false,
            plan: String::new(),
            kind,
            image: "library/foreign:v1".parse().expect("an image"),
            image_id: image_id('a'),
            volume_of: name.clone(),
            env: BTreeMap::new(),
            sighting: Sighting::Running { since },
            behaviour: self.draw_behaviour(kind),
            dying: false,
            changed: Arc::new(Notify::new()),
        };
        self.containers.insert(name, container);
    }

    fn draw_call(&mut self, limit: u64) -> Call {
        let (faults, rng) = (self.setup.faults, &mut self.rng);
        if self.engine_down {
            self.trouble(0);
            let before = if self.engine_hangs { limit + 1 } else { 0 };
            return Call {
                before,
                ..Call::default()
            };
        }
        let mut call = Call::default();
        if chance(rng, faults.delayed) {
            call.before = rng.u64(0..30);
            call.after = rng.u64(0..30);
        }
        if chance(rng, faults.slow) {
            call.before = rng.u64(1000..2 * limit.max(1000));
        }
        call.dropped = chance(rng, faults.dropped);
        call.lost = chance(rng, faults.lost);
        if call.dropped || call.lost || call.before > 1000 {
            self.trouble(call.before);
        }
        call
    }
}

/// How one call of the engine goes.
#[derive(Debug, Clone, Copy, Default)]
struct Call {
    before: u64,
    after: u64,
    dropped: bool,
    lost: bool,
}

fn see(container: &Container) -> Seen {
    Seen {
        uid: container.uid,
        ours: container.ours,
        plan: container.plan.clone(),
        image_id: container.image_id.clone(),
        sighting: container.sighting,
    }
}

fn image_id(digit: char) -> ImageId {
    format!("sha256:{}", digit.to_string().repeat(64))
        .parse()
        .expect("an image id")
}

fn unreachable(operation: &'static str) -> RunnerError {
    RunnerError {
        operation,
        detail: "no answer".into(),
        unreachable: true,
    }
}

/// A request on its way. Dropped before it was carried out it may be carried out all the same.
struct OnItsWay<'a> {
    sim: &'a Sim,
    request: Option<Request>,
    at: u64,
    number: u64,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            let mut world = self.sim.world();
            if world.killed.is_some() {
                world.forsaken.push((self.number, self.at, request));
            } else {
                world.forsake(self.at, request);
            }
        }
    }
}

impl World {
    /// What became of the requests that were on their way when the service was killed. Its tasks are
    /// dropped in no certain order, and a history has one.
    pub(crate) fn forsake_all(&mut self) {
        let mut forsaken = std::mem::take(&mut self.forsaken);
        forsaken.sort_by_key(|(number, ..)| *number);
        for (_, at, request) in forsaken {
            self.forsake(at, request);
        }
    }

    fn forsake(&mut self, at: u64, request: Request) {
        if !self.rng.bool() {
            return;
        }
        if let Request::RemoveContainer(uid) = &request
            && let Some((_, container)) = self.container(*uid)
        {
            // The engine begins with this: nothing starts it any more.
            container.dying = true;
            self.end(*uid, Some(137), false);
        }
        let at = at.max(self.now());
        self.schedule(at, Event::Late(request));
    }
}

impl Sim {
    /// Sends a request and waits for the answer, so many milliseconds at most.
    async fn request(
        &self,
        operation: &'static str,
        limit: u64,
        request: Request,
    ) -> Result<Reply, RunnerError> {
        self.alive().await;
        let (call, now, yields, number) = {
            let mut world = self.world();
            let number = world.new_uid();
            let call = world.draw_call(limit);
            (call, world.now(), world.yields(), number)
        };
        if yields {
            tokio::task::yield_now().await;
        }
        let at = now + call.before;
        let mut on_its_way = OnItsWay {
            sim: self,
            request: (!call.dropped).then_some(request),
            at,
            number,
        };
        self.pause(call.before.min(limit)).await;
        if call.before > limit || call.dropped || self.world().engine_down {
            if self.world().engine_down {
                on_its_way.request = None;
            }
            return Err(unreachable(operation));
        }
        let Some(request) = on_its_way.request.take() else {
            return Err(unreachable(operation));
        };
        let Some(reply) = self.effect(|world| world.perform(&request)) else {
            // Killed before it: the request may have been under way already.
            on_its_way.request = Some(request);
            return std::future::pending().await;
        };
        self.pause(call.after).await;
        if call.lost {
            return Err(unreachable(operation));
        }
        Ok(reply)
    }

    async fn look<R>(
        &self,
        operation: &'static str,
        limit: u64,
        look: impl FnOnce(&mut World) -> R,
    ) -> Result<R, RunnerError> {
        self.alive().await;
        let call = self.world().draw_call(limit);
        self.pause(call.before.min(limit)).await;
        if call.before > limit || call.dropped {
            return Err(unreachable(operation));
        }
        let seen = {
            let mut world = self.world();
            if world.engine_down {
                return Err(unreachable(operation));
            }
            look(&mut world)
        };
        self.pause(call.after).await;
        if call.lost {
            return Err(unreachable(operation));
        }
        Ok(seen)
    }

    async fn seen(&self, name: &ContainerName) -> Result<Option<Seen>, RunnerError> {
        self.look("inspect", QUICK, |world| {
            world.containers.get(name).map(see)
        })
        .await
    }

    async fn now(&self) -> u64 {
        self.world().now()
    }

    /// Sees to it that the container exists and is what was authorized.
    async fn create(&self, permit: &LaunchPermit) -> Result<Seen, LaunchError> {
        let name = permit.name();
        let plan = permit.labels()[gate::label::PLAN].clone();
        let deadline = self.now().await + CREATE;
        loop {
            let creation = {
                let mut world = self.world();
                let faults = world.setup.faults;
                Creation {
                    name: name.clone(),
                    plan: plan.clone(),
                    kind: permit.kind(),
                    image: permit.image().clone(),
                    image_id: permit.image_id().clone(),
                    volume_of: permit.volume_of().clone(),
                    env: permit
                        .env()
                        .map(|(name, value)| (name.to_owned(), value.clone()))
                        .collect(),
                    refused: chance(&mut world.rng, faults.refused),
                    other_image: chance(&mut world.rng, faults.image_changed),
                }
            };
            let reply = self
                .request("create", CREATE, Request::Create(Box::new(creation)))
                .await;
            let error = match &reply {
                Ok(Reply::Created(seen)) if seen.image_id == *permit.image_id() => {
                    return Ok(seen.clone());
                }
                Ok(Reply::Created(seen)) => LaunchError::ImageChanged {
                    found: seen.image_id.to_string(),
                    authorized: permit.image_id().to_string(),
                },
                Ok(Reply::Refused) => LaunchError::Refused("create".into()),
                Ok(Reply::Conflict | Reply::Done) | Err(_) => match self.seen(name).await? {
                    Some(seen) if self.is_the_permits(&seen, permit, &plan) => return Ok(seen),
                    Some(_) => {
                        let name = name.to_string();
                        return Err(LaunchError::NameTaken { name });
                    }
                    None => match reply {
                        Err(error) => return Err(error.into()),
                        Ok(_) if self.now().await < deadline => {
                            self.pause(100).await;
                            continue;
                        }
                        Ok(_) => LaunchError::Refused("the name stays taken".into()),
                    },
                },
            };
            return Err(self.clean(permit, error).await);
        }
    }

    fn is_the_permits(&self, seen: &Seen, permit: &LaunchPermit, plan: &str) -> bool {
        self.is_ours(seen.ours) && seen.plan == plan && seen.image_id == *permit.image_id()
    }

    fn is_ours(&self, ours: bool) -> bool {
        ours || self.world().mutation == Some(Mutation::AdoptAnything)
    }

    /// Starts a container; within [`START`] and [`SETTLING`] it is known how that went, or that
    /// nobody knows.
    async fn start(&self, permit: &LaunchPermit, uid: u64) -> Result<Launched, LaunchError> {
        let refused = {
            let mut world = self.world();
            let rate = world.setup.faults.refused;
            chance(&mut world.rng, rate)
        };
        let answer = if refused {
            Ok(Reply::Refused)
        } else {
            self.request("start", START, Request::Start(uid)).await
        };
        self.settle(permit, uid, answer).await
    }

    /// What came of a start that was answered so.
    async fn settle(
        &self,
        permit: &LaunchPermit,
        uid: u64,
        answer: Result<Reply, RunnerError>,
    ) -> Result<Launched, LaunchError> {
        let deadline = self.now().await + SETTLING;
        loop {
            let left = deadline.saturating_sub(self.now().await).max(1);
            let name = permit.name();
            let seen = self
                .look("inspect", left, |world| world.containers.get(name).map(see))
                .await;
            let seen = seen.map(|seen| seen.filter(|seen| seen.uid == uid));
            if let Ok(Some(seen)) = &seen
                && let Some(at) = self.ran_at(seen)
            {
                return Ok(Launched { at });
            }
            return Err(match (&answer, seen) {
                (Ok(Reply::Refused), Ok(_)) => LaunchError::Refused("start".into()),
                (_, Ok(None)) => LaunchError::Gone,
                _ if self.now().await < deadline => {
                    self.pause(100).await;
                    continue;
                }
                (Err(error), _) => error.clone().into(),
                (Ok(_), Err(error)) => error.into(),
                (Ok(_), Ok(Some(_))) => LaunchError::Refused("it does not run".into()),
            });
        }
    }

    /// When a container ran, if it ever did.
    fn ran_at(&self, seen: &Seen) -> Option<domain::Timestamp> {
        match seen.sighting {
            Sighting::Running { since } => Some(since),
            Sighting::Ended(Exit { started_at, .. }) => Some(started_at),
            Sighting::Lost => Some(self.world().wall()),
            Sighting::Created | Sighting::Absent => None,
        }
    }

    async fn clean(&self, permit: &LaunchPermit, error: LaunchError) -> LaunchError {
        match self.remove_within(permit.name(), CLEANING).await {
            Ok(()) => error,
            Err(trouble) => trouble.into(),
        }
    }

    async fn remove_within(&self, name: &ContainerName, limit: u64) -> Result<(), RunnerError> {
        let end = self.now().await + limit;
        let ours = |world: &mut World| world.containers.get(name).filter(|c| c.ours).map(|c| c.uid);
        if let Some(uid) = self.look("inspect", limit.min(QUICK), ours).await? {
            let left = end.saturating_sub(self.now().await).max(1);
            self.request("remove", left, Request::RemoveContainer(uid))
                .await?;
        }
        if self.world().mutation == Some(Mutation::LeaveVolumes) {
            return Ok(());
        }
        let left = end.saturating_sub(self.now().await).max(1);
        let request = Request::RemoveVolume(name.clone());
        match self.request("remove", left, request).await? {
            Reply::Refused => Err(RunnerError {
                operation: "remove",
                detail: "the volume is in use".into(),
                unreachable: false,
            }),
            _ => Ok(()),
        }
    }
}

/// When a wait for a container's change returns.
enum Watch {
    Change(OwnedNotified),
    /// After so many milliseconds, whether anything changed or not.
    After(u64),
}

impl Sim {
    fn watch(&self, name: &ContainerName) -> Result<Watch, RunnerError> {
        let mut world = self.world();
        if world.engine_down {
            return Err(unreachable("wait"));
        }
        let rate = world.setup.faults.spurious;
        if chance(&mut world.rng, rate) {
            return Ok(Watch::After(world.rng.u64(0..5000)));
        }
        Ok(match world.containers.get(name).filter(|c| c.runs()) {
            Some(container) => Watch::Change(Arc::clone(&container.changed).notified_owned()),
            None => Watch::After(0),
        })
    }
}

#[async_trait]
impl Runner for Sim {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        let image = image.image().to_string();
        let pull = self.look("image", QUICK, |world| {
            let (now, faults) = (world.now(), world.setup.faults);
            if let Some(pull) = world.images.get(&image) {
                return *pull;
            }
            let slow = chance(&mut world.rng, faults.pull_slow);
            let takes = if slow { world.rng.u64(0..240_000) } else { 0 };
            let fails = chance(&mut world.rng, faults.pull_fails);
            world.images.insert(image.clone(), (now + takes, fails));
            (now + takes, fails)
        });
        let (done, fails) = pull.await?;
        let wait = done.saturating_sub(self.now().await);
        self.pause(wait).await;
        if !fails {
            return Ok(image_id('a'));
        }
        let mut world = self.world();
        world.images.remove(&image);
        let reasons = [
            EndReason::ImageUnreachable,
            EndReason::ImageStalled,
            EndReason::ImageUnauthorized,
            EndReason::ImageNotFound,
            EndReason::ImageRefused,
        ];
        let reason = reasons[world.rng.usize(0..reasons.len())];
        world.note(|_| format!("the pull of {image} fails: {reason}"));
        Err(PrepareError::Pull {
            image,
            reason,
            detail: "as drawn".into(),
        })
    }

    /// Now and then, so that histories have both.
    fn present(&self, image: &ImagePermit) -> Option<ImageId> {
        let mut world = self.world();
        let (done, fails) = *world.images.get(&image.image().to_string())?;
        let known = !fails && done <= world.now() && world.rng.bool();
        known.then(|| image_id('a'))
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        let seen = self.create(permit).await?;
        if let Some(at) = self.ran_at(&seen) {
            return Ok(Launched { at });
        }
        let leave = ticket.ask(&seen.uid.to_string());
        let broken = self.world().mutation;
        let without = broken == Some(Mutation::StartWithoutLeave);
        let again = broken == Some(Mutation::StartAgain);
        let started = match leave {
            Leave::GivenBefore if !again => {
                let unknown = Err(unreachable("start"));
                self.settle(permit, seen.uid, unknown).await
            }
            Leave::Refused if !without => {
                self.world()
                    .note(|_| format!("{} gets no leave to start", permit.name()));
                return Err(self.clean(permit, LaunchError::Withdrawn).await);
            }
            _ => {
                self.world().saw_leave(permit.name());
                self.start(permit, seen.uid).await
            }
        };
        match started {
            Ok(launched) => Ok(launched),
            Err(error @ (LaunchError::Engine(_) | LaunchError::Gone)) => Err(error),
            Err(error) => Err(self.clean(permit, error).await),
        }
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        let seen = self.seen(name).await;
        if seen.is_err() && self.world().mutation == Some(Mutation::ErrorIsAnEnd) {
            return Ok(Sighting::Lost);
        }
        let seen = seen?.filter(|seen| self.is_ours(seen.ours));
        Ok(seen.map_or(Sighting::Absent, |seen| seen.sighting))
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.alive().await;
        let changed = match self.watch(name) {
            Ok(Watch::Change(changed)) => changed,
            Ok(Watch::After(millis)) => {
                self.pause(millis).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        changed.await;
        self.alive().await;
        if self.world().engine_down {
            return Err(unreachable("wait"));
        }
        Ok(())
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let request = Request::Terminate(name.clone());
        self.request("terminate", QUICK, request).await.map(drop)
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let request = Request::Kill(name.clone());
        self.request("kill", QUICK, request).await.map(drop)
    }

    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        let look = |world: &mut World| {
            let container = world.containers.get(name).filter(|c| c.ours);
            let volume = world.volumes.get(&container?.volume_of);
            volume.map(|volume| volume.left)
        };
        let left = self.look("leftovers", QUICK, look).await?;
        if self.world().mutation == Some(Mutation::SeeNothingLeft) {
            return Ok(left.map(|_| Leftovers {
                media_bytes: 0,
                total_bytes: 0,
            }));
        }
        Ok(left)
    }

    async fn remains(&self, name: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        let remains = |world: &mut World| {
            let container = world.containers.get(name).filter(|c| c.ours)?;
            let anything = world.mutation == Some(Mutation::ResendAnything);
            world.volumes.get(name).map(|_| Remains {
                env: container.env.clone(),
                offers_resend: world.setup.offers_resend || anything,
            })
        };
        self.look("inspect", QUICK, remains).await
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let broken = self.world().mutation;
        if broken == Some(Mutation::RemoveNothing) {
            return Ok(());
        }
        if broken == Some(Mutation::RemoveWhatIsResent) {
            let volume_of = |c: &Container| c.volume_of.clone();
            let source = self.world().containers.get(name).map(volume_of);
            if let Some(source) = source.filter(|source| source != name) {
                self.remove_within(&source, REMOVAL).await?;
            }
        }
        self.remove_within(name, REMOVAL).await
    }

    async fn logs(
        &self,
        _: &ContainerName,
        _: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        let names = |world: &mut World| {
            let containers = world.containers.iter().filter(|(_, c)| c.ours);
            let mut names: Vec<_> = containers
                .map(|(name, _)| name)
                .chain(world.volumes.keys())
                .cloned()
                .collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        self.look("list", QUICK, names).await
    }

    async fn describe(&self, name: &ContainerName) -> Result<Option<Described>, RunnerError> {
        let described = |world: &mut World| {
            let container = world.containers.get(name).filter(|c| c.ours)?;
            let job = world.oracle.submitted(name.job())?;
            Some((
                Described {
                    kind: container.kind,
                    client: job.client.clone(),
                    submitted_at: job.submitted_at,
                    max_duration: job.max_duration,
                    resends: job.resends.clone(),
                    image: container.image.clone(),
                    image_id: container.image_id.clone(),
                    ran_at: None,
                },
                see(container),
            ))
        };
        let seen = self.look("inspect", QUICK, described).await?;
        Ok(seen.map(|(described, seen)| Described {
            ran_at: self.ran_at(&seen),
            ..described
        }))
    }

    async fn files(&self, _: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        Ok(None)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        Ok(None)
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        let down = self.world().engine_down;
        if down {
            return Err(unreachable("ping"));
        }
        Ok(())
    }
}
