//! The task of one job: find its duty, carry it out, save what came of it, again.

use std::sync::Arc;
use std::time::Duration;

use domain::{Decision, Duty, EndReason, Fact, ImageId, Job, SiteUrl, State, Timestamp};
use futures_util::FutureExt as _;
use gate::{ContainerName, ImagePermit, LaunchPlan, Origin};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::answer::{Answer, NotStarted, Waiter};
use crate::engine::Shared;
use crate::live::{Command, Live};
use crate::measure::{self, Counted};
use crate::resend::Source;
use crate::rules::{duty, step};
use crate::sleep::Asleep;
use crate::submit::AllInputs;
use crate::supervise::supervise;
use crate::{DeleteError, FaultPoint, JobView, ResendError, StopError};

/// The pause before something that failed is tried again: grows from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How long the end of a job waits to be saved with what follows. Until then it has its slot.
const PROMPT: Duration = Duration::from_millis(100);

/// How long it is tried to take a start back before the client is answered.
const TAKING_BACK: Duration = Duration::from_secs(10);

/// What a launch needs beside the job itself. Holds secrets, so it lives in memory only and is
/// dropped as soon as the container has them.
pub(crate) struct Launchable {
    pub(crate) permit: ImagePermit,
    pub(crate) image_origin: Origin,
    pub(crate) site_url: Option<(SiteUrl, Origin)>,
    pub(crate) inputs: AllInputs,
    /// What it is to send in again, if that is all it is to do.
    pub(crate) source: Option<Source>,
}

/// All that the current attempt of a job wants to do.
pub(crate) fn launch_plan(job: &Job, launchable: &Launchable, image_id: ImageId) -> LaunchPlan {
    let attempt = job.attempt();
    let resends = launchable.source.as_ref();
    LaunchPlan {
        job: job.id.clone(),
        attempt: attempt.number,
        kind: job.kind,
        client: job.client.clone(),
        submitted_at: job.submitted_at,
        max_duration: job.max_duration,
        image: (attempt.image.clone(), launchable.image_origin.clone()),
        image_id,
        site_url: launchable.site_url.clone(),
        inputs: launchable.inputs.clone(),
        resends: resends.map(|source| (source.job.clone(), source.attempt)),
    }
}

/// What came of a duty.
pub(crate) enum Event {
    /// Something is known now.
    Known(Fact),
    /// The service ends; the duty is taken up after the restart.
    Leave,
    /// There is nothing to do for long; the duty is taken up when there is.
    Asleep,
}

pub(crate) struct JobLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) job: Arc<Job>,
    /// The job as the store has it and everybody else sees it.
    saved: Arc<Job>,
    /// Whether its end is not left to be saved with what follows.
    ends_alone: bool,
    /// `None` once it has fallen asleep.
    counted: Option<Counted>,
    /// When it was warned last of the end of its keeping, if it was.
    pub(crate) warned_at: Option<Timestamp>,
    decisions: Vec<Decision>,
    unsaved: Vec<Decision>,
    view: watch::Sender<Arc<JobView>>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) answer: Arc<Answer>,
    /// `None` after a restart, and once the container has it.
    pub(crate) launchable: Option<Launchable>,
    /// What stands in the way of a start, for the client's answer.
    pub(crate) waiting_for: String,
    pub(crate) stoppers: Vec<oneshot::Sender<Result<(), StopError>>>,
    pub(crate) deleters: Vec<oneshot::Sender<Result<(), DeleteError>>>,
    /// Jobs that wait until it is saved that they have sent in what this one kept.
    pub(crate) resenders: Vec<oneshot::Sender<()>>,
}

/// Nobody finds a task that has ended, however it ended; a job that sleeps is found as such.
impl Drop for JobLoop {
    fn drop(&mut self) {
        if self.counted.is_some() {
            self.shared.live.remove(&self.job.id);
        }
    }
}

impl JobLoop {
    /// The task of a job that was accepted just now, and its first waiting client.
    pub(crate) fn fresh(
        shared: &Arc<Shared>,
        view: Arc<JobView>,
        launchable: Launchable,
    ) -> (Self, Waiter) {
        let answer = Answer::open();
        let waiter = answer.wait().expect("nobody has refused a new answer");
        (Self::new(shared, view, answer, Some(launchable)), waiter)
    }

