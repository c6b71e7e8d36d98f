//! Duties after the end: deciding about the data, keeping and removing it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use domain::{End, Fact, Timestamp};
use tracing::warn;

use super::warning::warn_in_time;
use crate::job_loop::{Event, FIRST_PAUSE, JobLoop, longer, sleep_until};
use crate::live::Command;
use crate::{facts, measure};

impl JobLoop {
    /// Decides what happens to the data.
    pub(crate) async fn settle(&mut self, end: End) -> Event {
        let shared = Arc::clone(&self.shared);
        let facts = facts::of_job(&self.job, shared.now());
        let ruling = shared.ports.policies.retention(&facts).await;
        self.record(ruling.decisions);
        let (keep, refusal) = shared.gate.keep(
            self.job.kind,
            ruling.verdict,
            ruling.by.as_deref(),
            &end,
            shared.config.failed_retention,
        );
        if let Some(refusal) = refusal {
            warn!(%refusal, "retention bounded");
        }
        Event::Known(Fact::Settled { keep })
    }

    /// Keeps the data until its time is over or somebody deletes the job.
    pub(crate) async fn keep(&mut self, until: Option<Timestamp>) -> Event {
        let shared = Arc::clone(&self.shared);
        let mut warnings = pin!(warn_in_time(&shared, Arc::clone(&self.job), until));
        loop {
            tokio::select! {
                biased;
                () = sleep_until(&shared, until) => {
                    // Timers may wake a little early; the machine compares with the saved time.
                    if until.is_some_and(|until| shared.now() >= until) {
                        return Event::Known(Fact::KeepingOver);
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                () = &mut warnings => {}
                Some(command) = self.commands.recv() => match command {
                    // Whoever asked and was told otherwise meanwhile does not ask any more.
                    Command::Delete(reply) if reply.is_closed() => {}
                    Command::Delete(reply) => {
                        self.deleters.push(reply);
                        return Event::Known(Fact::DeleteRequested);
                    }
                    command @ (Command::Stop(_) | Command::Kill(_)) => {
                        Self::refuse_command(command);
                    },
                },
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }

    /// Removes containers and volumes of all attempts that may have any.
    pub(crate) async fn remove(&mut self, forget: bool) -> Event {
        let shared = Arc::clone(&self.shared);
        let names: Vec<_> = self
            .job
            .attempts
            .iter()
            .filter(|attempt| attempt.image_id.is_some())
            .map(|attempt| shared.gate.container_name(&self.job.id, attempt.number))
            .collect();
        let removal = async {
            for name in &names {
                let mut pause = FIRST_PAUSE;
                while let Err(error) = shared.ports.runner.remove(name).await {
                    measure::engine_error(&error);
                    warn!(%error, container = %name, "could not remove; trying again");
                    tokio::time::sleep(pause).await;
                    pause = longer(pause);
                }
            }
        };
        tokio::pin!(removal);
        loop {
            tokio::select! {
                biased;
                () = &mut removal => return Event::Known(Fact::Cleared),
                Some(command) = self.commands.recv() => match command {
                    Command::Delete(reply) if reply.is_closed() => {}
                    Command::Delete(reply) => {
                        self.deleters.push(reply);
                        if !forget {
                            return Event::Known(Fact::DeleteRequested);
                        }
                    }
                    command @ (Command::Stop(_) | Command::Kill(_)) => {
                        Self::refuse_command(command);
                    },
                },
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }
}
