//! The runner's face to the engine crate.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use cap_std::fs::File;
use domain::{ImageId, Leftovers};
use engine::{
    Clock, LaunchError, Launched, LogStream, LogsUntil, PrepareError, Runner, RunnerError,
    Sighting, StartTicket,
};
use futures_util::{StreamExt as _, stream};
use gate::{ContainerName, ImagePermit, LaunchPermit};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::components::Components;
use crate::config::{WasiConfig, WasiError};
use crate::disk::Disk;
use crate::job::{Bounds, Job};
use crate::output::{Output, read_part};
use crate::sandbox::{Given, Sandbox};

/// The label that tells what a launch allows.
const PLAN_LABEL: &str = "io.offloader.plan-sha256";

/// Runs jobs inside this process.
pub struct WasiRunner {
    sandbox: Arc<Sandbox>,
    components: Arc<Components>,
    disk: Disk,
    jobs: RwLock<HashMap<ContainerName, Arc<Job>>>,
    clock: Arc<dyn Clock>,
    output_max: u64,
    data_max: u64,
    /// Threads of their own: what a job computes does not hold up the service. Taken by drop only.
    threads: Option<Runtime>,
}

impl Drop for WasiRunner {
    /// Jobs that were not asked to end before do not get the time to.
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl WasiRunner {
    /// A runner without any job.
    ///
    /// # Errors
    /// When the machine does not give what it needs.
    pub fn new(config: WasiConfig) -> Result<Self, WasiError> {
        let sandbox = Sandbox::new().map_err(|error| WasiError::Engine(format!("{error:#}")))?;
        let threads = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("job")
            .enable_all()
            .build()?;
        Ok(Self {
            sandbox: Arc::new(sandbox),
            components: Arc::new(Components::new(config.components, config.images)),
            disk: Disk::new(config.jobs),
            jobs: RwLock::default(),
            clock: config.clock,
            output_max: config.output_max,
            data_max: config.data_max,
            threads: Some(threads),
        })
    }

    fn job(&self, name: &ContainerName) -> Option<Arc<Job>> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.get(name).cloned()
    }

    /// Work on the disk, where it holds up nobody.
    async fn on_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RunnerError> {
        let disk = self.disk.clone();
        let fail = |detail: String| RunnerError {
            operation,
            detail,
            unreachable: false,
        };
        match spawn_blocking(move || work(&disk)).await {
            Ok(result) => result.map_err(|error| fail(error.to_string())),
            Err(error) => Err(fail(error.to_string())),
        }
    }
}