    /// The task of a job whose last one panicked, with the answer that its clients wait for.
    pub(crate) fn taken_up_again(
        shared: &Arc<Shared>,
        view: Arc<JobView>,
        answer: Arc<Answer>,
    ) -> Self {
        let mut again = Self::new(shared, view, answer, None);
        // It may have been what follows its end that panicked.
        again.ends_alone = true;
        again
    }

    /// The task of a job found in the store, after a restart or because it slept.
    pub(crate) fn recovered(shared: &Arc<Shared>, view: Arc<JobView>) -> Self {
        Self::new(shared, view, Answer::given(), None)
    }

    fn new(
        shared: &Arc<Shared>,
        view: Arc<JobView>,
        answer: Arc<Answer>,
        launchable: Option<Launchable>,
    ) -> Self {
        let (sender, commands) = mpsc::channel(8);
        let sink = watch::Sender::new(Arc::clone(&view));
        let live = Live {
            view: sink.subscribe(),
            commands: sender,
            answer: Arc::clone(&answer),
        };
        let (warned_at, counted) = match shared.live.insert(Arc::new(live)) {
            Some(asleep) => (asleep.warned_at, asleep.counted),
            None => (None, Counted::new(&view.job, &shared.removals)),
        };
        Self {
            shared: Arc::clone(shared),
            job: Arc::clone(&view.job),
            saved: Arc::clone(&view.job),
            ends_alone: false,
            counted: Some(counted),
            warned_at,
            decisions: view.decisions.clone(),
            unsaved: Vec::new(),
            view: sink,
            commands,
            answer,
            launchable,
            waiting_for: String::new(),
            stoppers: Vec::new(),
            deleters: Vec::new(),
            resenders: Vec::new(),
        }
    }

    /// Lets the job sleep, if nobody is about to ask something of it.
    pub(crate) fn fall_asleep(&mut self, alarm: Option<Timestamp>) -> bool {
        let Some(counted) = self.counted.take() else {
            return false;
        };
        let asleep = Asleep {
            alarm,
            warned_at: self.warned_at,
            counted,
        };
        let kept_awake = self.shared.live.fall_asleep(&self.job.id, asleep).err();
        self.counted = kept_awake.map(|asleep| asleep.counted);
        self.counted.is_none()
    }

    /// Lets the task run until its job has no duty left, sleeps, or the service ends.
    pub(crate) fn spawn(self) {
        let span = info_span!(parent: None, "job", id = %self.job.id, kind = %self.job.kind);
        let tasks = self.shared.tasks.clone();
        tasks.spawn(supervise(self).instrument(span));
    }

    /// Does what there is to do until the job has no duty left, sleeps, or the service ends.
    pub(crate) async fn run(mut self) {
        loop {
            let unsaved_end = self.saved.state.end().is_none() && self.job.state.end().is_some();
            // Boxed, so that a task that waits for long takes the room of that alone.
            let work = match duty(&self.job) {
                Duty::Prepare { give_up_at } => self.prepare(give_up_at).boxed(),
                Duty::Retry { at, give_up_at } => self.retry(at, give_up_at).boxed(),
                Duty::Launch { start_by } => self.launch(start_by).boxed(),
                Duty::Watch { deadline } => self.watch(deadline).boxed(),
                Duty::Stop { kill_at } => self.stop(kill_at).boxed(),
                Duty::Settle { end } => self.settle(end).boxed(),
                Duty::Keep { until } => self.keep(until).boxed(),
                Duty::Remove { forget } => self.remove(forget).boxed(),
                Duty::Rest => break,
            };
            let event = match unsaved_end {
                true => tokio::time::timeout(PROMPT, work).await.ok(),
                false => Some(work.await),
            };
            match event {
                Some(Event::Known(fact)) => {
                    if !self.apply(fact).boxed().await {
                        break;
                    }
                }
                Some(Event::Leave | Event::Asleep) => break,
                None => self.go_back(),
            }
        }
        // A start that is not certain is not answered for: the client's connection ends with the
        // service, and the restart finds out.
        if !matches!(self.saved.state, State::Starting) {
            self.answer.tell(Err(self.not_started()));
        }
    }

    /// Whether a state is the end of a job and is saved together with what follows: nothing comes
    /// between them but the decision what becomes of data that nobody needs.
    fn end_can_wait(&self, next: &Job) -> bool {
        let unneeded = |end: domain::End| !end.delivery.may_be_unsent();
        matches!(next.state, State::Ended(end) if unneeded(end))
            && self.saved.state.end().is_none()
            && self.job.resends.is_none()
            && !self.ends_alone
    }

