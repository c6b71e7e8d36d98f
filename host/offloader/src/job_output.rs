//! `jobs.docker.output_logs`: what job containers write goes to the log as they write it.
//!
//! Each container's output is read by a task of its own. The runner's calls only show when a
//! container begins and ends; they never wait for the log.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{ImageId, Leftovers};
use engine::{
    Described, FileStream, FilesError, LaunchError, Launched, LogStream, LogsUntil, PrepareError,
    Remains, Runner, RunnerError, Sighting, StartTicket,
};
use futures_util::StreamExt as _;
use gate::{ContainerName, ImagePermit, LaunchPermit};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

/// Bytes of the longest line that is logged in one piece.
const LONGEST_LINE: usize = 8 << 10;
/// Time to read what is left of the output once its container was seen to have ended.
const REST: Duration = Duration::from_secs(30);
/// The pause before output is asked for again that broke off.
const AGAIN: Duration = Duration::from_secs(5);

/// A runner whose containers' output is logged.
pub(crate) struct LoggingRunner {
    runner: Arc<dyn Runner>,
    /// The containers whose output is being logged or was. The sender is dropped at the end of the
    /// container, which tells the task; the name stays until the container is gone, so that
    /// nothing is logged twice.
    containers: Mutex<HashMap<ContainerName, Option<oneshot::Sender<()>>>>,
}

impl LoggingRunner {
    /// The same runner, logging.
    pub(crate) fn new(runner: Arc<dyn Runner>) -> Self {
        Self {
            runner,
            containers: Mutex::default(),
        }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerName, Option<oneshot::Sender<()>>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn began(&self, name: &ContainerName) {
        if let Entry::Vacant(entry) = self.containers().entry(name.clone()) {
            let (running, over) = oneshot::channel();
            entry.insert(Some(running));
            tokio::spawn(log_output(Arc::clone(&self.runner), name.clone(), over));
        }
    }

    fn ended(&self, name: &ContainerName) {
        self.began(name);
        if let Some(running) = self.containers().get_mut(name) {
            *running = None;
        }
    }

    fn gone(&self, name: &ContainerName) {
        self.containers().remove(name);
    }
}

/// Logs a container's output to its end, or until it is `over` and the rest has taken too long.
async fn log_output(runner: Arc<dyn Runner>, name: ContainerName, over: oneshot::Receiver<()>) {
    let too_long = async {
        // Nothing is ever sent: the sender is dropped.
        let _ = over.await;
        sleep(REST).await;
    };
    tokio::select! {
        () = follow(&*runner, &name) => {}
        () = too_long => warn!(container = %name, "not all that the job wrote is logged: reading it takes too long"),
    }
}

async fn follow(runner: &dyn Runner, name: &ContainerName) {
    let mut output = Output {
        name,
        read_bytes: 0,
        line: Vec::new(),
    };
    loop {
        match runner.logs(name, LogsUntil::End).await {
            Ok(None) => break,
            Ok(Some(stream)) => match output.log(stream).await {
                // It also ends when the container engine does.
                Ok(()) => match runner.inspect(name).await {
                    Ok(Sighting::Running { .. }) | Err(_) => {}
                    Ok(_) => break,
                },
                Err(error) => warn!(container = %name, %error, "what the job writes broke off"),
            },
            Err(error) => warn!(container = %name, %error, "cannot read what the job writes"),
        }
        sleep(AGAIN).await;
    }
    output.end_line();
}

/// The output of one container on its way to the log.
struct Output<'a> {
    name: &'a ContainerName,
    /// How many bytes of it were read.
    read_bytes: usize,
    /// The line that is not ended yet.
    line: Vec<u8>,
}

impl Output<'_> {
    /// Logs what a stream of the whole output has beyond that which was read before.
    async fn log(&mut self, mut stream: LogStream) -> Result<(), RunnerError> {
        let mut known = self.read_bytes;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let (_, new) = chunk.split_at(known.min(chunk.len()));
            known -= chunk.len() - new.len();
            self.read_bytes += new.len();
            for byte in new {
                if *byte == b'\n' || self.line.len() >= LONGEST_LINE {
                    self.end_line();
                }
                if *byte != b'\n' {
                    self.line.push(*byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        if !text.is_empty() {
            let (job, attempt) = (self.name.job(), self.name.attempt());
            tracing::info!(%job, attempt, "job: {text}");
        }
        self.line.clear();
    }
}

#[async_trait]
impl Runner for LoggingRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        self.runner.prepare(image).await
    }

    fn present(&self, image: &ImagePermit) -> Option<ImageId> {
        self.runner.present(image)
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        let launched = self.runner.launch(permit, ticket).await?;
        self.began(permit.name());
        Ok(launched)
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        let sighting = self.runner.inspect(name).await?;
        match sighting {
            Sighting::Created => {}
            Sighting::Running { .. } => self.began(name),
            Sighting::Ended(_) | Sighting::Lost => self.ended(name),
            Sighting::Absent => self.gone(name),
        }
        Ok(sighting)
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.runner.changed(name).await
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.runner.terminate(name).await
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.runner.kill(name).await
    }

    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        self.runner.leftovers(name).await
    }

    async fn files(&self, name: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        self.runner.files(name).await
    }

    async fn remains(&self, name: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        self.runner.remains(name).await
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.runner.remove(name).await?;
        self.gone(name);
        Ok(())
    }

    async fn logs(
        &self,
        name: &ContainerName,
        until: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        self.runner.logs(name, until).await
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        self.runner.list().await
    }

    async fn describe(&self, name: &ContainerName) -> Result<Option<Described>, RunnerError> {
        self.runner.describe(name).await
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        self.runner.free_bytes().await
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        self.runner.ping().await
    }
}

#[cfg(test)]
mod tests;
