//! A store that keeps what was committed when the service dies, has one writer as the real one
//! does, and fails now and then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Decision, Job, JobId, State, Timestamp};
use tokio::sync::oneshot;

use super::mutation::Mutation;
use super::setup::chance;
use super::world::{Event, Sim, World};
use crate::{Accepted, JobKey, JobQuery, KeyedJob, NewJob, Store, StoreError};

const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What is committed, and what waits for the writer.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) jobs: Vec<Arc<Job>>,
    keys: Vec<Key>,
    queue: VecDeque<(Write, Reply)>,
    /// When the writer has done all that it was asked so far.
    busy_until: u64,
    pub(crate) down: bool,
}

struct Key {
    key: JobKey,
    job: JobId,
    body_sha256: String,
    until: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) enum Write {
    Accept(Box<NewJob>),
    Commit(Arc<Job>),
    Forget(JobId, Timestamp),
    Prune,
}

type Reply = oneshot::Sender<Result<Written, StoreError>>;

#[derive(Debug)]
pub(crate) enum Written {
    Accepted(Accepted),
    Done,
    Pruned(u64),
}

impl Memory {
    pub(crate) fn job(&self, id: &JobId) -> Option<&Arc<Job>> {
        self.jobs.iter().find(|job| job.id == *id)
    }

    fn keyed(&self, key: &JobKey, now: Timestamp) -> Option<KeyedJob> {
        let holds = |k: &&Key| k.key == *key && k.until.is_none_or(|until| until > now);
        let known = self.keys.iter().find(holds)?;
        Some(KeyedJob {
            id: known.job.clone(),
            body_sha256: known.body_sha256.clone(),
        })
    }

    pub(crate) fn slots_taken(&self) -> usize {
        let holds = |job: &&Arc<Job>| job.state.lifecycle().holds_slot();
        self.jobs.iter().filter(holds).count()
    }

    fn accept(&mut self, new: NewJob) -> Accepted {
        let now = new.job.submitted_at;
        if let Some(known) = new.keys.iter().find_map(|key| self.keyed(key, now)) {
            return Accepted::Known(known);
        }
        let taken = self.slots_taken();
        if new.slots.total.is_some_and(|total| taken >= total as usize) {
            return Accepted::Full;
        }
        for key in new.keys {
            self.keys.retain(|known| known.key != key);
            self.keys.push(Key {
                key,
                job: new.job.id.clone(),
                body_sha256: new.body_sha256.clone(),
                until: None,
            });
        }
        self.jobs.push(new.job);
        Accepted::New
    }

    fn commit(&mut self, job: Arc<Job>) {
        match job.state.end() {
            None => {}
            Some(end) if job.ever_ran() => self.keep_keys(&job.id, end.at.plus(REMEMBERED)),
            Some(_) => self.keys.retain(|key| key.job != job.id),
        }
        if let Some(saved) = self.jobs.iter_mut().find(|saved| saved.id == job.id) {
            *saved = job;
        }
    }

    fn keep_keys(&mut self, job: &JobId, until: Timestamp) {
        for key in self.keys.iter_mut().filter(|key| key.job == *job) {
            key.until = Some(until);
        }
    }
}

impl World {
    fn write(&mut self, write: Write) -> Written {
        match write {
            Write::Accept(new) => {
                let id = new.job.id.clone();
                let accepted = self.memory.accept(*new);
                self.note(|_| format!("store: accept {id}: {accepted:?}"));
                if accepted == Accepted::New {
                    self.saw_commit(None, &id);
                }
                Written::Accepted(accepted)
            }
            Write::Commit(job) => {
                let before = self.memory.job(&job.id).cloned();
                self.note(|_| format!("store: commit {} {:?}", job.id, job.state));
                let id = job.id.clone();
                self.memory.commit(job);
                self.saw_commit(before.as_deref(), &id);
                Written::Done
            }
            Write::Forget(id, until) => {
                self.note(|_| format!("store: forget {id}"));
                self.saw_forget(&id);
                self.memory.jobs.retain(|job| job.id != id);
                self.memory.keep_keys(&id, until);
                Written::Done
            }
            // How long a record stays is the real store's to show.
            Write::Prune => Written::Pruned(0),
        }
    }

    fn write_or_fail(&mut self, write: Write) -> Result<Written, StoreError> {
        let rate = self.setup.faults.store_error;
        if self.memory.down || chance(&mut self.rng, rate) {
            self.trouble(0);
            self.note(|_| "store: a write fails".into());
            return Err(failed("write"));
        }
        Ok(self.write(write))
    }

    /// The writer's next write has come to its end.
    pub(crate) fn write_next(&mut self) {
        if let Some((write, reply)) = self.memory.queue.pop_front() {
            let result = self.write_or_fail(write);
            let _ = reply.send(result);
        }
    }

    /// What the writer was at when the service was killed is written or is not.
    pub(crate) fn lose_writes(&mut self) {
        let mut going = true;
        for (write, _) in std::mem::take(&mut self.memory.queue) {
            going &= self.rng.bool();
            if going {
                self.write(write);
            }
        }
        self.memory.busy_until = 0;
    }