    /// Begins anew with what is saved, as after a crash: the end is seen again.
    fn go_back(&mut self) {
        self.job = Arc::clone(&self.saved);
        self.unsaved.clear();
        self.ends_alone = true;
    }

    /// Takes a fact: step, save, tell. False when the task has to end.
    async fn apply(&mut self, fact: Fact) -> bool {
        let next = match step(&self.job, &fact, self.shared.now()) {
            Ok(next) => Arc::new(next),
            Err(illegal) => {
                // Only a fault of ours can lead here. The job stays as it is and its duty is
                // tried again, slowly.
                error!(%illegal, "a fact does not fit the job");
                tokio::time::sleep(BACKOFF.1).await;
                return !self.shared.ending.is_cancelled();
            }
        };
        if let (State::Removing { forget: true, .. }, Fact::Cleared) = (self.job.state, &fact) {
            return self.forget(next).await;
        }
        if self.end_can_wait(&next) {
            self.job = next;
            return true;
        }
        let next = match self.save(next, &fact).await {
            Saved::Yes(next) => next,
            Saved::Never => {
                if matches!(fact, Fact::Launched { .. }) {
                    self.take_back().await;
                }
                let reason = EndReason::StartFailed;
                let detail = self.waiting_for.clone();
                self.answer.tell(Err(NotStarted { reason, detail }));
                return Box::pin(self.apply(Fact::Abandoned { reason })).await;
            }
            Saved::Leave => {
                if matches!(fact, Fact::Launched { .. }) && self.launchable.is_some() {
                    self.take_back().await;
                }
                return false;
            }
        };
        log_transition(&self.saved, &next);
        if let Some(counted) = &mut self.counted {
            counted.follow(&self.saved, &next, self.shared.now());
        }
        self.saved = Arc::clone(&next);
        self.job = next;
        self.publish();
        true
    }

    /// Saves the next state; tries again until the store takes it. A start that cannot be saved
    /// in time is not begun, and one that was begun is taken back: a client is told of success
    /// only when it is durable.
    async fn save(&mut self, next: Arc<Job>, fact: &Fact) -> Saved {
        // A container found after a restart was answered for before; only a fresh one has to be
        // saved in time.
        let fresh = self.launchable.is_some() && !self.job.ever_ran();
        let due = match next.state {
            State::Starting | State::Running { .. } if fresh => Some(self.job.start_by),
            _ => None,
        };
        match (self.saved.state.end(), next.state) {
            (_, State::Running { .. }) => FaultPoint::RunningUnsaved.reach(),
            (None, is) if is.end().is_some() && next.ever_ran() => FaultPoint::EndUnsaved.reach(),
            _ => {}
        }
        let mut pause = BACKOFF.0;
        loop {
            let commit = self
                .shared
                .ports
                .store
                .commit(Arc::clone(&next), self.unsaved.clone());
            let error = tokio::select! {
                biased;
                result = commit => match result {
                    Ok(()) => {
                        self.decisions.append(&mut self.unsaved);
                        return Saved::Yes(next);
                    }
                    Err(error) => error.to_string(),
                },
                // The store keeps its order: should it come to this commit yet, the next one
                // follows it.
                () = sleep_until(&self.shared, due) => "the store takes too long".to_owned(),
            };
            error!(%error, fact = fact.name(), "could not save the job");
            self.waiting_for = error;
            if due.is_some_and(|due| self.shared.now() >= due) {
                return Saved::Never;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => pause = longer(pause),
                () = self.shared.ending.cancelled() => return Saved::Leave,
            }
        }
    }

    /// Removes a container that runs and must not. True when that is certain; what is not is left
    /// to the duty of the job's next state.
    pub(crate) async fn take_back(&mut self) -> bool {
        let name = self.container();
        let removal = self.shared.remove(&name);
        tokio::time::timeout(TAKING_BACK, removal).await.is_ok()
    }