#[async_trait]
impl Runner for WasiRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        let (components, sandbox) = (Arc::clone(&self.components), Arc::clone(&self.sandbox));
        let image = image.image().clone();
        let program = spawn_blocking(move || components.get(&sandbox, &image)).await;
        let program = program.map_err(|error| RunnerError {
            operation: "compile",
            detail: error.to_string(),
            unreachable: false,
        })??;
        Ok(program.id.clone())
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        let name = permit.name();
        let plan = permit.labels().get(PLAN_LABEL).cloned().unwrap_or_default();
        if let Some(job) = self.job(name) {
            return if job.plan() == plan {
                Ok(Launched {
                    at: job.started_at(),
                })
            } else {
                Err(LaunchError::NameTaken {
                    name: name.to_string(),
                })
            };
        }
        let (components, sandbox) = (Arc::clone(&self.components), Arc::clone(&self.sandbox));
        let image = permit.image().clone();
        let program = spawn_blocking(move || components.get(&sandbox, &image))
            .await
            .map_err(|error| LaunchError::Refused(error.to_string()))?
            .map_err(|error| LaunchError::Refused(error.to_string()))?;
        if program.id != *permit.image_id() {
            return Err(LaunchError::ImageChanged {
                found: program.id.to_string(),
                authorized: permit.image_id().to_string(),
            });
        }
        let made = self
            .on_disk("create", {
                let name = name.clone();
                move |disk| {
                    let started = disk.started(&name)?;
                    let (data, output) = disk.make(&name)?;
                    Ok((started, data.try_clone()?, data, output))
                }
            })
            .await;
        let (started, data, looked_at, output) =
            made.map_err(|error| LaunchError::Refused(error.detail))?;
        if started.is_some() {
            // It ran in a process that is gone, or could not be begun nor cleared away.
            return Err(LaunchError::Gone);
        }
        if ticket.ask(&name.to_string()) != engine::Leave::Given {
            self.remove(name).await?;
            return Err(LaunchError::Withdrawn);
        }
        let now = self.clock.now();
        let marked = {
            let name = name.clone();
            self.on_disk("start", move |disk| disk.mark_started(&name, now))
                .await
        };
        if let Err(error) = marked {
            self.remove(name).await?;
            return Err(LaunchError::Refused(error.detail));
        }
        let (stdin, own_stdin) = tokio::io::duplex(1);
        let given = Given {
            env: permit
                .env()
                .map(|(name, value)| (name.to_owned(), value.reveal().to_owned()))
                .collect(),
            data,
            memory_max: permit.memory_bytes(),
            site: site(permit),
            stdin: own_stdin,
            output: Output::new(output, self.output_max),
        };
        let bounds = Bounds {
            data: looked_at,
            data_max: self.data_max,
        };
        let threads = self.threads.as_ref().expect("taken by drop only").handle();
        let job = Arc::new(Job::start(
            threads,
            (Arc::clone(&self.sandbox), program, given),
            bounds,
            stdin,
            Arc::clone(&self.clock),
            plan,
        ));
        let at = job.started_at();
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(name.clone(), job);
        Ok(Launched { at })
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        if let Some(job) = self.job(name) {
            return Ok(job.sighting());
        }
        let name = name.clone();
        self.on_disk("inspect", move |disk| {
            Ok(match disk.started(&name)? {
                Some(_) => Sighting::Lost,
                None if disk.has(&name) => Sighting::Created,
                None => Sighting::Absent,
            })
        })
        .await
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.job(name) {
            job.ended().await;
        }
        Ok(())
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.job(name) {
            job.terminate();
        }
        Ok(())
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.job(name) {
            job.kill();
        }
        Ok(())
    }

    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        let name = name.clone();
        self.on_disk("look at the data", move |disk| disk.leftovers(&name))
            .await
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.job(name) {
            job.kill();
            job.ended().await;
        }
        let removed = {
            let name = name.clone();
            self.on_disk("remove", move |disk| disk.remove(&name)).await
        };
        if removed.is_ok() {
            let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
            jobs.remove(name);
        }
        removed
    }

    async fn logs(
        &self,
        name: &ContainerName,
        until: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        let file = {
            let name = name.clone();
            self.on_disk("logs", move |disk| disk.output(&name)).await?
        };
        let job = (until == LogsUntil::End).then(|| self.job(name)).flatten();
        let follow = job.map(|job| Follow {
            written: job.output(),
            job,
        });
        Ok(file.map(|file| read(file, follow)))
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        self.on_disk("list", Disk::list).await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        self.on_disk("look for room", Disk::free_bytes)
            .await
            .map(Some)
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        Ok(())
    }
}

/// `HOST:PORT` of the job's site; without one it can reach nothing.
fn site(permit: &LaunchPermit) -> Option<Arc<str>> {
    let (_, url) = permit.env().find(|(name, _)| *name == "SITE_URL")?;
    let url = url.reveal();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split('/').next().unwrap_or_default();
    let port = if scheme == "https" { 443 } else { 80 };
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    Some(if has_port {
        host.into()
    } else {
        format!("{host}:{port}").into()
    })
}

/// A job whose output is read until it ends.
struct Follow {
    job: Arc<Job>,
    written: watch::Receiver<u64>,
}

/// The output of a job, a part at a time and no faster than it is taken.
fn read(file: File, follow: Option<Follow>) -> LogStream {
    stream::try_unfold((file, 0, follow), |(file, offset, mut follow)| async move {
        let fail = |detail: String| RunnerError {
            operation: "logs",
            detail,
            unreachable: false,
        };
        let mut file = file;
        loop {
            if let Some(Follow { job, written }) = &mut follow {
                // What was written before the end is there when the end is told.
                tokio::select! {
                    _ = written.wait_for(|total| *total > offset) => {}
                    () = job.ended() => {}
                }
            }
            let ended = follow
                .as_ref()
                .is_none_or(|follow| !matches!(follow.job.sighting(), Sighting::Running { .. }));
            let (again, part) = spawn_blocking(move || {
                let part = read_part(&mut file, offset);
                (file, part)
            })
            .await
            .map_err(|error| fail(error.to_string()))?;
            file = again;
            let part = part.map_err(|error| fail(error.to_string()))?;
            if !part.is_empty() {
                let offset = offset + part.len() as u64;
                return Ok(Some((part, (file, offset, follow))));
            }
            if ended {
                return Ok(None);
            }
        }
    })
    .boxed()
}
