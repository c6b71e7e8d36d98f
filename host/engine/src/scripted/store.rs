//! A store in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::*;

use crate::*;

/// A store in memory with the rules of the real one, and faults on demand.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Default)]
pub(crate) struct Memory {
    jobs: Vec<Job>,
    decisions: HashMap<JobId, Vec<Decision>>,
    keys: Vec<(JobKey, KeyedJob)>,
    /// This many further commits fail.
    pub(crate) failing_commits: u32,
    /// After this many commits that succeed.
    pub(crate) good_commits_first: u32,
    /// Whether reading fails.
    pub(crate) unreadable: bool,
    /// Whether reading panics.
    pub(crate) panics: bool,
    /// The job that cannot be read.
    pub(crate) unreadable_job: Option<JobId>,
    /// What the store says is in the way of saving.
    pub(crate) trouble: Option<String>,
    /// How long accepting a job takes.
    pub(crate) accept_takes: Duration,
}

impl MemoryStore {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    fn save_new(&self, new: NewJob) -> Result<Accepted, StoreError> {
        let mut memory = self.memory();
        for key in &new.keys {
            if let Some(known) = memory.keyed(key, new.job.submitted_at) {
                return Ok(Accepted::Known(known));
            }
        }
        let active: Vec<Job> = memory
            .jobs
            .iter()
            .filter(|j| j.state.lifecycle().holds_slot())
            .cloned()
            .collect();
        if !new.slots.admit(&new.job, &active) {
            return Ok(Accepted::Full);
        }
        let keyed = KeyedJob {
            id: new.job.id.clone(),
            body_sha256: new.body_sha256.clone(),
        };
        memory
            .keys
            .extend(new.keys.into_iter().map(|key| (key, keyed.clone())));
        memory.decisions.insert(new.job.id.clone(), new.decisions);
        memory.jobs.push(Job::clone(&new.job));
        Ok(Accepted::New)
    }
}

impl Memory {
    fn keyed(&self, key: &JobKey, now: Timestamp) -> Option<KeyedJob> {
        let (_, keyed) = self.keys.iter().rev().find(|(k, _)| k == key)?;
        let holds = match self.jobs.iter().find(|j| j.id == keyed.id) {
            Some(job) => match job.state.end() {
                None => true,
                Some(end) => job.ever_ran() && end.at.plus(Duration::from_secs(86_400)) > now,
            },
            None => true,
        };
        holds.then(|| keyed.clone())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn accept(&self, new: NewJob) -> Result<Accepted, StoreError> {
        // As the real one does, it saves also when nobody waits for it any more.
        let (store, takes) = (self.clone(), self.memory().accept_takes);
        let saving = tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            store.save_new(new)
        });
        saving.await.expect("it does not panic")
    }

    async fn commit(&self, job: Arc<Job>, decisions: Vec<Decision>) -> Result<(), StoreError> {
        let mut memory = self.memory();
        if memory.good_commits_first > 0 {
            memory.good_commits_first -= 1;
        } else if memory.failing_commits > 0 {
            memory.failing_commits -= 1;
            return Err(StoreError {
                operation: "commit",
                detail: "disk full".into(),
            });
        }
        memory
            .decisions
            .entry(job.id.clone())
            .or_default()
            .extend(decisions);
        let saved = memory
            .jobs
            .iter_mut()
            .find(|j| j.id == job.id)
            .expect("an accepted job");
        *saved = Job::clone(&job);
        Ok(())
    }

    async fn forget(&self, id: &JobId, _: Timestamp) -> Result<(), StoreError> {
        let mut memory = self.memory();
        memory.jobs.retain(|j| j.id != *id);
        memory.decisions.remove(id);
        Ok(())
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        let memory = self.memory();
        assert!(!memory.panics, "as the test wants it");
        if memory.unreadable || memory.unreadable_job.as_ref() == Some(id) {
            return Err(StoreError {
                operation: "job",
                detail: "input/output error".into(),
            });
        }
        Ok(memory.jobs.iter().find(|j| j.id == *id).cloned())
    }

    async fn decisions(&self, id: &JobId) -> Result<Vec<Decision>, StoreError> {
        Ok(self.memory().decisions.get(id).cloned().unwrap_or_default())
    }

    async fn by_key(&self, key: &JobKey, now: Timestamp) -> Result<Option<KeyedJob>, StoreError> {
        Ok(self.memory().keyed(key, now))
    }

    async fn page(&self, query: &JobQuery) -> Result<Vec<(Job, Vec<Decision>)>, StoreError> {
        let memory = self.memory();
        let owned = |j: &&Job| query.owner.is_none_or(|owner| j.owner == owner);
        let with_decisions = |j: &Job| {
            let decisions = memory.decisions.get(&j.id).cloned();
            (j.clone(), decisions.unwrap_or_default())
        };
        let jobs = memory.jobs.iter().rev().filter(owned);
        Ok(jobs.map(with_decisions).collect())
    }

    async fn unfinished(&self, after: Option<&JobId>) -> Result<Vec<Job>, StoreError> {
        let unfinished = |j: &&Job| !matches!(j.state, State::Removed { .. });
        let memory = self.memory();
        let place = |id: &JobId| memory.jobs.iter().position(|j| j.id == *id);
        let last = after.map(|id| place(id).expect("a job that was found"));
        let next = memory.jobs.iter().skip(last.map_or(0, |last| last + 1));
        Ok(next.filter(unfinished).take(1).cloned().collect())
    }

    async fn prune(&self, _: Timestamp, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn trouble(&self) -> Option<String> {
        self.memory().trouble.clone()
    }
}
