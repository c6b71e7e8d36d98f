//! What is saved of jobs, and forgotten.

use std::sync::Arc;

use domain::{Delivery, End, Job, JobId, RegistrationId, State, StopCause};
use gate::ContainerName;

use crate::simulation::containers::Volume;
use crate::simulation::world::World;

impl World {
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

    /// What was committed, `before` being what stood there.
    pub(crate) fn saw_commit(&mut self, before: Option<&Job>, id: &JobId) {
        let Some(job) = self.memory.job(id).cloned() else {
            return;
        };
        let name = |number| ContainerName::new(crate::simulation::instance(), id.clone(), number);
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
                    let unsent = |v: &Volume| v.unsent;
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
}
