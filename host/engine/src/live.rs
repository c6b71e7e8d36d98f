//! Jobs that have a task: where everybody else reaches them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use domain::{Decision, Job, JobId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::answer::Answer;
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
}

/// The outside of a job's task.
pub(crate) struct Live {
    pub(crate) view: watch::Receiver<Arc<JobView>>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) answer: Arc<Answer>,
}

/// Every job that has a task.
#[derive(Default)]
pub(crate) struct LiveJobs {
    jobs: RwLock<BTreeMap<JobId, Arc<Live>>>,
}

// A panic while the map is locked cannot leave it half changed, so poison is no news.
impl LiveJobs {
    pub(crate) fn get(&self, id: &JobId) -> Option<Arc<Live>> {
        self.jobs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    pub(crate) fn view(&self, id: &JobId) -> Option<Arc<JobView>> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.get(id).map(|live| live.view.borrow().clone())
    }

    pub(crate) fn insert(&self, id: JobId, live: Arc<Live>) {
        self.jobs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, live);
    }

    pub(crate) fn remove(&self, id: &JobId) {
        self.jobs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.jobs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}
