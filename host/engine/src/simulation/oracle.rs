//! What is promised, checked at every effect and when all is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::{Delivery, End, Job, JobId, RegistrationId, State, StopCause, Timestamp};
use gate::ContainerName;

use super::setup::START_TIMEOUT;
use super::world::World;
use crate::{Engine, JobView};

/// The longest that any answer may take, in milliseconds: the client gives up after 120 s.
const ANSWER: u64 = 115_000;
/// Timers are that exact, in milliseconds.
const EXACT: u64 = 20;
/// For so long after the last fault it may be late with what the fault hindered.
const EXCUSED: u64 = 60_000;
/// What is due at a time is done by so much later, when nothing hinders it.
const OVERDUE: Duration = Duration::from_secs(30);

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Oracle {
    /// The first thing that was not as promised.
    pub(crate) violation: Option<String>,
    pub(crate) removed_by_hand: BTreeSet<ContainerName>,
    /// Containers that the service removed before anybody was told that they run.
    taken_back: BTreeSet<ContainerName>,
    /// What a client or an administrator asked for, whatever they were told.
    asked_to_delete: BTreeMap<JobId, u32>,
    pub(crate) asked_to_stop: BTreeSet<JobId>,
    /// When each container was started, in milliseconds of the history.
    started: BTreeMap<ContainerName, u64>,
    /// Jobs whose clients were told that nothing of them runs or will.
    refused: BTreeSet<JobId>,
    /// Jobs whose clients were told that they run.
    granted: BTreeSet<JobId>,
    /// Each job as it was committed, again and again.
    versions: BTreeMap<JobId, Vec<Arc<Job>>>,
    /// When each job changed the last time, or one that sends in again what it left: in milliseconds
    /// of the history.
    changed: BTreeMap<JobId, u64>,
    /// Jobs about whose data no policy minded.
    passed: BTreeMap<String, bool>,
    /// When each job may be killed, in milliseconds of the history.
    kill_at: BTreeMap<JobId, u64>,
}

impl Oracle {
    pub(crate) fn decided(&mut self, job: &str, passed: bool) {
        self.passed.insert(job.to_owned(), passed);
    }

    /// Somebody asks to delete a job.
    pub(crate) fn asks_to_delete(&mut self, job: &JobId) {
        *self.asked_to_delete.entry(job.clone()).or_default() += 1;
    }

    /// Somebody who asked to was refused.
    pub(crate) fn asked_in_vain(&mut self, job: &JobId) {
        if let Some(times) = self.asked_to_delete.get_mut(job) {
            *times -= 1;
            if *times == 0 {
                self.asked_to_delete.remove(job);
            }
        }
    }

    /// A job as it was accepted.
    pub(crate) fn submitted(&self, job: &JobId) -> Option<&Arc<Job>> {
        self.versions.get(job)?.first()
    }
}

fn container_of(job: &Job) -> impl Fn(&ContainerName) -> bool {
    let id = job.id.clone();
    move |name| *name.job() == id
}

impl World {
    fn excused(&self) -> bool {
        self.memory.down || self.engine_down || self.now() < self.trouble_at + EXCUSED
    }

    fn runs(&self, job: &JobId) -> bool {
        let ours = |(name, container): (&ContainerName, &super::world::Container)| {
            name.job() == job && container.ours && container.runs()
        };
        self.containers.iter().any(ours)
    }

    /// Jobs of which something is left and that send in again what job `id` left.
    fn resends_of<'a>(&'a self, id: &'a JobId) -> impl Iterator<Item = &'a Arc<Job>> {
        let left = |job: &&Arc<Job>| !matches!(job.state, State::Removed { .. });
        let resends = move |job: &&Arc<Job>| job.resends.as_ref() == Some(id);
        self.memory.jobs.iter().filter(left).filter(resends)
    }

    /// Until when what a job left is kept, or its removal waits, for those that use it: the last of
    /// those that are kept themselves.
    fn held_until(&self, job: &Job) -> Option<Timestamp> {
        let until = |job: &Arc<Job>| match job.state {
            State::Retained { until, .. } => until,
            _ => None,
        };
        self.resends_of(&job.id).filter_map(until).max()
    }

