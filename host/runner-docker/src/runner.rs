//! The runner's face to the engine crate.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{
    KillContainerOptions, ListContainersOptions, ListVolumesOptions, LogsOptions,
    WaitContainerOptions,
};
use domain::ImageId;
use engine::{
    Described, FileStream, FilesError, LaunchError, Launched, LogStream, LogsUntil, PrepareError,
    Remains, Runner, RunnerError, Sighting, StartTicket,
};
use futures_util::{StreamExt, stream};
use gate::{ContainerName, ImagePermit, LaunchPermit};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::client::{Client, QUICK, Trouble};
use crate::pull::Pulls;
use crate::{DockerConfig, files, labels, launch, leftovers, remains, removal, sighting};

/// Time for the engine to say that it is there.
const PING: Duration = Duration::from_secs(3);

/// After this long of waiting for a container's end it is looked at anyway: a connection to an
/// engine on another machine may have died without a word.
const WAIT: Duration = Duration::from_secs(5 * 60);

/// After this long the engine is asked again where it keeps its data.
const ROOT_KNOWN: Duration = Duration::from_secs(5 * 60);

/// Runs jobs as containers of a Docker engine, 20.10 or newer.
///
/// What holds for every container: no privileges gained by any program in it, all capabilities
/// dropped but the granted, this crate's seccomp profile, no devices, nothing of the host mounted,
/// limits on memory (swap included), processor, processes and kept output, one named volume on
/// `/data`, no restart by the engine, and the image that was authorized.
///
/// Pulls are anonymous: an image that needs credentials has to be present already, or come through
/// a mirror that needs none.
pub struct DockerRunner {
    client: Arc<Client>,
    config: DockerConfig,
    pulls: Pulls,
    root: Mutex<Option<Root>>,
    /// Whether it was told that nobody knows how much room there is.
    room_unknown: Once,
}

/// Where the engine keeps its data.
struct Root {
    path: PathBuf,
    asked: Instant,
}

impl DockerRunner {
    /// A runner for the configured engine, which need not be up.
    ///
    /// # Errors
    /// When the configuration names no usable address, version or certificates.
    pub fn connect(config: DockerConfig) -> Result<Self, RunnerError> {
        Ok(Self {
            client: Arc::new(Client::new(&config)?),
            config,
            pulls: Pulls::default(),
            root: Mutex::default(),
            room_unknown: Once::new(),
        })
    }

    /// Where the engine keeps images and volumes, on its own machine.
    async fn root(&self) -> Result<PathBuf, RunnerError> {
        let known = || self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = &*known()
            && root.asked.elapsed() < ROOT_KNOWN
        {
            return Ok(root.path.clone());
        }
        let info = self.client.call(QUICK, async |docker| docker.info().await);
        let info = info.await.map_err(|trouble| trouble.during("info"))?;
        let path = PathBuf::from(info.docker_root_dir.unwrap_or_default());
        let asked = Instant::now();
        *known() = Some(Root {
            path: path.clone(),
            asked,
        });
        Ok(path)
    }

    async fn signal(
        &self,
        name: &ContainerName,
        signal: &str,
        operation: &'static str,
    ) -> Result<(), RunnerError> {
        let signalled = async {
            let Some(seen) = sighting::look_for_ours(&self.client, name, QUICK).await? else {
                return Ok(());
            };
            let options = KillContainerOptions {
                signal: signal.to_owned(),
            };
            let sent = self
                .client
                .call(QUICK, async |docker| {
                    docker.kill_container(&seen.id, Some(options)).await
                })
                .await;
            match sent {
                // Gone, or not running any more.
                Err(trouble) if matches!(trouble.status(), Some(404 | 409)) => Ok(()),
                sent => sent,
            }
        };
        signalled
            .await
            .map_err(|trouble: Trouble| trouble.during(operation))
    }
}

