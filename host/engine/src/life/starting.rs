//! Duties before the container runs: image, pause, start.

use std::sync::Arc;
use std::time::Duration;

use domain::{EndReason, Fact, ImageId, Purpose, RetryVerdict, Timestamp};
use gate::LaunchPermit;
use tracing::warn;

use crate::job_loop::{Event, FIRST_PAUSE, JobLoop, launch_plan, longer, sleep_until};
use crate::live::Command;
use crate::rules::step;
use crate::{FaultPoint, LaunchError, PrepareError, Sighting, StartTicket, facts, measure};

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
                Ok(image_id) if self.may_use(&image_id) => {
                    return Event::Known(Fact::Prepared { image_id });
                }
                Ok(image_id) => {
                    let why = format!(
                        "image {}: it is {image_id} by now, and another one did the work",
                        permit.image()
                    );
                    return self.attempt_failed(EndReason::ImageRefused, why).await;
                }
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
                    measure::engine_error(&error);
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

    /// Whether the image of that id will do.
    fn may_use(&self, image_id: &ImageId) -> bool {
        let launchable = self.launchable.as_ref();
        let source = launchable.and_then(|launchable| launchable.source.as_ref());
        source.is_none_or(|source| source.image_id == *image_id)
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
        self.waiting_for = "waiting for the container to start".to_owned();
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
        let give_up = self.shared.now().plus(self.shared.config.start_timeout);
        let mut pause = FIRST_PAUSE;
        loop {
            let may_have_run = ticket.was_given();
            let launched = self.shared.ports.runner.launch(&permit, &ticket).await;
            if launched.is_ok() {
                FaultPoint::AfterStart.reach();
            }
            let error = match launched {
                // What runs only now is too late: its answer may be due before it could be saved.
                Ok(_) if start_by.is_some_and(|by| self.shared.now() >= by) => {
                    return self.too_late();
                }
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
                // It may have run, so no other attempt follows.
                LaunchError::ImageChanged { .. }
                | LaunchError::Refused(_)
                | LaunchError::NameTaken { .. }
                    if may_have_run =>
                {
                    return Event::Known(Fact::Abandoned {
                        reason: EndReason::RemovedByHand,
                    });
                }
                LaunchError::Gone => {
                    return Event::Known(Fact::Abandoned {
                        reason: EndReason::RemovedByHand,
                    });
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
                    measure::engine_error(&error);
                    warn!(%error, "the start is not certain; asking again");
                    if start_by.is_some_and(|by| self.shared.now() >= by) {
                        return self.too_late();
                    }
                    // Nobody waits for a further attempt, and yet it has to come to an end.
                    if start_by.is_none() && self.shared.now() >= give_up && self.take_back().await
                    {
                        return Event::Known(Fact::Abandoned {
                            reason: EndReason::StartFailed,
                        });
                    }
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(pause) => pause = longer(pause),
                        () = self.shared.ending.cancelled() => {
                            // Nobody is to be answered about a further attempt: what may work by now
                            // goes on, and the next start finds out.
                            let taken_back = start_by.is_some() && self.take_back().await;
                            return if taken_back { self.interrupted() } else { Event::Leave };
                        }
                    }
                }
            }
        }
    }

    fn authorize(&self) -> Result<LaunchPermit, String> {
        let launchable = self.launchable.as_ref().ok_or("its secrets are gone")?;
        let image_id = self.job.attempt().image_id.clone();
        let image_id = image_id.ok_or("its image is unknown")?;
        let plan = launch_plan(&self.job, launchable, image_id);
        self.shared
            .gate
            .authorize(plan)
            .map_err(|refusal| refusal.to_string())
    }

    fn ticket(&self, start_by: Option<Timestamp>) -> StartTicket {
        let Some(start_by) = start_by else {
            return StartTicket::new(|| {
                FaultPoint::AfterCreate.reach();
                true
            });
        };
        let last = start_by.minus(domain::LAST_START);
        let (answer, clock) = (
            Arc::clone(&self.answer),
            Arc::clone(&self.shared.ports.clock),
        );
        StartTicket::new(move || {
            FaultPoint::AfterCreate.reach();
            clock.now() < last && answer.admit()
        })
    }

    /// Whether what was started, and never saved as running, may go on. Once its time is over its
    /// clients may have been told that it does not run, also before a restart.
    fn may_adopt(&self) -> bool {
        self.shared.now() < self.job.start_by && self.answer.adopt()
    }

    async fn find_after_restart(&mut self) -> Event {
        match self.sight().await {
            None => Event::Leave,
            Some(Sighting::Absent | Sighting::Created) => self.never_began().await,
            Some(Sighting::Running { since }) if self.job.ever_ran() || self.may_adopt() => {
                Event::Known(Fact::Launched { at: since })
            }
            // Its clients were told otherwise since then.
            Some(Sighting::Running { .. }) => self.too_late(),
            Some(Sighting::Ended(exit)) => self.exited(exit).await,
            Some(Sighting::Lost) => self.lost(EndReason::RuntimeLost).await,
        }
    }

    /// The end of an attempt whose start was under way when the service died, and may be carried out
    /// yet. Nothing stays of a job that never ran; but what earlier attempts left may be kept, and
    /// would be with a container that runs late.
    async fn never_began(&self) -> Event {
        if self.job.ever_ran() {
            let name = self.container();
            tokio::select! {
                biased;
                () = self.shared.remove(&name) => {}
                () = self.shared.ending.cancelled() => return Event::Leave,
            }
        }
        self.interrupted()
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
                    Command::Stop(reply) | Command::Kill(reply) => {
                        let _ = reply.send(Ok(()));
                        self.waiting_for = "an administrator stopped it".into();
                        return Event::Known(Fact::Abandoned { reason: EndReason::StoppedByAdmin });
                    }
                    command => Self::refuse_command(command),
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

    /// Asks policy and gate whether another attempt follows `failed`, where one is permitted.
    pub(super) async fn ask_retry(&mut self, failed: &Fact) -> Option<Duration> {
        // Whoever wants it sent in again sees how that went, and can ask once more.
        if self.job.resends.is_some() {
            return None;
        }
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
        if self.job.resends.is_some() {
            return false;
        }
        let probe = RetryVerdict::RetryAfter(Duration::ZERO);
        let attempts = self.job.attempt().number;
        self.shared
            .gate
            .retry(self.job.kind, probe, None, attempts, true)
            .0
            .is_some()
    }
}
