//! The runner's face to the engine crate.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use cap_std::fs::File;
use domain::{Exit, ImageId, InstanceId, Leftovers};
use engine::{
    Clock, Described, FileStream, FilesError, LaunchError, Launched, LogStream, LogsUntil,
    PrepareError, Remains, Runner, RunnerError, Sighting, StartTicket, file_stream,
};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use gate::{ContainerName, ImagePermit, LaunchPermit, label};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::about::About;
use crate::archive;
use crate::components::Components;
use crate::config::{WasiConfig, WasiError};
use crate::disk::{Disk, Trace};
use crate::job::{Bounds, Job};
use crate::network::Site;
use crate::output::{Output, read_part};
use crate::sandbox::{Given, Sandbox};

/// A job that was started in this process and not removed.
#[derive(Clone)]
enum Known {
    /// It may run yet: nobody has seen its end.
    Begun(Arc<Job>),
    Over(Arc<Over>),
}

/// What stays of a job when its end was seen. It may be kept for weeks.
struct Over {
    plan: String,
    exit: Exit,
    data_given: bool,
}

/// The jobs that were started in this process and not removed.
#[derive(Default)]
struct Jobs {
    by_name: HashMap<ContainerName, Known>,
    /// No job is started any more.
    closed: bool,
}

/// Runs jobs inside this process.
pub struct WasiRunner {
    instance: InstanceId,
    sandbox: Arc<Sandbox>,
    components: Arc<Components>,
    disk: Disk,
    jobs: RwLock<Jobs>,
    clock: Arc<dyn Clock>,
    output_max: u64,
    data_max: u64,
    /// Threads of their own: what a job computes does not hold up the service. Taken by drop only.
    threads: Option<Runtime>,
    /// Threads of its own that may wait for the disk, and only a few: with as many as the service
    /// may have they keep each other from working. Taken by drop only.
    disk_threads: Option<Runtime>,
}

/// How many threads may wait for the disk: more than a few large removals at once.
const DISK_THREADS: usize = 8;

impl Drop for WasiRunner {
    /// Jobs that were not asked to end before do not get the time to.
    fn drop(&mut self) {
        let threads = [self.threads.take(), self.disk_threads.take()];
        threads
            .into_iter()
            .flatten()
            .for_each(Runtime::shutdown_background);
    }
}

impl Known {
    fn begun(&self) -> Option<Arc<Job>> {
        match self {
            Self::Begun(job) => Some(Arc::clone(job)),
            Self::Over(_) => None,
        }
    }
}

impl WasiRunner {
    /// A runner without any job.
    ///
    /// # Errors
    /// When the machine does not give what it needs.
    pub fn new(config: WasiConfig) -> Result<Self, WasiError> {
        let sandbox = Sandbox::new(config.jobs_max)
            .map_err(|error| WasiError::Engine(format!("{error:#}")))?;
        let threads = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("job")
            .enable_all()
            .build()?;
        let disk_threads = Builder::new_current_thread()
            .max_blocking_threads(DISK_THREADS)
            .thread_name("job-disk")
            .build()?;
        Ok(Self {
            instance: config.instance,
            sandbox: Arc::new(sandbox),
            components: Arc::new(Components::new(config.components, config.images)),
            disk: Disk::new(config.jobs),
            jobs: RwLock::default(),
            clock: config.clock,
            output_max: config.output_max,
            data_max: config.data_max,
            threads: Some(threads),
            disk_threads: Some(disk_threads),
        })
    }

    /// Starts no job any more, asks those that run to end, and gives them this time to. Those that
    /// have not ended then are lost, as they would be at the end of the process; the number of
    /// them.
    pub async fn shut_down(&self, within: Duration) -> usize {
        let running: Vec<_> = {
            let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
            jobs.closed = true;
            let begun = jobs.by_name.values().filter_map(Known::begun);
            begun.filter(|job| job.runs()).collect()
        };
        running.iter().for_each(|job| job.terminate());
        // Whoever looks after a job has to know of its end before all looking after ends.
        let all_told = || join_all(running.iter().map(|job| job.told()));
        if timeout(within, all_told()).await.is_ok() {
            return 0;
        }
        let lost = running.iter().filter(|job| job.lose()).count();
        all_told().await;
        lost
    }

