//! Duties after the end: deciding about the data, keeping and removing it.

use std::pin::pin;
use std::sync::Arc;

use domain::{End, Fact, Job, Timestamp};
use tokio::sync::oneshot;
use tracing::warn;

use super::resending::{HELD, keeping_over, without_resends};
use super::warning::warning_due;
use crate::job_loop::{Event, JobLoop};
use crate::live::Command;
use crate::{DeleteError, ResendError, facts};

/// When a job that is kept has something to do by itself, if it was warned of its removal last at
/// `warned_at`.
pub(crate) fn alarm(
    job: &Job,
    until: Option<Timestamp>,
    warned_at: Option<Timestamp>,
) -> Option<Timestamp> {
    let warning = warning_due(job, warned_at);
    [until, warning].into_iter().flatten().min()
}

type Deleter = oneshot::Sender<Result<(), DeleteError>>;

impl JobLoop {
    /// Decides what happens to the data.
    pub(crate) async fn settle(&mut self, end: End) -> Event {
        if let Some(of) = self.job.resends.clone() {
            return self.settle_resend(&of, end).await;
        }
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

    /// Keeps the data until its time is over or somebody deletes the job; asleep, as long as there is
    /// nothing to do.
    pub(crate) async fn keep(&mut self, until: Option<Timestamp>) -> Event {
        let shared = Arc::clone(&self.shared);
        let id = self.job.id.clone();
        let mut over = pin!(keeping_over(&shared, &id, until));
        loop {
            let now = shared.now();
            self.warn_if_due(now);
            let alarm = alarm(&self.job, until, self.warned_at);
            let idle = alarm.is_none_or(|at| now < at);
            if idle && self.fall_asleep(alarm) {
                return Event::Asleep;
            }
            tokio::select! {
                biased;
                () = &mut over => return Event::Known(Fact::KeepingOver),
                Some(command) = self.commands.recv() => match command {
                    // Whoever asked and was told otherwise meanwhile does not ask any more.
                    Command::Delete(reply) if reply.is_closed() => {}
                    Command::Delete(reply) => {
                        if let Some(reply) = self.may_delete(reply) {
                            self.deleters.push(reply);
                            return Event::Known(Fact::DeleteRequested);
                        }
                    }
                    Command::Resend(asked) => self.begin_resend(*asked).await,
                    Command::Resent(reply) => if let Some(event) = self.resent(reply) {
                        return event;
                    },
                    command @ (Command::Stop(_) | Command::Kill(_)) => {
                        Self::refuse_command(command);
                    },
                },
                () = tokio::time::sleep(HELD), if idle => {}
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }

    /// Whoever deletes this job, unless a job is left that sends in what it left: deleting that one
    /// is for them to decide.
    fn may_delete(&self, deleter: Deleter) -> Option<Deleter> {
        match self.shared.live.resend_of(&self.job.id) {
            None => Some(deleter),
            Some(resend) => {
                drop(deleter.send(Err(DeleteError::BeingResent(resend))));
                None
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
        let id = self.job.id.clone();
        let removal = async {
            without_resends(&shared, &id).await;
            for name in &names {
                shared.remove(name).await;
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
                        if let Some(reply) = self.may_delete(reply) {
                            self.deleters.push(reply);
                            if !forget {
                                return Event::Known(Fact::DeleteRequested);
                            }
                        }
                    }
                    Command::Resend(asked) => asked.refuse(ResendError::NothingUnsent),
                    // It goes, whatever became of it.
                    Command::Resent(reply) => {
                        let _ = reply.send(());
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
