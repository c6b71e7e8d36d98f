//! Containers that are started, signalled and removed.

use domain::{State, StopCause};
use gate::ContainerName;

use super::EXACT;
use crate::simulation::containers::Container;
use crate::simulation::setup::START_TIMEOUT;
use crate::simulation::world::World;

impl World {
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
            let works_on_it = |(other, c): (&ContainerName, &Container)| {
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
}
