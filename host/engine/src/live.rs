//! Jobs that have a task: where everybody else reaches them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use domain::{Decision, Job, JobId, Lifecycle};
use tokio::sync::{mpsc, oneshot, watch};

use crate::answer::Answer;
use crate::resend::Resend;
use crate::rules::resends;
use crate::{DeleteError, StopError};

/// A job with the decisions made about it, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// The job.
    pub job: Arc<Job>,
    /// The decisions.
    pub decisions: Vec<Decision>,
}

/// What is asked of a job's task.
pub(crate) enum Command {
    /// Stop it for an administrator.
    Stop(oneshot::Sender<Result<(), StopError>>),
    /// Let it end now, for an administrator.
    Kill(oneshot::Sender<Result<(), StopError>>),
    /// Delete it for its owner.
    Delete(oneshot::Sender<Result<(), DeleteError>>),
    /// Begin a job that sends in again what this one keeps.
    Resend(Box<Resend>),
    /// Take note that such a job has sent it in. Who gets no answer tells it again.
    Resent(oneshot::Sender<()>),
}

/// The outside of a job's task.
pub(crate) struct Live {
    pub(crate) view: watch::Receiver<Arc<JobView>>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) answer: Arc<Answer>,
    /// Held by everybody who reads what the job left.
    pub(crate) reading: Arc<()>,
}

impl Live {
    /// Whether somebody reads what the job left.
    pub(crate) fn is_read(&self) -> bool {
        Arc::strong_count(&self.reading) > 1
    }

    pub(crate) fn job(&self) -> Arc<Job> {
        Arc::clone(&self.view.borrow().job)
    }

    /// Waits until the task has ended.
    pub(crate) async fn ended(&self) {
        let mut view = self.view.clone();
        while view.changed().await.is_ok() {}
    }
}

/// Every job that has a task.
#[derive(Default)]
pub(crate) struct LiveJobs(RwLock<Jobs>);

#[derive(Default)]
struct Jobs {
    by_id: BTreeMap<JobId, Arc<Live>>,
    /// Those that send in again what another job left, by that other one.
    resends: BTreeMap<JobId, BTreeSet<JobId>>,
}

// A panic while the map is locked cannot leave it half changed, so poison is no news.
impl LiveJobs {
    fn read(&self) -> RwLockReadGuard<'_, Jobs> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Jobs> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: &JobId) -> Option<Arc<Live>> {
        self.read().by_id.get(id).cloned()
    }

    pub(crate) fn view(&self, id: &JobId) -> Option<Arc<JobView>> {
        let jobs = self.read();
        jobs.by_id.get(id).map(|live| live.view.borrow().clone())
    }

    pub(crate) fn insert(&self, id: JobId, live: Arc<Live>) {
        let mut jobs = self.write();
        if let Some(of) = resends(&live.job()) {
            let resends = jobs.resends.entry(of.clone()).or_default();
            resends.insert(id.clone());
        }
        jobs.by_id.insert(id, live);
    }

    /// The task of job `id` has ended. One that panicked is taken up again, and whoever waits for it
    /// goes on to wait.
    pub(crate) fn remove(&self, id: &JobId) {
        let mut jobs = self.write();
        jobs.by_id.remove(id);
        if !std::thread::panicking() {
            jobs.resends.retain(|_, resends| {
                resends.remove(id);
                !resends.is_empty()
            });
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.read().by_id.values().cloned().collect()
    }

    /// A job that sends in again what job `id` left and of which anything is left itself.
    pub(crate) fn resend_of(&self, id: &JobId) -> Option<JobId> {
        self.read().resends.get(id)?.first().cloned()
    }

    /// The one that may do so now, or may not yet have told what came of it.
    pub(crate) fn resend_under_way(&self, id: &JobId) -> Option<JobId> {
        let jobs = self.read();
        // One that is removed after it ran is kept before; any other may run until it is gone.
        let is_kept = |id: &&JobId| {
            let live = jobs.by_id.get(*id);
            live.is_some_and(|live| live.job().state.lifecycle() == Lifecycle::Retained)
        };
        jobs.resends
            .get(id)?
            .iter()
            .find(|id| !is_kept(id))
            .cloned()
    }
}
