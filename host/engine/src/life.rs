//! The duties of a job's task, one function each.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    DeliveredWhen, Delivery, End, EndReason, Exit, Fact, Leftovers, Outcome, Purpose, RetryVerdict,
    State, StopCause, Timestamp, step,
};
use gate::{LaunchPermit, LaunchPlan};
use tracing::{info, warn};

use crate::engine::Shared;
use crate::job_loop::{Event, FIRST_PAUSE, JobLoop, longer, sleep_until};
use crate::live::Command;
use crate::{LaunchError, PrepareError, Sighting, StartTicket, facts};

/// How often what is left in a volume is looked up when the engine answers with an error.
const LOOKS: u32 = 4;
/// The pause before a signal is sent again that did not reach the engine.
const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// The pause before a container that did not die is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(5);

impl JobLoop {
    /// Makes the image present.
    pub(crate) async fn prepare(&mut self, give_up_at: Option<Timestamp>) -> Event {
        let Some(launchable) = &self.launchable else {
            return self.interrupted();
        };
        let permit = launchable.permit.clone();
        self.waiting_for = format!("waiting for image {}", permit.image());
        let runner = Arc::clone(&self.shared.ports.runner);
        let mut pause = FIRST_PAUSE;
        loop {
            let prepared = tokio::select! {
                biased;
                event = self.before_it_runs(give_up_at) => return event,
                prepared = runner.prepare(&permit) => prepared,
            };
            match prepared {
                Ok(image_id) => return Event::Known(Fact::Prepared { image_id }),
                Err(PrepareError::Pull {
                    image,
                    reason,
                    detail,
                }) => {
                    return self
                        .attempt_failed(reason, format!("image {image}: {detail}"))
                        .await;
                }
                Err(PrepareError::Engine(error)) if !error.unreachable => {
                    return self
                        .attempt_failed(EndReason::StartFailed, error.to_string())
                        .await;
                }
                Err(PrepareError::Engine(error)) => {
                    warn!(%error, "cannot look for the image; trying again");
                    self.waiting_for = error.to_string();
                }
            }
            tokio::select! {
                biased;
                event = self.before_it_runs(give_up_at) => return event,
                () = tokio::time::sleep(pause) => pause = longer(pause),
            }
        }
    }