    async fn forget(&mut self, next: Arc<Job>) -> bool {
        let mut pause = BACKOFF.0;
        while let Err(error) = self.shared.forget(&next).await {
            error!(%error, "could not remove the job's record; trying again");
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => pause = longer(pause),
                () = self.shared.ending.cancelled() => return false,
            }
        }
        info!("deleted");
        self.job = next;
        for deleter in self.deleters.drain(..) {
            let _ = deleter.send(Ok(()));
        }
        true
    }

    /// Shows the new state to everybody, and answers those who waited for it.
    fn publish(&mut self) {
        let view = Arc::new(JobView {
            job: Arc::clone(&self.job),
            decisions: self.decisions.clone(),
        });
        self.view.send_replace(Arc::clone(&view));
        match self.job.state {
            State::Running { .. } => {
                self.answer.tell(Ok(view));
                if !self.may_run_again() {
                    self.launchable = None;
                }
            }
            State::Stopping { .. } => {
                for stopper in self.stoppers.drain(..) {
                    let _ = stopper.send(Ok(()));
                }
            }
            // Told only now: what an unfinished start may have left in the engine is gone.
            State::Removed { .. } if !self.job.ever_ran() => {
                self.answer.tell(Err(self.not_started()));
            }
            is if is.end().is_some() && self.job.ever_ran() => {
                // It ran, if only for a moment.
                self.answer.tell(Ok(view));
                self.launchable = None;
                for stopper in self.stoppers.drain(..) {
                    let _ = stopper.send(Err(StopError::NotRunning));
                }
                for resender in self.resenders.drain(..) {
                    let _ = resender.send(());
                }
            }
            _ => {}
        }
    }

    fn not_started(&self) -> NotStarted {
        let reason = self
            .job
            .state
            .end()
            .map_or(EndReason::Interrupted, |end| end.reason);
        NotStarted {
            reason,
            detail: self.waiting_for.clone(),
        }
    }

    /// Keeps decisions to be saved with the next state.
    pub(crate) fn record(&mut self, decisions: Vec<Decision>) {
        self.unsaved.extend(decisions);
    }

    /// The container of the current attempt.
    pub(crate) fn container(&self) -> ContainerName {
        self.shared
            .gate
            .container_name(&self.job.id, self.job.attempt().number)
    }

    /// A refusal, for commands that come before the end, or to stop what has ended.
    pub(crate) fn refuse_command(command: Command) {
        match command {
            Command::Stop(reply) | Command::Kill(reply) => {
                drop(reply.send(Err(StopError::NotRunning)));
            }
            Command::Delete(reply) => drop(reply.send(Err(DeleteError::Running))),
            Command::Resend(asked) => asked.refuse(ResendError::Running),
            // To be told again: how this one ended is not known yet.
            Command::Resent(reply) => drop(reply),
        }
    }
}

impl Shared {
    /// Removes a container and its volume, however often that takes.
    pub(crate) async fn remove(&self, name: &ContainerName) {
        let mut pause = BACKOFF.0;
        while let Err(error) = self.ports.runner.remove(name).await {
            measure::engine_error(&error);
            warn!(%error, container = %name, "could not remove; trying again");
            tokio::time::sleep(pause).await;
            pause = longer(pause);
        }
    }
}

enum Saved {
    Yes(Arc<Job>),
    /// Not in the time that there was.
    Never,
    /// The service ends.
    Leave,
}

pub(crate) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(BACKOFF.1)
}

/// The first pause before a further try.
pub(crate) const FIRST_PAUSE: Duration = BACKOFF.0;

/// Sleeps until a time; for ever when there is none.
pub(crate) async fn sleep_until(shared: &Shared, at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(at.after(shared.now())).await,
        None => std::future::pending().await,
    }
}

fn log_transition(before: &Job, after: &Job) {
    let attempt = after.attempt();
    let (from, to) = (
        before.state.lifecycle().as_str(),
        after.state.lifecycle().as_str(),
    );
    match after.state {
        State::Ended(end) if end.delivery.may_be_unsent() && after.resends.is_some() => warn!(
            from, to, reason = %end.reason, outcome = end.outcome.as_str(), delivery = ?end.delivery,
            "what another job left was not sent in; that one keeps it"
        ),
        State::Ended(end) if end.delivery.may_be_unsent() => warn!(
            from, to, reason = %end.reason, outcome = end.outcome.as_str(), delivery = ?end.delivery,
            "the job's work was not delivered; its volume holds the only copy"
        ),
        State::Ended(end)
        | State::Retained { end, .. }
        | State::Removing { end, forget: false } => info!(
            from, to, reason = %end.reason, outcome = end.outcome.as_str(), attempt = attempt.number, "job"
        ),
        State::Waiting { until } => info!(
            from,
            to,
            reason = attempt.reason.map(tracing::field::display),
            attempt = attempt.number,
            until_unix_ms = until.as_millis(),
            "attempt failed before its container ran; another follows"
        ),
        _ => info!(from, to, attempt = attempt.number, "job"),
    }
}