    fn known(&self, name: &ContainerName) -> Option<Known> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.by_name.get(name).cloned()
    }

    /// A job that may run yet.
    fn begun(&self, name: &ContainerName) -> Option<Arc<Job>> {
        self.known(name)?.begun()
    }

    /// The end of a job is seen: what it needed to run is let go.
    fn see_end(&self, name: &ContainerName, job: &Job, exit: Exit) {
        let over = Over {
            plan: job.plan().to_owned(),
            exit,
            data_given: job.data_given(),
        };
        let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
        let known = jobs.by_name.get_mut(name);
        let begun = known.map(|known| std::mem::replace(known, Known::Over(Arc::new(over))));
        drop(jobs);
        drop(begun);
    }

    /// Runs what may wait for the disk.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let threads = self.disk_threads.as_ref().expect("taken by drop only");
        threads.spawn_blocking(work)
    }

    /// Work on the disk, where it holds up nobody.
    async fn on_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T, RunnerError> {
        let disk = self.disk.clone();
        match self.blocking(move || work(&disk)).await {
            Ok(result) => result.map_err(|error| failed(operation, error)),
            Err(error) => Err(failed(operation, error)),
        }
    }
}

#[async_trait]
impl Runner for WasiRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        if let Some(id) = self.present(image) {
            return Ok(id);
        }
        let (components, sandbox) = (Arc::clone(&self.components), Arc::clone(&self.sandbox));
        let image = image.image().clone();
        let program = self.blocking(move || components.get(&sandbox, &image));
        let program = program.await.map_err(|error| failed("compile", error))??;
        Ok(program.id.clone())
    }

    fn present(&self, image: &ImagePermit) -> Option<ImageId> {
        let program = self.components.compiled(image.image())?;
        Some(program.id.clone())
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        if permit.resends().is_some() {
            let why = "a component has no way to be told to send in again what it left";
            return Err(LaunchError::Refused(why.to_owned()));
        }
        let name = permit.name();
        let plan = permit
            .labels()
            .get(label::PLAN)
            .cloned()
            .unwrap_or_default();
        if let Some(known) = self.known(name) {
            let (known_plan, at) = match &known {
                Known::Begun(job) => (job.plan(), job.started_at()),
                Known::Over(over) => (&*over.plan, over.exit.started_at),
            };
            return match known_plan == plan {
                true => Ok(Launched { at }),
                false => Err(LaunchError::NameTaken {
                    name: name.to_string(),
                }),
            };
        }
        let begun = {
            let about = About::new(permit, self.clock.now());
            let (components, sandbox) = (Arc::clone(&self.components), Arc::clone(&self.sandbox));
            let (disk, name, image) = (self.disk.clone(), name.clone(), permit.image().clone());
            let (authorized, ticket) = (permit.image_id().clone(), ticket.clone());
            self.blocking(move || {
                let program = components.get(&sandbox, &image).map_err(refused)?;
                if program.id != authorized {
                    return Err(LaunchError::ImageChanged {
                        found: program.id.to_string(),
                        authorized: authorized.to_string(),
                    });
                }
                let made = disk.make(&name, &about).map_err(refused)?;
                // It ran in a process that is gone, or could not be begun nor cleared away.
                let home = made.ok_or(LaunchError::Gone)?;
                let started = match ticket.ask(&name.to_string()) {
                    engine::Leave::Given => home.mark_started().map_err(refused),
                    _ => Err(LaunchError::Withdrawn),
                };
                if let Err(error) = started {
                    disk.remove(&name)
                        .map_err(|error| failed("remove", error))?;
                    return Err(error);
                }
                Ok((program, home))
            })
        };
        let (program, home) = begun.await.map_err(refused)??;
        let (stdin, own_stdin) = tokio::io::duplex(1);
        let given = Given {
            env: permit
                .env()
                .map(|(name, value)| (name.to_owned(), value.reveal().to_owned()))
                .collect(),
            home: home.clone(),
            memory_max: permit.memory_bytes(),
            site: site(permit),
            stdin: own_stdin,
            output: Output::new(home.clone(), self.output_max),
        };
        let bounds = Bounds {
            home,
            data_max: self.data_max,
        };
        let start = || {
            let threads = self.threads.as_ref().expect("taken by drop only").handle();
            let run = (Arc::clone(&self.sandbox), program, given);
            Job::start(threads, run, bounds, stdin, Arc::clone(&self.clock), plan)
        };
        let started = {
            let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
            // Otherwise it would begin unseen by whoever asks all jobs to end.
            (!jobs.closed).then(|| {
                let job = Arc::new(start());
                jobs.by_name
                    .insert(name.clone(), Known::Begun(Arc::clone(&job)));
                job
            })
        };
        match started {
            Some(job) => Ok(Launched {
                at: job.started_at(),
            }),
            None => {
                self.remove(name).await?;
                Err(LaunchError::Withdrawn)
            }
        }
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        match self.known(name) {
            Some(Known::Over(over)) => return Ok(Sighting::Ended(over.exit)),
            Some(Known::Begun(job)) => {
                let sighting = job.sighting();
                if let Sighting::Ended(exit) = sighting {
                    self.see_end(name, &job, exit);
                }
                return Ok(sighting);
            }
            None => {}
        }
        let name = name.clone();
        self.on_disk("inspect", move |disk| {
            Ok(match disk.trace(&name)? {
                Trace::Nothing => Sighting::Absent,
                Trace::Created => Sighting::Created,
                Trace::Ran => Sighting::Lost,
            })
        })
        .await
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.begun(name) {
            job.ended().await;
        }
        Ok(())
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.begun(name) {
            job.terminate();
        }
        Ok(())
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.begun(name) {
            job.kill();
        }
        Ok(())
    }

    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        let data_given = match self.known(name) {
            Some(Known::Begun(job)) => job.data_given(),
            Some(Known::Over(over)) => over.data_given,
            None => true,
        };
        if !data_given {
            return Ok(Some(Leftovers::default()));
        }
        let name = name.clone();
        self.on_disk("look at the data", move |disk| disk.leftovers(&name))
            .await
    }

    async fn files(&self, name: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        if self.begun(name).is_some_and(|job| job.runs()) {
            return Err(FilesError::Running);
        }
        let name = name.clone();
        let data = self.on_disk("fetch the files", move |disk| disk.data(&name));
        let data = data.await?;
        Ok(data.map(|data| file_stream(move |out| archive::write(&data, out))))
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        if let Some(job) = self.begun(name) {
            job.kill();
            job.ended().await;
        }
        let removed = {
            let name = name.clone();
            self.on_disk("remove", move |disk| disk.remove(&name)).await
        };
        if removed.is_ok() {
            let mut jobs = self.jobs.write().unwrap_or_else(PoisonError::into_inner);
            jobs.by_name.remove(name);
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
        let job = (until == LogsUntil::End)
            .then(|| self.begun(name))
            .flatten();
        let follow = job.map(|job| Follow {
            written: job.output(),
            job,
        });
        Ok(file.map(|file| read(file, follow)))
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        let mut names = self.on_disk("list", Disk::list).await?;
        names.retain(|name| *name.instance() == self.instance);
        Ok(names)
    }

    /// A component has no way to be told to send in again what it left.
    async fn remains(&self, _: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        Ok(Some(Remains::default()))
    }

    async fn describe(&self, name: &ContainerName) -> Result<Option<Described>, RunnerError> {
        let about = self.on_disk("describe", {
            let name = name.clone();
            move |disk| disk.about(&name)
        });
        Ok(about
            .await?
            .and_then(|(about, ran)| about.describe(name, ran)))
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        // A question for which the disk is not touched.
        let free = self.disk.free_bytes();
        free.map(Some)
            .map_err(|error| failed("look for room", error))
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        Ok(())
    }
}

/// The job's site; without one it can reach nothing.
fn site(permit: &LaunchPermit) -> Option<Arc<Site>> {
    let (_, url) = permit.env().find(|(name, _)| *name == "SITE_URL")?;
    Some(Arc::new(Site::new(&url.reveal().parse().ok()?)))
}

fn failed(operation: &'static str, error: impl ToString) -> RunnerError {
    RunnerError {
        operation,
        detail: error.to_string(),
        unreachable: false,
    }
}

fn refused(error: impl ToString) -> LaunchError {
    LaunchError::Refused(error.to_string())
}

/// A job whose output is read until it ends.
struct Follow {
    job: Arc<Job>,
    written: watch::Receiver<u64>,
}

/// The output of a job, a part at a time and no faster than it is taken.
fn read(file: File, follow: Option<Follow>) -> LogStream {
    stream::try_unfold((file, 0, follow), |(file, offset, mut follow)| async move {
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
            .map_err(|error| failed("logs", error))?;
            file = again;
            let part = part.map_err(|error| failed("logs", error))?;
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
