//! Jobs of which something is left: where everybody else reaches their tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use domain::{Decision, Job, JobId, Lifecycle, Timestamp};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::answer::Answer;
use crate::resend::Resend;
use crate::rules::resends;
use crate::sleep::Asleep;
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
}

impl Live {
    pub(crate) fn job(&self) -> Arc<Job> {
        Arc::clone(&self.view.borrow().job)
    }
}

/// What is left of a job.
pub(crate) enum Found {
    Awake(Arc<Live>),
    Asleep,
    Nothing,
}

enum Entry {
    Awake(Arc<Live>),
    Asleep(Asleep),
}

/// Every job of which something is left.
#[derive(Default)]
pub(crate) struct LiveJobs {
    jobs: RwLock<Jobs>,
    /// Told when the first alarm may be another one.
    alarm_changed: Notify,
    /// Told when a job is gone that sent in again what another one left.
    resend_gone: Notify,
}

#[derive(Default)]
struct Jobs {
    by_id: BTreeMap<JobId, Entry>,
    /// Of those that sleep, the first one first.
    alarms: BTreeSet<(Timestamp, JobId)>,
    /// Those that send in again what another job left, by that other one.
    resends: BTreeMap<JobId, BTreeSet<JobId>>,
}

impl Jobs {
    fn awake(&self, id: &JobId) -> Option<&Arc<Live>> {
        match self.by_id.get(id)? {
            Entry::Awake(live) => Some(live),
            Entry::Asleep(_) => None,
        }
    }

    /// Takes out what is known of a job, with its alarm; gives that back if it slept.
    fn take(&mut self, id: &JobId) -> Option<Asleep> {
        let Some(Entry::Asleep(asleep)) = self.by_id.remove(id) else {
            return None;
        };
        if let Some(at) = asleep.alarm {
            self.alarms.remove(&(at, id.clone()));
        }
        Some(asleep)
    }

    fn put_asleep(&mut self, id: &JobId, asleep: Asleep) {
        self.take(id);
        self.alarms.extend(asleep.alarm.map(|at| (at, id.clone())));
        self.by_id.insert(id.clone(), Entry::Asleep(asleep));
    }

    /// Whether anybody but its task has hold of a job's task.
    fn is_held(&self, id: &JobId) -> bool {
        self.awake(id)
            .is_some_and(|live| Arc::strong_count(live) > 1)
    }

    fn add_resend(&mut self, job: &Job) {
        if let Some(of) = resends(job) {
            let resends = self.resends.entry(of.clone()).or_default();
            resends.insert(job.id.clone());
        }
    }
}

