//! A runner over the simulated container engine that keeps what [`Runner`] promises.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{EndReason, ImageId, Leftovers};
use gate::{ContainerName, ImagePermit, LaunchPermit};
use tokio::sync::futures::OwnedNotified;

use super::calls::{QUICK, unreachable};
use super::containers::{Container, Request, Seen, image_id, see};
use super::mutation::Mutation;
use super::setup::chance;
use super::world::{Sim, World};
use crate::{
    Described, FileStream, FilesError, LaunchError, Launched, LogStream, LogsUntil, PrepareError,
    Remains, Runner, RunnerError, Sighting, StartTicket,
};

/// Time to remove what nobody needs any more.
const REMOVAL: u64 = 60_000;

impl Sim {
    pub(super) async fn seen(&self, name: &ContainerName) -> Result<Option<Seen>, RunnerError> {
        self.look("inspect", QUICK, |world| {
            world.containers.get(name).map(see)
        })
        .await
    }

    pub(super) fn now(&self) -> u64 {
        self.world().now()
    }

    pub(super) fn is_ours(&self, ours: bool) -> bool {
        ours || self.world().mutation == Some(Mutation::AdoptAnything)
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
        let wait = done.saturating_sub(self.now());
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
        self.launch_container(permit, ticket).await
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