    /// Waits for the next attempt and asks again which image it uses.
    pub(crate) async fn retry(&mut self, at: Timestamp, give_up_at: Option<Timestamp>) -> Event {
        if self.launchable.is_none() {
            return self.interrupted();
        }
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            event = self.before_it_runs(give_up_at) => return event,
            () = sleep_until(&shared, Some(at)) => {}
        }
        let mut facts = facts::of_job(&self.job, shared.now());
        // The chain begins anew, with what was asked and not with what the last attempt used.
        facts.image_chosen.clone_from(&facts.image_asked);
        let ruling = shared
            .ports
            .policies
            .select_image(&facts, Purpose::Start)
            .await;
        self.record(ruling.decisions.clone());
        let asked = self.job.image_asked.clone();
        let permit = match shared.settle_choice(ruling, &asked) {
            Ok((image, origin)) => shared
                .gate
                .image(self.job.kind, &image, &origin)
                .map(|permit| (permit, origin))
                .map_err(|refusal| refusal.to_string()),
            Err(denied) => Err(format!(
                "policy {}: {}",
                denied.policy, denied.denial.message
            )),
        };
        match (permit, &mut self.launchable) {
            (Ok((permit, origin)), Some(launchable)) => {
                let image = permit.image().clone();
                launchable.permit = permit;
                launchable.image_origin = origin;
                Event::Known(Fact::NextAttempt { image })
            }
            (Err(why), _) => {
                warn!(%why, "no image for another attempt");
                self.waiting_for = why;
                Event::Known(Fact::Abandoned {
                    reason: EndReason::ImageRefused,
                })
            }
            (Ok(_), None) => self.interrupted(),
        }
    }

    /// Creates and starts the container, or finds out after a restart whether that happened.
    pub(crate) async fn launch(&mut self, start_by: Option<Timestamp>) -> Event {
        if self.launchable.is_none() {
            return self.find_after_restart().await;
        }
        let permit = match self.authorize() {
            Ok(permit) => permit,
            Err(why) => {
                warn!(%why, "the gate refused the launch");
                self.waiting_for = why;
                return Event::Known(Fact::Abandoned {
                    reason: EndReason::ImageRefused,
                });
            }
        };
        let ticket = self.ticket(start_by);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.shared.ports.runner.launch(&permit, &ticket).await {
                Ok(launched) if start_by.is_none() || self.answer.accept() => {
                    return Event::Known(Fact::Launched { at: launched.at });
                }
                // The answer was due and was given while the start was under way.
                Ok(_) => return self.too_late(),
                Err(error) => error,
            };
            self.waiting_for = error.to_string();
            match error {
                LaunchError::Withdrawn => {
                    return match start_by {
                        Some(by) if self.shared.now() >= by.minus(domain::LAST_START) => {
                            self.too_late()
                        }
                        _ => self.interrupted(),
                    };
                }
                LaunchError::ImageChanged { .. } => {
                    self.answer.reopen();
                    return self
                        .attempt_failed(EndReason::ImageRefused, self.waiting_for.clone())
                        .await;
                }
                LaunchError::Refused(_) | LaunchError::NameTaken { .. } => {
                    self.answer.reopen();
                    return self
                        .attempt_failed(EndReason::StartFailed, self.waiting_for.clone())
                        .await;
                }
                // It may have been created or even started: asking again finds that out.
                LaunchError::Engine(error) => {
                    warn!(%error, "the start is not certain; asking again");
                    if start_by.is_some_and(|by| self.shared.now() >= by) {
                        return self.too_late();
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => pause = longer(pause),
                        () = self.shared.ending.cancelled() => {
                            return if self.take_back().await { self.interrupted() } else { Event::Leave };
                        }
                    }
                }
            }
        }
    }

    fn authorize(&self) -> Result<LaunchPermit, String> {
        let launchable = self.launchable.as_ref().ok_or("its secrets are gone")?;
        let attempt = self.job.attempt();
        let image_id = attempt.image_id.clone().ok_or("its image is unknown")?;
        let plan = LaunchPlan {
            job: self.job.id.clone(),
            attempt: attempt.number,
            kind: self.job.kind,
            image: (attempt.image.clone(), launchable.image_origin.clone()),
            image_id,
            site_url: launchable.site_url.clone(),
            inputs: launchable.inputs.clone(),
        };
        self.shared
            .gate
            .authorize(plan)
            .map_err(|refusal| refusal.to_string())
    }

    fn ticket(&self, start_by: Option<Timestamp>) -> StartTicket {
        let Some(start_by) = start_by else {
            return StartTicket::new(|| true);
        };
        let last = start_by.minus(domain::LAST_START);
        let (answer, clock) = (
            Arc::clone(&self.answer),
            Arc::clone(&self.shared.ports.clock),
        );
        StartTicket::new(move || clock.now() < last && answer.admit())
    }

    async fn find_after_restart(&mut self) -> Event {
        match self.sight().await {
            None => Event::Leave,
            Some(Sighting::Absent | Sighting::Created) => self.interrupted(),
            Some(Sighting::Running { since }) => Event::Known(Fact::Launched { at: since }),
            Some(Sighting::Ended(exit)) => self.exited(exit).await,
            Some(Sighting::Lost) => self.lost(EndReason::RuntimeLost).await,
        }
    }

    /// Waits for the container's end or its deadline.
    pub(crate) async fn watch(&mut self, deadline: Timestamp) -> Event {
        loop {
            if let Some(event) = self.ended().await {
                return event;
            }
            let (shared, name) = (Arc::clone(&self.shared), self.container());
            tokio::select! {
                () = changed(&shared, &name) => {}
                () = sleep_until(&shared, Some(deadline)) => {
                    return self.stop_requested(StopCause::Deadline);
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Stop(reply) => {
                        self.stoppers.push(reply);
                        return self.stop_requested(StopCause::Admin);
                    }
                    command @ Command::Delete(_) => Self::refuse_command(command),
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
                    warn!(%error, "could not signal the container; trying again");
                    now.plus(SIGNAL_AGAIN)
                }
            };
            tokio::select! {
                () = changed(&shared, &name) => {}
                () = sleep_until(&shared, Some(look_again)) => {}
                Some(command) = self.commands.recv() => match command {
                    Command::Stop(reply) => drop(reply.send(Ok(()))),
                    command @ Command::Delete(_) => Self::refuse_command(command),
                },
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }

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
        loop {
            tokio::select! {
                () = sleep_until(&shared, until) => {
                    // Timers may wake a little early; the machine compares with the saved time.
                    if until.is_some_and(|until| shared.now() >= until) {
                        return Event::Known(Fact::KeepingOver);
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Some(command) = self.commands.recv() => match command {
                    // Whoever asked and was told otherwise meanwhile does not ask any more.
                    Command::Delete(reply) if reply.is_closed() => {}
                    Command::Delete(reply) => {
                        self.deleters.push(reply);
                        return Event::Known(Fact::DeleteRequested);
                    }
                    command @ Command::Stop(_) => Self::refuse_command(command),
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
                    warn!(%error, container = %name, "could not remove; trying again");
                    tokio::time::sleep(pause).await;
                    pause = longer(pause);
                }
            }
        };
        tokio::pin!(removal);
        loop {
            tokio::select! {
                () = &mut removal => return Event::Known(Fact::Cleared),
                Some(command) = self.commands.recv() => match command {
                    Command::Delete(reply) if reply.is_closed() => {}
                    Command::Delete(reply) => {
                        self.deleters.push(reply);
                        if !forget {
                            return Event::Known(Fact::DeleteRequested);
                        }
                    }
                    command @ Command::Stop(_) => Self::refuse_command(command),
                },
                () = shared.ending.cancelled() => return Event::Leave,
            }
        }
    }

    /// Resolves with what ends a start before it runs: nobody waits any more, the time is over,
    /// or an administrator says so.
    async fn before_it_runs(&mut self, give_up_at: Option<Timestamp>) -> Event {
        let shared = Arc::clone(&self.shared);
        let answered = self.job.ever_ran();
        loop {
            tokio::select! {
                biased;
                () = self.answer.given_up(), if !answered => return self.interrupted(),
                () = shared.ending.cancelled(), if answered => return Event::Leave,
                () = sleep_until(&shared, give_up_at) => return self.too_late(),
                Some(command) = self.commands.recv() => match command {
                    Command::Stop(reply) => {
                        let _ = reply.send(Ok(()));
                        self.waiting_for = "an administrator stopped it".into();
                        return Event::Known(Fact::Abandoned { reason: EndReason::StoppedByAdmin });
                    }
                    command @ Command::Delete(_) => Self::refuse_command(command),
                },
            }
        }
    }

    fn interrupted(&self) -> Event {
        Event::Known(Fact::Abandoned {
            reason: EndReason::Interrupted,
        })
    }

    fn too_late(&self) -> Event {
        self.answer.refuse();
        Event::Known(Fact::Abandoned {
            reason: EndReason::StartTimeout,
        })
    }

    /// An attempt failed before its container ran: asks whether another follows.
    async fn attempt_failed(&mut self, reason: EndReason, why: String) -> Event {
        warn!(%reason, %why, attempt = self.job.attempt().number, "attempt failed");
        self.waiting_for = why;
        let failed = Fact::AttemptFailed {
            reason,
            retry: None,
        };
        let retry = self.ask_retry(&failed).await;
        Event::Known(Fact::AttemptFailed { reason, retry })
    }

    /// The container ended: finds out what became of the work, and, where the operator allows it
    /// after a run, whether another attempt follows.
    async fn exited(&mut self, exit: Exit) -> Event {
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

    async fn lost(&mut self, reason: EndReason) -> Event {
        match self.delivery(None).await {
            Some(delivery) => Event::Known(Fact::Lost { reason, delivery }),
            None => Event::Leave,
        }
    }

    /// Asks policy and gate whether another attempt follows `failed`, where one is permitted.
    async fn ask_retry(&mut self, failed: &Fact) -> Option<Duration> {
        let shared = Arc::clone(&self.shared);
        let (now, kind) = (shared.now(), self.job.kind);
        // Asked about the job as it will be, with the failed attempt closed.
        let job = step(&self.job, failed, now).ok()?;
        let (attempts, ran) = (job.attempt().number, job.ever_ran());
        let probe = RetryVerdict::RetryAfter(Duration::ZERO);
        let late = !ran && now >= job.start_by.minus(domain::LAST_START);
        if late
            || shared
                .gate
                .retry(kind, probe, None, attempts, ran)
                .0
                .is_none()
        {
            return None;
        }
        let ruling = shared.ports.policies.retry(&facts::of_job(&job, now)).await;
        self.record(ruling.decisions);
        let (pause, refusal) =
            shared
                .gate
                .retry(kind, ruling.verdict, ruling.by.as_deref(), attempts, ran);
        if let Some(refusal) = refusal {
            warn!(%refusal, "retry bounded");
        }
        pause
    }

    /// Whether the gate allows an attempt after one that ran, so that secrets have to be kept.
    pub(crate) fn may_run_again(&self) -> bool {
        let probe = RetryVerdict::RetryAfter(Duration::ZERO);
        let attempts = self.job.attempt().number;
        self.shared
            .gate
            .retry(self.job.kind, probe, None, attempts, true)
            .0
            .is_some()
    }

    /// How the container is, once the engine says so; `None` when the service ends first.
    async fn sight(&self) -> Option<Sighting> {
        let name = self.container();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.shared.ports.runner.inspect(&name).await {
                Ok(sighting) => return Some(sighting),
                Err(error) => warn!(%error, "cannot look at the container; the job stays as it is"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = longer(pause),
                () = self.shared.ending.cancelled() => return None,
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
                    warn!(%error, "cannot look at what the container left");
                    looks += u32::from(!error.unreachable);
                }
            }
            if looks >= LOOKS {
                return Some(None);
            }
            tokio::select! {
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
        warn!(%error, "cannot wait for the container's end; trying again");
        tokio::time::sleep(pause).await;
        pause = longer(pause);
        if shared.ports.runner.inspect(name).await.is_ok() {
            return;
        }
    }
}