// A panic while the map is locked cannot leave it half changed, so poison is no news.
impl LiveJobs {
    fn read(&self) -> RwLockReadGuard<'_, Jobs> {
        self.jobs.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Jobs> {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of the job.
    pub(crate) fn find(&self, id: &JobId) -> Found {
        match self.read().by_id.get(id) {
            Some(Entry::Awake(live)) => Found::Awake(Arc::clone(live)),
            Some(Entry::Asleep(_)) => Found::Asleep,
            None => Found::Nothing,
        }
    }

    /// Whether anything is left of the job.
    pub(crate) fn knows(&self, id: &JobId) -> bool {
        self.read().by_id.contains_key(id)
    }

    /// The job, if it has a task now.
    pub(crate) fn get(&self, id: &JobId) -> Option<Arc<Live>> {
        self.read().awake(id).cloned()
    }

    /// Whether somebody has hold of the job, to ask something of it or to read what it left.
    pub(crate) fn is_held(&self, id: &JobId) -> bool {
        self.read().is_held(id)
    }

    pub(crate) fn view(&self, id: &JobId) -> Option<Arc<JobView>> {
        let jobs = self.read();
        jobs.awake(id).map(|live| live.view.borrow().clone())
    }

    /// A job has a task from now on. Gives back what there was of it if it slept.
    pub(crate) fn insert(&self, live: Arc<Live>) -> Option<Asleep> {
        let job = live.job();
        let mut jobs = self.write();
        jobs.add_resend(&job);
        let slept = jobs.take(&job.id);
        jobs.by_id.insert(job.id.clone(), Entry::Awake(live));
        slept
    }

    /// A job that was found in the store sleeps until there is something to do.
    pub(crate) fn insert_asleep(&self, job: &Job, asleep: Asleep) {
        let mut jobs = self.write();
        jobs.add_resend(job);
        jobs.put_asleep(&job.id, asleep);
    }

    /// Lets a job sleep whose task ends now. Not while somebody holds it, who may be about to ask
    /// something of it or read what it left; what would have stayed of it comes back then.
    pub(crate) fn fall_asleep(&self, id: &JobId, asleep: Asleep) -> Result<(), Asleep> {
        let mut jobs = self.write();
        if jobs.is_held(id) {
            return Err(asleep);
        }
        jobs.put_asleep(id, asleep);
        drop(jobs);
        self.alarm_changed.notify_one();
        Ok(())
    }

    /// Sets the alarm of a job to a later time, if it sleeps.
    pub(crate) fn snooze(&self, id: &JobId, until: Timestamp) {
        let mut jobs = self.write();
        if let Some(Entry::Asleep(_)) = jobs.by_id.get(id)
            && let Some(mut asleep) = jobs.take(id)
        {
            asleep.alarm = Some(until);
            jobs.put_asleep(id, asleep);
        }
    }

    /// The first alarm, and whose it is.
    pub(crate) fn first_alarm(&self) -> Option<(Timestamp, JobId)> {
        self.read().alarms.first().cloned()
    }

    /// When a job is to be woken, if it sleeps.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn alarm(&self, id: &JobId) -> Option<Timestamp> {
        let jobs = self.read();
        let alarm = jobs.alarms.iter().find(|(_, other)| other == id);
        alarm.map(|(at, _)| *at)
    }

    /// Returns when the first alarm may be another one than when this was called last.
    pub(crate) async fn alarm_changed(&self) {
        self.alarm_changed.notified().await;
    }

    /// Nothing is left of job `id`, or its task ended with the service. One that panicked is taken up
    /// again, and whoever waits for it goes on to wait.
    pub(crate) fn remove(&self, id: &JobId) {
        let mut jobs = self.write();
        jobs.take(id);
        if std::thread::panicking() {
            return;
        }
        let before = jobs.resends.len();
        jobs.resends.retain(|_, resends| {
            resends.remove(id);
            !resends.is_empty()
        });
        if jobs.resends.len() < before {
            self.resend_gone.notify_waiters();
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let jobs = self.read();
        let awake = jobs.by_id.values().filter_map(|entry| match entry {
            Entry::Awake(live) => Some(Arc::clone(live)),
            Entry::Asleep(_) => None,
        });
        awake.collect()
    }

    /// A job that sends in again what job `id` left and of which anything is left itself.
    pub(crate) fn resend_of(&self, id: &JobId) -> Option<JobId> {
        self.read().resends.get(id)?.first().cloned()
    }

    /// Returns when the last of those that send in again what some job left has gone since this was
    /// called.
    pub(crate) fn resend_gone(&self) -> Notified<'_> {
        self.resend_gone.notified()
    }

    /// The one that may do so now, or may not yet have told what came of it.
    pub(crate) fn resend_under_way(&self, id: &JobId) -> Option<JobId> {
        let jobs = self.read();
        // One that is removed after it ran is kept before; any other may run until it is gone.
        let is_kept = |id: &&JobId| match jobs.by_id.get(*id) {
            Some(Entry::Awake(live)) => live.job().state.lifecycle() == Lifecycle::Retained,
            Some(Entry::Asleep(_)) => true,
            None => false,
        };
        jobs.resends
            .get(id)?
            .iter()
            .find(|id| !is_kept(id))
            .cloned()
    }
}