    /// How long a write takes.
    fn draw_write(&mut self) -> u64 {
        let rate = self.setup.faults.store_slow;
        if !chance(&mut self.rng, rate) {
            return 0;
        }
        match self.rng.u32(0..100) {
            0..=79 => self.rng.u64(1..50),
            80..=97 => self.rng.u64(50..5000),
            _ => self.rng.u64(5000..130_000),
        }
    }
}

fn failed(operation: &'static str) -> StoreError {
    StoreError {
        operation,
        detail: "as drawn".into(),
    }
}

impl Sim {
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.alive().await;
        let done = match self.queue(write) {
            Ok(answer) => answer.await.ok(),
            Err(write) => self.effect(|world| world.write_or_fail(write)),
        };
        // Killed right after it, the answer reaches nobody.
        self.alive().await;
        match done {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }

    /// Queues a write, or gives it back when the writer does it at once.
    fn queue(&self, write: Write) -> Result<oneshot::Receiver<Result<Written, StoreError>>, Write> {
        let mut world = self.world();
        let takes = world.draw_write();
        if takes == 0 && world.memory.queue.is_empty() {
            return Err(write);
        }
        let (reply, answer) = oneshot::channel();
        let now = world.now();
        let done = world.memory.busy_until.max(now) + takes;
        if takes > 5000 {
            world.trouble(done - now);
        }
        world.memory.busy_until = done;
        world.memory.queue.push_back((write, reply));
        world.schedule(done, Event::Write);
        drop(world);
        self.wake();
        Ok(answer)
    }

    async fn read<R>(&self, read: impl FnOnce(&World) -> R) -> Result<R, StoreError> {
        self.alive().await;
        let (takes, fails, yields) = {
            let mut world = self.world();
            let faults = world.setup.faults;
            let fails = chance(&mut world.rng, faults.store_error / 4);
            let slow = chance(&mut world.rng, faults.store_slow / 4);
            let takes = if slow { world.rng.u64(1..200) } else { 0 };
            (takes, fails, world.yields())
        };
        if yields {
            tokio::task::yield_now().await;
        }
        self.pause(takes).await;
        if fails {
            return Err(failed("read"));
        }
        Ok(read(&self.world()))
    }
}

#[async_trait]
impl Store for Sim {
    async fn accept(&self, mut new: NewJob) -> Result<Accepted, StoreError> {
        match self.world().mutation {
            Some(Mutation::NoKeys) => new.keys.clear(),
            Some(Mutation::NoSlots) => new.slots = Default::default(),
            _ => {}
        }
        match self.write(Write::Accept(Box::new(new))).await? {
            Written::Accepted(accepted) => Ok(accepted),
            _ => Err(failed("accept")),
        }
    }

    async fn commit(&self, job: Arc<Job>, _: Vec<Decision>) -> Result<(), StoreError> {
        if self.world().mutation == Some(Mutation::AnswerBeforeCommit)
            && matches!(job.state, State::Running { .. })
        {
            let (sim, write) = (self.clone(), Write::Commit(job));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = sim.write(write).await;
            });
            return Ok(());
        }
        self.write(Write::Commit(job)).await.map(drop)
    }

    async fn forget(&self, id: &JobId, key_until: Timestamp) -> Result<(), StoreError> {
        self.write(Write::Forget(id.clone(), key_until))
            .await
            .map(drop)
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.read(|world| world.memory.job(id).map(|job| Job::clone(job)))
            .await
    }

    async fn decisions(&self, _: &JobId) -> Result<Vec<Decision>, StoreError> {
        self.read(|_| Vec::new()).await
    }

    async fn by_key(&self, key: &JobKey, now: Timestamp) -> Result<Option<KeyedJob>, StoreError> {
        if self.world().mutation == Some(Mutation::NoKeys) {
            return Ok(None);
        }
        self.read(|world| world.memory.keyed(key, now)).await
    }

    async fn page(&self, _: &JobQuery) -> Result<Vec<(Job, Vec<Decision>)>, StoreError> {
        let job = |job: &Arc<Job>| (Job::clone(job), Vec::new());
        self.read(|world| world.memory.jobs.iter().map(job).collect())
            .await
    }

    async fn unfinished(&self, after: Option<&JobId>) -> Result<Vec<Job>, StoreError> {
        const AT_ONCE: usize = 2;
        let unfinished = |job: &&Arc<Job>| !matches!(job.state, State::Removed { .. });
        let mut jobs: Vec<Job> = self
            .read(|world| {
                let jobs = &world.memory.jobs;
                let place = |id: &JobId| jobs.iter().position(|job| job.id == *id);
                let last = after.map(|id| place(id).expect("a job that was found"));
                let next = jobs.iter().skip(last.map_or(0, |last| last + 1));
                let some = next.filter(unfinished).take(AT_ONCE);
                some.map(|job| Job::clone(job)).collect()
            })
            .await?;
        let world = self.world();
        for job in &mut jobs {
            super::mutation::found_after_restart(world.mutation, job, world.service_now());
        }
        Ok(jobs)
    }

    async fn prune(&self, _: Timestamp, _: Timestamp) -> Result<u64, StoreError> {
        match self.write(Write::Prune).await? {
            Written::Pruned(records) => Ok(records),
            _ => Ok(0),
        }
    }

    fn trouble(&self) -> Option<String> {
        self.world().memory.down.then(|| "as drawn".into())
    }
}