#[async_trait]
impl Runner for DockerRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        self.pulls
            .prepare(&self.client, image.image(), self.config.pull_stall_timeout)
            .await
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        launch::launch(&self.client, &self.config, permit, ticket).await
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        let seen = sighting::look_for_ours(&self.client, name, QUICK).await;
        let seen = seen.map_err(|trouble| trouble.during("inspect"))?;
        Ok(seen.map_or(Sighting::Absent, |seen| seen.sighting))
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        const OPERATION: &str = "wait";
        let docker = self
            .client
            .stream()
            .await
            .map_err(|trouble| trouble.during(OPERATION))?;
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let mut ends = docker
            .wait_container(&name.to_string(), Some(options))
            .boxed();
        match timeout(WAIT, ends.next()).await {
            // Whatever was said about the exit: inspect tells.
            Err(_) | Ok(None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. }))) => Ok(()),
            Ok(Some(Err(error))) => match Trouble::from(error) {
                trouble if trouble.status() == Some(404) => Ok(()),
                trouble => Err(trouble.during(OPERATION)),
            },
        }
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.signal(name, "SIGTERM", "terminate").await
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.signal(name, "SIGKILL", "kill").await
    }

    async fn leftovers(
        &self,
        name: &ContainerName,
    ) -> Result<Option<domain::Leftovers>, RunnerError> {
        leftovers::look(&self.client, name).await
    }

    async fn files(&self, name: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        files::fetch(&self.client, name).await
    }

    async fn remains(&self, name: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        remains::look(&self.client, name).await
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        let deadline = Instant::now() + removal::REMOVAL;
        let removed = removal::remove(&self.client, name, deadline).await;
        removed.map_err(|trouble| trouble.during("remove"))
    }

    async fn logs(
        &self,
        name: &ContainerName,
        until: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        const OPERATION: &str = "logs";
        let during = |trouble: Trouble| trouble.during(OPERATION);
        let seen = sighting::look_for_ours(&self.client, name, QUICK).await;
        let Some(seen) = seen.map_err(during)? else {
            return Ok(None);
        };
        let docker = self.client.stream().await.map_err(during)?;
        let options = LogsOptions {
            follow: until == LogsUntil::End,
            stdout: true,
            stderr: true,
            tail: "all".to_owned(),
            ..Default::default()
        };
        let mut output = docker.logs(&seen.id, Some(options)).boxed();
        let mut first = None;
        if until == LogsUntil::Now {
            // The first part tells whether there will be any; the rest is read as fast as it is
            // taken.
            first = match timeout(QUICK, output.next()).await {
                Err(_) => return Err(during(Trouble::Unreachable("no answer".to_owned()))),
                Ok(Some(Err(error))) => match Trouble::from(error) {
                    // Gone since it was seen, or on its way out.
                    trouble if matches!(trouble.status(), Some(404 | 409)) => return Ok(None),
                    trouble => return Err(during(trouble)),
                },
                Ok(first) => first,
            };
        }
        let output = stream::iter(first).chain(output).map(move |part| {
            part.map(LogOutput::into_bytes)
                .map_err(|error| during(Trouble::from(error)))
        });
        Ok(Some(output.boxed()))
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        let during = |trouble: Trouble| trouble.during("list");
        let filters = labels::filter(&self.config.instance);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters.clone()),
            ..Default::default()
        };
        let containers = self
            .client
            .call(QUICK, async |docker| {
                docker.list_containers(Some(options)).await
            })
            .await
            .map_err(during)?;
        // A volume may be all that is left of an attempt.
        let options = ListVolumesOptions {
            filters: Some(filters),
        };
        let volumes = self
            .client
            .call(QUICK, async |docker| {
                docker.list_volumes(Some(options)).await
            })
            .await
            .map_err(during)?;
        let containers = containers
            .into_iter()
            .flat_map(|container| container.names.unwrap_or_default());
        let volumes = volumes
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|volume| volume.name);
        let names: BTreeSet<ContainerName> = containers
            .filter_map(|name| ContainerName::parse(name.trim_start_matches('/')))
            .chain(volumes.filter_map(|volume| ContainerName::parse(volume.strip_suffix("-data")?)))
            .filter(|name| *name.instance() == self.config.instance)
            .collect();
        Ok(names.into_iter().collect())
    }

    async fn describe(&self, name: &ContainerName) -> Result<Option<Described>, RunnerError> {
        let seen = sighting::look_for_ours(&self.client, name, QUICK).await;
        let Some(seen) = seen.map_err(|trouble| trouble.during("inspect"))? else {
            return Ok(None);
        };
        let described = || {
            let about = labels::about(&seen.labels, name)?;
            Some(Described {
                kind: about.kind,
                client: about.client,
                submitted_at: about.submitted_at,
                max_duration: about.max_duration,
                resends: about.resends,
                image: seen.image.parse().ok()?,
                image_id: seen.image_id.parse().ok()?,
                ran_at: seen.ran_at,
            })
        };
        Ok(described())
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        let Some(free_bytes) = self.config.free_bytes else {
            return Ok(None);
        };
        if !self.client.is_local() {
            self.room_unknown.call_once(|| {
                warn!("the container engine is on another machine; nobody checks how much room its disk has");
            });
            return Ok(None);
        }
        let root = self.root().await?;
        match free_bytes(&root) {
            Ok(free) => Ok(Some(free)),
            Err(error) => {
                self.room_unknown.call_once(|| {
                    warn!(
                        path = %root.display(), %error,
                        "the container engine's data cannot be reached from here; nobody checks how much room it has"
                    );
                });
                Ok(None)
            }
        }
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        let answer = self
            .client
            .call(PING, async |docker| docker.ping().await)
            .await;
        answer.map(drop).map_err(|trouble| trouble.during("ping"))
    }
}
