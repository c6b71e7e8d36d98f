//! `jobs.docker.output_logs`: what job containers wrote goes to the log when they have ended.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{ImageId, Leftovers};
use engine::{
    LaunchError, Launched, LogStream, PrepareError, Runner, RunnerError, Sighting, StartTicket,
};
use futures_util::StreamExt as _;
use gate::{ContainerName, ImagePermit, LaunchPermit};

/// Bytes of the longest line that is logged in one piece.
const LONGEST_LINE: usize = 8 << 10;

/// A runner whose containers' output is logged.
pub(crate) struct LoggingRunner(pub(crate) Arc<dyn Runner>);

impl LoggingRunner {
    async fn output(&self, name: &ContainerName) {
        let mut stream = match self.0.logs(name).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(container = %name, %error, "cannot log what the job wrote");
                return;
            }
        };
        let mut line = Vec::new();
        while let Some(Ok(chunk)) = stream.next().await {
            for byte in chunk {
                if byte == b'\n' || line.len() >= LONGEST_LINE {
                    log(name, &mut line);
                }
                if byte != b'\n' {
                    line.push(byte);
                }
            }
        }
        log(name, &mut line);
    }
}

fn log(name: &ContainerName, line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if !text.is_empty() {
        tracing::info!(job = %name.job(), attempt = name.attempt(), "job: {text}");
    }
    line.clear();
}

#[async_trait]
impl Runner for LoggingRunner {
    async fn prepare(&self, image: &ImagePermit) -> Result<ImageId, PrepareError> {
        self.0.prepare(image).await
    }

    async fn launch(
        &self,
        permit: &LaunchPermit,
        ticket: &StartTicket,
    ) -> Result<Launched, LaunchError> {
        self.0.launch(permit, ticket).await
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Sighting, RunnerError> {
        self.0.inspect(name).await
    }

    async fn changed(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.0.changed(name).await?;
        if matches!(self.0.inspect(name).await, Ok(Sighting::Ended(_))) {
            self.output(name).await;
        }
        Ok(())
    }

    async fn terminate(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.0.terminate(name).await
    }

    async fn kill(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.0.kill(name).await
    }

    async fn leftovers(&self, name: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        self.0.leftovers(name).await
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), RunnerError> {
        self.0.remove(name).await
    }

    async fn logs(&self, name: &ContainerName) -> Result<LogStream, RunnerError> {
        self.0.logs(name).await
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        self.0.list().await
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        self.0.ping().await
    }
}
