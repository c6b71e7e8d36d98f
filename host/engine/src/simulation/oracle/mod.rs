//! What is promised, checked at every effect and when all is at rest.

mod containers;
mod rest;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::{Job, JobId, State, Timestamp};
use gate::ContainerName;

use super::containers::Container;
use super::world::World;
use crate::JobView;

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
        let ours = |(name, container): (&ContainerName, &Container)| {
            name.job() == job && container.ours && container.runs()
        };
        self.containers.iter().any(ours)
    }

    /// A restart finds what is saved. A start that was taken back, and saved as running after all when
    /// its client had been told so, counts as one that ran: nothing of it runs, and nobody knows better.
    pub(crate) fn saw_restart(&mut self) {
        let saved = |job: &&Arc<Job>| matches!(job.state, State::Running { .. });
        let jobs = self.memory.jobs.iter().filter(saved);
        let gone = jobs.filter(|job| !self.runs(&job.id));
        let found: Vec<JobId> = gone.map(|job| job.id.clone()).collect();
        for id in found {
            self.oracle.refused.remove(&id);
        }
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
}
