//! Duties while the container runs, and finding out how it ended.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    DeliveredWhen, Delivery, EndReason, Exit, Fact, Leftovers, Outcome, State, StopCause, Timestamp,
};
use tracing::{info, warn};

use crate::engine::Shared;
use crate::job_loop::{Event, FIRST_PAUSE, JobLoop, longer, sleep_until};
use crate::live::Command;
use crate::rules::step;
use crate::{Sighting, measure};

/// How often what is left in a volume is looked up when the engine answers with an error.
const LOOKS: u32 = 4;
/// The pause before a signal is sent again that did not reach the engine.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// The pause before a container that did not die is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(5);

impl JobLoop {
    /// Waits for the container's end or its deadline.
    pub(crate) async fn watch(&mut self, deadline: Timestamp) -> Event {
        loop {
            if let Some(event) = self.ended().await {
                return event;
            }
            let (shared, name) = (Arc::clone(&self.shared), self.container());
            tokio::select! {
                biased;
                () = changed(&shared, &name) => {}
                () = sleep_until(&shared, Some(deadline)) => {
                    return self.stop_requested(StopCause::Deadline);
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Stop(reply) => {
                        self.stoppers.push(reply);
                        return self.stop_requested(StopCause::Admin);
                    }
                    Command::Kill(reply) => {
                        self.stoppers.push(reply);
                        return Event::Known(Fact::KillRequested);
                    }
                    command => Self::refuse_command(command),
                },
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }

    fn stop_requested(&self, cause: StopCause) -> Event {
        let grace = self.shared.gate.stop_grace(self.job.kind);
        Event::Known(Fact::StopRequested { cause, grace })
    }

    /// Asks the container to end and kills it when its grace is over.
    pub(crate) async fn stop(&mut self, kill_at: Timestamp) -> Event {
        let name = self.container();
        let mut terminated = false;
        loop {
            if let Some(event) = self.ended().await {
                return event;
            }
            let shared = Arc::clone(&self.shared);
            let (now, runner) = (shared.now(), &shared.ports.runner);
            let over = now >= kill_at;
            let signalled = if over {
                warn!("the grace is over; killing the container");
                runner.kill(&name).await
            } else if terminated {
                Ok(())
            } else {
                runner.terminate(&name).await
            };
            let look_again = match signalled {
                Ok(()) => {
                    terminated = true;
                    if over { now.plus(KILL_AGAIN) } else { kill_at }
                }
                Err(error) => {
                    measure::engine_error(&error);
                    warn!(%error, "could not signal the container; trying again");
                    now.plus(SIGNAL_AGAIN)
                }
            };
            tokio::select! {
                biased;
                () = changed(&shared, &name) => {}
                () = sleep_until(&shared, Some(look_again)) => {}
                Some(command) = self.commands.recv() => match command {
                    Command::Stop(reply) => drop(reply.send(Ok(()))),
                    Command::Kill(reply) => {
                        self.stoppers.push(reply);
                        return Event::Known(Fact::KillRequested);
                    }
                    command => Self::refuse_command(command),
                },
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }

    /// What there is to say when the container does not run any more.
    async fn ended(&mut self) -> Option<Event> {
        match self.sight().await {
            None => Some(Event::Leave),
            Some(Sighting::Running { .. }) => None,
            Some(Sighting::Ended(exit)) => Some(self.exited(exit).await),
            Some(Sighting::Absent) => Some(self.lost(EndReason::RemovedByHand).await),
            Some(Sighting::Created | Sighting::Lost) => {
                Some(self.lost(EndReason::RuntimeLost).await)
            }
        }
    }

    /// The container ended: finds out what became of the work, and, where the operator allows it
    /// after a run, whether another attempt follows.
    pub(super) async fn exited(&mut self, exit: Exit) -> Event {
        let Some(delivery) = self.delivery(Some(exit.code)).await else {
            return Event::Leave;
        };
        if delivery == Delivery::Unknown && self.sight().await == Some(Sighting::Absent) {
            // The end that was seen was its removal.
            let reason = EndReason::RemovedByHand;
            return Event::Known(Fact::Lost { reason, delivery });
        }
        let without_retry = Fact::Exited {
            exit,
            delivery,
            retry: None,
        };
        let failed = step(&self.job, &without_retry, self.shared.now()).is_ok_and(
            |job| matches!(job.state, State::Ended(end) if end.outcome == Outcome::Failed),
        );
        let asked_to_stop = matches!(self.job.state, State::Stopping { .. });
        let retry =
            if failed && !asked_to_stop && !delivery.may_be_unsent() && self.launchable.is_some() {
                self.ask_retry(&without_retry).await
            } else {
                None
            };
        Event::Known(Fact::Exited {
            exit,
            delivery,
            retry,
        })
    }

    pub(super) async fn lost(&mut self, reason: EndReason) -> Event {
        match self.delivery(None).await {
            Some(delivery) => Event::Known(Fact::Lost { reason, delivery }),
            None => Event::Leave,
        }
    }

    /// How the container is, once the engine says so; `None` when the service ends first.
    pub(super) async fn sight(&self) -> Option<Sighting> {
        let name = self.container();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.shared.ports.runner.inspect(&name).await {
                Ok(sighting) => return Some(sighting),
                Err(error) => {
                    measure::engine_error(&error);
                    warn!(%error, "cannot look at the container; the job stays as it is");
                }
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => pause = longer(pause),
                () = self.shared.ending.cancelled() => return None,
            }
        }
    }

    /// What became of the work of the ended container; `None` when the service ends first.
    async fn delivery(&self, exit_code: Option<i32>) -> Option<Delivery> {
        let rule = self.shared.gate.delivered_when(self.job.kind);
        if (rule, exit_code) == (DeliveredWhen::ExitZero, Some(0)) {
            return Some(Delivery::Delivered);
        }
        let leftovers = self.leftovers().await?;
        let delivery = rule.judge(exit_code, leftovers);
        info!(?delivery, exit_code, "looked at what the container left");
        Some(delivery)
    }

    /// `Some(None)` when nobody could look.
    async fn leftovers(&self) -> Option<Option<Leftovers>> {
        let name = self.container();
        let (mut pause, mut looks) = (FIRST_PAUSE, 0);
        loop {
            match self.shared.ports.runner.leftovers(&name).await {
                Ok(leftovers) => return Some(leftovers),
                Err(error) => {
                    measure::engine_error(&error);
                    warn!(%error, "cannot look at what the container left");
                    looks += u32::from(!error.unreachable);
                }
            }
            if looks >= LOOKS {
                return Some(None);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => pause = longer(pause),
                () = self.shared.ending.cancelled() => return None,
            }
        }
    }
}

/// Returns when the container may have changed; inspect tells. An error is no change.
async fn changed(shared: &Shared, name: &gate::ContainerName) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = shared.ports.runner.changed(name).await {
        measure::engine_error(&error);
        warn!(%error, "cannot wait for the container's end; trying again");
        tokio::time::sleep(pause).await;
        pause = longer(pause);
        if shared.ports.runner.inspect(name).await.is_ok() {
            return;
        }
    }
}
