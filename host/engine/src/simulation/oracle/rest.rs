//! What has to be done yet, and whether it is late.

use std::sync::Arc;
use std::time::Duration;

use domain::{Job, State, Timestamp};

use super::{EXCUSED, OVERDUE};
use crate::Engine;
use crate::simulation::world::World;

impl World {
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
