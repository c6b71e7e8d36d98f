//! From a permit to a running container, as the real runner does it.

use domain::Exit;
use gate::{ContainerName, LaunchPermit};

use super::calls::{QUICK, unreachable};
use super::containers::{Creation, Reply, Request, Seen, see};
use super::mutation::Mutation;
use super::setup::chance;
use super::world::{Sim, World};
use crate::{LaunchError, Launched, Leave, RunnerError, Sighting, StartTicket};

// As the real runner: what is begun after a ticket's yes has an answer within 20 s.
const CREATE: u64 = 15_000;
const START: u64 = 12_000;
const SETTLING: u64 = 4000;
const CLEANING: u64 = 4000;

impl Sim {
    /// Creates and starts a container, or finds that it was.
    pub(super) async fn launch_container(
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

    /// Sees to it that the container exists and is what was authorized.
    async fn create(&self, permit: &LaunchPermit) -> Result<Seen, LaunchError> {
        let name = permit.name();
        let plan = permit.labels()[gate::label::PLAN].clone();
        let deadline = self.now() + CREATE;
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
                        Ok(_) if self.now() < deadline => {
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
        let deadline = self.now() + SETTLING;
        loop {
            let left = deadline.saturating_sub(self.now()).max(1);
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
                _ if self.now() < deadline => {
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
    pub(super) fn ran_at(&self, seen: &Seen) -> Option<domain::Timestamp> {
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

    pub(super) async fn remove_within(
        &self,
        name: &ContainerName,
        limit: u64,
    ) -> Result<(), RunnerError> {
        let end = self.now() + limit;
        let ours = |world: &mut World| world.containers.get(name).filter(|c| c.ours).map(|c| c.uid);
        if let Some(uid) = self.look("inspect", limit.min(QUICK), ours).await? {
            let left = end.saturating_sub(self.now()).max(1);
            self.request("remove", left, Request::RemoveContainer(uid))
                .await?;
        }
        if self.world().mutation == Some(Mutation::LeaveVolumes) {
            return Ok(());
        }
        let left = end.saturating_sub(self.now()).max(1);
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