    /// What is wrong with a job that sends in again what another one left.
    fn wrong_with_resend(
        &self,
        before: Option<&Job>,
        job: &Job,
        of: &JobId,
    ) -> Option<&'static str> {
        if job.attempts.len() > 1 {
            return Some("another attempt, though nobody waits for one");
        }
        let source = self.memory.job(of);
        let Some(before) = before else {
            let known_owner = job.owner != RegistrationId(0);
            let is_over = |other: &Job| match other.state {
                State::Retained { .. } => true,
                // Somebody deletes one that was kept.
                State::Removing { .. } => other.ever_ran(),
                _ => false,
            };
            let under_way = |other: &&Arc<Job>| other.id != job.id && !is_over(other);
            return if known_owner && !source.is_some_and(|source| source.keeps_unsent()) {
                Some("there is nothing to send")
            } else if known_owner && self.resends_of(of).any(|other| under_way(&other)) {
                Some("another one is at it")
            } else {
                None
            };
        };
        let end = match (before.state, job.state) {
            (State::Ended(end), is) if !matches!(is, State::Ended(_)) => Some(end),
            _ => None,
        };
        let delivered = end.is_some_and(|end| end.delivery == Delivery::Delivered);
        (delivered && source.is_some_and(|source| source.keeps_unsent()))
            .then_some("what it sent in still counts as unsent")
    }

    /// The ticket said yes: the container of `name` is about to be started.
    pub(crate) fn saw_leave(&mut self, name: &ContainerName) {
        let now = self.service_now();
        let wrong = match self.memory.job(name.job()) {
            None => Some("an unknown job".to_owned()),
            Some(_) if self.oracle.refused.contains(name.job()) => {
                Some("a job whose client was told otherwise".to_owned())
            }
            Some(job) if job.state != State::Starting => {
                Some(format!("a job that is {}", job.state.lifecycle().as_str()))
            }
            Some(job) if job.attempt().number != name.attempt() => {
                Some("another attempt than the current one".to_owned())
            }
            Some(job) if !job.ever_ran() && now >= job.start_by.minus(domain::LAST_START) => {
                Some("a job that it is too late for".to_owned())
            }
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            self.violate(|_| format!("leave to start {name}, {wrong}"));
        }
    }

    pub(crate) fn saw_start(&mut self, name: &ContainerName) {
        let now = self.now();
        if let Some(before) = self.oracle.started.insert(name.clone(), now) {
            self.violate(|_| format!("{name} is started again; it was at {before} ms"));
        }
        self.oracle.taken_back.remove(name);
        let job = name.job();
        let attempts = self.oracle.started.keys().filter(|n| n.job() == job);
        if attempts.count() > 1 && !self.setup.after_run {
            self.violate(|_| format!("a second container of job {job} was started"));
        }
        if self.oracle.refused.contains(job) && !self.excused() {
            self.violate(|_| format!("{name} starts after its client was told it would not"));
        }
        if let Some(volume_of) = self.containers.get(name).map(|c| c.volume_of.clone()) {
            let works_on_it = |(other, c): (&ContainerName, &super::world::Container)| {
                other != name && c.ours && c.runs() && c.volume_of == volume_of
            };
            if self.containers.iter().any(works_on_it) {
                self.violate(|_| format!("{name} is the second at work on one volume"));
            }
            if volume_of != *name && !self.setup.offers_resend {
                self.violate(|_| format!("{name} is to resend, and its image does not offer it"));
            }
        }
        let running = self.containers.values().filter(|c| c.ours && c.runs());
        if running.count() > self.setup.slots as usize && !self.excused() {
            self.violate(|world| format!("more containers run than {} slots", world.setup.slots));
        }
    }

    pub(crate) fn saw_signal(&mut self, name: &ContainerName, kill: bool) {
        match self.containers.get(name) {
            Some(container) if container.runs() && !container.ours => {
                return self.violate(|_| format!("{name} is signalled, and is somebody else's"));
            }
            Some(container) if container.runs() => {}
            _ => return,
        }
        let job = self.memory.job(name.job()).cloned();
        let Some(State::Stopping { kill_at, cause, .. }) = job.as_ref().map(|job| job.state) else {
            let state = job.map(|job| job.state);
            return self.violate(|_| format!("{name} is signalled, and its job is {state:?}"));
        };
        if kill {
            let asked = self.oracle.kill_at.get(name.job()).copied();
            if self.service_now() < kill_at || asked.is_none_or(|at| self.now() + EXACT < at) {
                self.violate(|_| format!("{name} is killed before its grace is over"));
            }
        } else if cause == StopCause::Deadline
            && let (Some(job), Some(started)) = (job, self.oracle.started.get(name))
        {
            // Counted from when the container engine says that it ran, if that can be.
            let since =
                (job.attempt().started_at.as_millis() - job.submitted_at.as_millis()) as u64;
            let slack = started
                .saturating_sub(since)
                .min(START_TIMEOUT.as_millis() as u64);
            let least = started + job.max_duration.as_millis() as u64;
            if self.now() + EXACT + slack < least {
                self.violate(|_| format!("{name} is stopped before its deadline"));
            }
        }
    }

    pub(crate) fn saw_removal(&mut self, name: &ContainerName, volume: bool) {
        let what = if volume {
            "the volume"
        } else {
            "the container"
        };
        let Some(job) = self.memory.job(name.job()).cloned() else {
            if !self.oracle.asked_to_delete.contains_key(name.job()) {
                self.violate(|_| format!("{what} {name} is removed, of an unknown job"));
            }
            return;
        };
        let relied_on = self.oracle.granted.contains(&job.id);
        if !volume && !relied_on {
            self.oracle.taken_back.insert(name.clone());
        }
        if self.late && !volume {
            return;
        }
        // Asked for before the start, and carried out after somebody removed by hand what ran then:
        // until that the engine refuses it. Or asked for when the start was taken back, of which a
        // restart does not know when it was saved after all: it may even tell a client since.
        let gone = self.oracle.removed_by_hand.contains(name)
            || self.oracle.taken_back.contains(name)
            || !relied_on;
        if self.late && gone {
            return;
        }
        // A start that could not be saved in time is taken back before its client is told so. The
        // store may come to it after all, and to the abandonment behind it.
        if matches!(job.state, State::Running { .. })
            && !relied_on
            && self.service_now() >= job.start_by
        {
            return;
        }
        let over = matches!(job.state, State::Removing { .. } | State::Removed { .. });
        let starting = matches!(
            job.state,
            State::Preparing | State::Waiting { .. } | State::Starting
        );
        let never_ran = starting && job.attempt().running_at.is_none();
        if !over && !never_ran {
            return self.violate(|_| format!("{what} {name} is removed, its job {:?}", job.state));
        }
        if starting && relied_on && !self.setup.after_run {
            return self
                .violate(|_| format!("{what} {name} is removed, though its client relies on it"));
        }
        let unsent = self
            .volumes
            .get(name)
            .filter(|v| volume && v.unsent)
            .copied();
        if let Some(unsent) = unsent
            && job.ever_ran()
            && !self.oracle.asked_to_delete.contains_key(&job.id)
        {
            let passed = self.oracle.passed.get(job.id.as_str()).copied();
            let least = match passed {
                Some(true) => self.setup.failed_retention,
                _ => Some(self.setup.floor),
            };
            let kept = unsent.ended.map(|ended| self.now() - ended);
            let long_enough = match (kept, least) {
                (Some(kept), Some(least)) => kept + EXACT >= least.as_millis() as u64,
                _ => false,
            };
            if !long_enough {
                self.violate(|_| {
                    format!(
                        "{name} is removed with somebody's only copy, kept {kept:?} ms of {least:?}"
                    )
                });
            }
        }
    }

    /// What was committed, `before` being what stood there.
    pub(crate) fn saw_commit(&mut self, before: Option<&Job>, id: &JobId) {
        let Some(job) = self.memory.job(id).cloned() else {
            return;
        };
        let name = |number| ContainerName::new(super::instance(), id.clone(), number);
        let known_owner = job.owner != RegistrationId(0);
        let mut wrong: Vec<&str> = Vec::new();
        let mut must = |holds: bool, what: &'static str| {
            if !holds {
                wrong.push(what);
            }
        };
        if before.is_none() {
            must(
                !known_owner || self.memory.slots_taken() <= self.setup.slots as usize,
                "more jobs than slots were accepted",
            );
            let same_work = |other: &Arc<Job>| {
                other.id != job.id
                    && (&job.resends, &other.resends) == (&None, &None)
                    && (other.kind, other.work_id()) == (job.kind, job.work_id())
                    && (other.state.end().is_none() || other.ever_ran())
            };
            must(
                !known_owner || !self.memory.jobs.iter().any(same_work),
                "the same work was accepted before",
            );
        }
        let wrong_with_resend = job
            .resends
            .as_ref()
            .and_then(|of| self.wrong_with_resend(before, &job, of));
        must(
            wrong_with_resend.is_none(),
            wrong_with_resend.unwrap_or_default(),
        );
        let ends = job.state.end().is_some() && before.is_none_or(|b| b.state.end().is_none());
        must(
            !ends || !job.ever_ran() || !self.runs(id),
            "it ended, and runs",
        );
        let now = self.service_now();
        match job.state {
            State::Running { since, deadline } => {
                let same = before.is_none_or(|b| {
                    !matches!(b.state, State::Running { .. }) || b.state == job.state
                });
                must(same, "the deadline moved");
                must(
                    deadline == since.plus(job.max_duration),
                    "the deadline is not the job's",
                );
                must(since <= now, "it runs since a time to come");
                must(
                    self.oracle
                        .started
                        .contains_key(&name(job.attempt().number)),
                    "it never started",
                );
                // A write that came too late may be taken back by the next one.
                must(
                    !self.oracle.refused.contains(id) || !self.runs(id) || self.excused(),
                    "its client was told that it would not run",
                );
            }
            State::Stopping { kill_at, cause, .. } => match before.map(|b| b.state) {
                Some(State::Running { deadline, .. }) => {
                    must(
                        kill_at <= now.plus(self.setup.grace),
                        "the grace is too long",
                    );
                    match cause {
                        StopCause::Deadline => must(now >= deadline, "it is stopped early"),
                        StopCause::Admin => must(
                            self.oracle.asked_to_stop.contains(id),
                            "nobody asked to stop it",
                        ),
                    }
                }
                Some(State::Stopping { kill_at: was, .. }) => {
                    must(kill_at == was, "the time to kill it moved");
                }
                _ => must(false, "it stops without having run"),
            },
            State::Ended(end) => {
                if let Some(State::Retained { .. }) = before.map(|b| b.state) {
                    let unsent = |v: &super::world::Volume| v.unsent;
                    let left = self.volumes.get(&name(job.attempt().number));
                    must(
                        end.delivery == Delivery::Delivered && !left.is_some_and(unsent),
                        "what it left was not sent in",
                    );
                }
            }
            State::Removing { forget, .. } => {
                let asked = self.oracle.asked_to_delete.contains_key(id);
                must(!forget || asked, "nobody asked to delete it");
                if let Some(State::Retained { until, .. }) = before.map(|b| b.state) {
                    must(
                        forget || until.is_some_and(|until| until <= now),
                        "it is not kept as decided",
                    );
                    must(
                        self.resends_of(id).next().is_none(),
                        "a job is there that sends in what it left",
                    );
                }
            }
            State::Removed { .. } => {
                must(!self.runs(id) || self.excused(), "it was removed, and runs")
            }
            _ => {}
        }
        if let Some(before) = before {
            let more = job.attempts.len() > before.attempts.len();
            must(
                job.attempts.len() >= before.attempts.len(),
                "an attempt is forgotten",
            );
            must(
                !more || matches!(before.state, State::Waiting { .. }),
                "an attempt out of turn",
            );
            must(
                !more || !before.ever_ran() || self.setup.after_run,
                "an attempt after one that ran",
            );
            must(
                job.attempts.len() <= self.setup.max_attempts as usize,
                "too many attempts",
            );
            // What was sent in after all is looked at above.
            let resent = matches!(
                (before.state, job.state),
                (State::Retained { .. }, State::Ended(_))
            );
            let same = |was: End, is: End| {
                let delivery = if resent { is.delivery } else { was.delivery };
                End { delivery, ..was } == is
            };
            let end = job.state.end();
            let kept = |was| end.is_some_and(|is| same(was, is));
            must(before.state.end().is_none_or(kept), "its end changed");
            must(
                job.ever_ran() || !before.ever_ran() || !self.oracle.granted.contains(id),
                "that it ran is forgotten",
            );
            must(
                (job.start_by, job.submitted_at) == (before.start_by, before.submitted_at),
                "its times moved",
            );
        }
        for what in wrong {
            self.violate(|_| format!("job {id} was saved as {:?}: {what}", job.state));
        }
        if let State::Stopping { kill_at, .. } = job.state {
            let kill_at = self.now() + kill_at.after(now).as_millis() as u64;
            self.oracle.kill_at.entry(id.clone()).or_insert(kill_at);
        }
        self.saw_change(&job);
        self.oracle
            .versions
            .entry(id.clone())
            .or_default()
            .push(job);
    }

    fn saw_change(&mut self, job: &Job) {
        let now = self.now();
        let changed = &mut self.oracle.changed;
        for id in [Some(&job.id), job.resends.as_ref()].into_iter().flatten() {
            changed.insert(id.clone(), now);
        }
    }

    pub(crate) fn saw_forget(&mut self, id: &JobId) {
        let last = self.oracle.versions.get(id).and_then(|all| all.last());
        if let Some(job) = last.cloned() {
            self.saw_change(&job);
        }
        let labelled = self
            .containers
            .iter()
            .any(|(n, c)| n.job() == id && c.ours && c.runs());
        if !self.oracle.asked_to_delete.contains_key(id) || labelled {
            self.violate(|_| format!("the record of job {id} is removed"));
        }
    }

    /// What a client was shown has been committed.
    pub(crate) fn saw_view(&mut self, view: &JobView) {
        let versions = self.oracle.versions.get(&view.job.id);
        if !versions.is_some_and(|versions| versions.contains(&view.job)) {
            self.violate(|_| {
                format!(
                    "job {} was shown as {:?}, which is not durable",
                    view.job.id, view.job.state
                )
            });
        }
    }

    /// A client has its answer to the submission that would be job `id`.
    pub(crate) fn saw_answer(
        &mut self,
        id: &JobId,
        sent: u64,
        answer: &Result<Arc<JobView>, impl Sized>,
    ) {
        let took = self.now() - sent;
        if took > ANSWER + EXACT {
            self.violate(|_| format!("the answer for {id} took {took} ms"));
        }
        match answer {
            Ok(view) => {
                let id = &view.job.id;
                self.saw_view(view);
                let started = self.oracle.started.keys().any(container_of(&view.job));
                if !started || !view.job.ever_ran() || self.oracle.refused.contains(id) {
                    self.violate(|_| format!("a client was told that {id} runs, and it does not"));
                }
                self.oracle.granted.insert(id.clone());
            }
            Err(_) => {
                self.oracle.refused.insert(id.clone());
                if self.runs(id) && !self.excused() {
                    self.violate(|_| {
                        format!("a client was told that {id} does not run, and it does")
                    });
                }
            }
        }
    }

    /// What is not at rest yet, for people. Whatever is overdue is a violation.
    pub(crate) fn unrest(&mut self, engine: &Engine) -> Vec<String> {
        let (mut unrest, mut violations) = (Vec::new(), Vec::new());
        let now = self.service_now();
        let soon = now.plus(Duration::from_secs(600));
        if self.has_plans() {
            unrest.push("there is more to come".to_owned());
        }
        if engine.shared.ending.is_cancelled() {
            unrest.push("the service is ending".to_owned());
        }
        if !self.asking.is_empty() {
            unrest.push(format!("{:?} are not answered", self.asking.keys()));
        }
        if !self.resending.is_empty() {
            unrest.push(format!("{:?} are not answered for", self.resending));
        }
        for job in self.memory.jobs.clone() {
            let due = match job.state {
                State::Removed { .. } | State::Retained { until: None, .. } => None,
                State::Retained {
                    until: Some(until), ..
                } => Some(until),
                State::Running { deadline, .. } => Some(deadline),
                State::Stopping { kill_at, .. } => Some(kill_at),
                State::Waiting { until } => Some(until),
                State::Preparing | State::Starting => (!job.ever_ran()).then_some(job.start_by),
                State::Ended(_) | State::Removing { .. } => None,
            };
            let held_until = self.held_until(&job);
            // Nothing of it is removed while another job uses it.
            let due = due.filter(|due| {
                self.resends_of(&job.id).next().is_none() || held_until.is_some_and(|h| h < *due)
            });
            // A slow store may save a time that is over by then, or be at it when a resend has gone.
            let changed = self.oracle.changed.get(&job.id);
            let just_now = changed.is_some_and(|at| self.now() < at + EXCUSED);
            if due.is_some_and(|due| due.plus(OVERDUE) < now) && !just_now && !self.excused() {
                self.violate(|_| format!("job {} is overdue: {:?}", job.id, job.state));
            }
            let kept = match job.state {
                State::Retained { until, .. } if until.is_none_or(|until| until > soon) => true,
                State::Retained { .. } | State::Removing { .. } => {
                    held_until.is_some_and(|until| until > soon)
                }
                _ => false,
            };
            let removed = matches!(job.state, State::Removed { .. });
            let live = engine.shared.live.view(&job.id);
            let known = engine.shared.live.knows(&job.id);
            let alarm = engine.shared.live.alarm(&job.id);
            let shown = match (&live, due) {
                (Some(view), _) => view.job == job,
                // One that sleeps is read when it is asked for.
                (None, Some(due)) => alarm.is_some_and(|at| at <= due.plus(OVERDUE)),
                (None, None) => true,
            };
            if !kept && !removed {
                unrest.push(format!("job {} is {:?}", job.id, job.state));
            } else if kept && !(known && shown) {
                unrest.push(format!(
                    "job {} is shown as {live:?}, or sleeps until {alarm:?}, and is {:?}",
                    job.id, job.state
                ));
            } else if removed && known {
                unrest.push(format!("job {} is removed and looked after", job.id));
            }
        }
        let labelled = self
            .containers
            .iter()
            .filter(|(_, c)| c.ours)
            .map(|(name, _)| name);
        for name in labelled.chain(self.volumes.keys()) {
            let job = self.memory.job(name.job());
            if let Some(container) = self.containers.get(name)
                && container.ours
                && container.runs()
                && self.oracle.refused.contains(name.job())
                && !self.excused()
            {
                violations.push(format!("{name} runs, and its client was told otherwise"));
            }
            // The volume of an unknown job may be all that is left of somebody's work.
            let unknown_volume = job.is_none() && self.containers.get(name).is_none_or(|c| !c.ours);
            let looked_after = job.is_some_and(|job| {
                matches!(job.state, State::Retained { .. }) || self.held_until(job).is_some()
            });
            if !unknown_volume && !looked_after {
                unrest.push(format!("{name} is labelled and not looked after"));
            }
        }
        for violation in violations {
            self.violate(|_| violation);
        }
        for id in &self.oracle.granted {
            let deleted = self.oracle.asked_to_delete.contains_key(id);
            if !deleted && self.memory.job(id).is_none() {
                unrest.push(format!("job {id} was promised and is not there"));
            }
        }
        unrest
    }

    /// Until when the longest of what is kept for a time is kept.
    pub(crate) fn kept_until(&self) -> Option<Timestamp> {
        let until = |job: &Arc<Job>| match job.state {
            State::Retained { until, .. } => until,
            _ => None,
        };
        self.memory.jobs.iter().filter_map(until).max()
    }
}
