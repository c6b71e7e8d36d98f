//! The port: a chain of policies for each hook.

use std::panic;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use domain::{Choice, JobFacts, Purpose, RetentionVerdict, RetryVerdict, Ruling, Timestamp};
use engine::{Policies, PoliciesStatus, ReloadFailure};
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;

use crate::chain::{Asked, Chain};
use crate::config::PolicyHostConfig;
use crate::failure::Failure;
use crate::generation::{Generation, Member};
use crate::hooks::{self, Question};
use crate::load::Loader;
use crate::load_error::{LoadError, LoadErrors};
use crate::metrics;
use crate::sandbox::SLOTS;

/// How long after its limit a decision is given up on. The sandbox ends it long before; this is for
/// the case that it does not.
const GRACE: Duration = Duration::from_secs(1);

/// The policies of a site, ready to be asked.
pub struct PolicyHost {
    generation: ArcSwap<Generation>,
    last_failure: ArcSwapOption<ReloadFailure>,
    /// Policies are loaded by one at a time.
    loader: Mutex<Loader>,
    turns: Arc<Semaphore>,
}

impl PolicyHost {
    /// Reads, checks, compiles and asks about their settings all policies of a configuration. Blocks,
    /// for some hundred milliseconds where nothing is compiled yet: not for an asynchronous task.
    /// `now` is when it is done, for [`status`](Self::status).
    ///
    /// # Errors
    /// Everything that is wrong with any policy that is not optional. One that is optional is left
    /// out, and what is wrong with it logged.
    pub fn load(config: PolicyHostConfig, now: Timestamp) -> Result<Self, LoadErrors> {
        metrics::describe();
        let mut loader = Loader::default();
        let generation = loader.load(config, None, now)?;
        generation.shown();
        Ok(Self {
            generation: ArcSwap::from_pointee(generation),
            last_failure: ArcSwapOption::empty(),
            loader: Mutex::new(loader),
            turns: Arc::new(Semaphore::new(SLOTS as usize)),
        })
    }

    /// Loads the policies of a configuration in place of those in force, as a whole or not at all.
    /// Decisions under way are finished by the policies that they began with. What is already
    /// compiled is not compiled again, and a policy that is the same as before goes on counting.
    /// Blocks like [`load`](Self::load).
    ///
    /// # Errors
    /// Everything that is wrong with any policy but one that is optional and is left out already. The
    /// policies in force stay, and [`status`](Self::status) tells of it until a reload succeeds.
    pub fn reload(&self, config: PolicyHostConfig, now: Timestamp) -> Result<(), LoadErrors> {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.generation.load_full();
        match loader.load(config, Some(&before), now) {
            Ok(generation) => {
                metrics::reloaded(true);
                before.retire();
                generation.shown();
                self.generation.store(Arc::new(generation));
                self.last_failure.store(None);
                Ok(())
            }
            Err(errors) => {
                metrics::reloaded(false);
                let problems = errors.iter().map(LoadError::told).collect();
                let failure = ReloadFailure { at: now, problems };
                self.last_failure.store(Some(Arc::new(failure)));
                for error in errors.iter() {
                    let step = error.problem.step();
                    tracing::error!(%error, %step, "policies are not reloaded; those in force stay");
                }
                Err(errors)
            }
        }
    }

    /// Counts a reload that failed before there was a configuration to [`reload`](Self::reload).
    pub fn reload_refused(&self) {
        metrics::reloaded(false);
    }

    /// The policies in force and how they fare, and why the last load failed if it did.
    pub fn status(&self) -> PoliciesStatus {
        PoliciesStatus {
            last_failure: self.last_failure.load().as_deref().cloned(),
            ..self.generation.load().status()
        }
    }

    /// Like [`Policies::select_image`], on the calling thread: for measuring, and for tools that have
    /// no runtime. Not for an asynchronous task.
    pub fn decide_image(&self, facts: &JobFacts, purpose: Purpose) -> Ruling<Choice> {
        self.rule_here(hooks::ImageSelection(purpose), facts)
    }

    /// Like [`Policies::select_site_url`], on the calling thread. Not for an asynchronous task.
    pub fn decide_site_url(&self, facts: &JobFacts) -> Ruling<Choice> {
        self.rule_here(hooks::SiteUrl, facts)
    }

    /// Like [`Policies::retry`], on the calling thread. Not for an asynchronous task.
    pub fn decide_retry(&self, facts: &JobFacts) -> Ruling<RetryVerdict> {
        self.rule_here(hooks::Retry, facts)
    }

    /// Like [`Policies::retention`], on the calling thread. Not for an asynchronous task.
    pub fn decide_retention(&self, facts: &JobFacts) -> Ruling<RetentionVerdict> {
        self.rule_here(hooks::Retention, facts)
    }

    fn rule_here<Q: Question>(&self, question: Q, facts: &JobFacts) -> Ruling<Q::Verdict> {
        let generation = self.generation.load_full();
        let mut chain = Chain::new(Q::HOOK);
        let mut facts = Arc::new(facts.clone());
        for member in generation.asked(Q::HOOK) {
            let asked = member
                .in_quarantine::<Q>()
                .unwrap_or_else(|| member.ask(question, Arc::clone(&facts)));
            if chain.take(&member.policy().identity, asked, Arc::make_mut(&mut facts)) {
                break;
            }
        }
        chain.finish()
    }

    async fn rule<Q: Question>(&self, question: Q, facts: &JobFacts) -> Ruling<Q::Verdict> {
        let generation = self.generation.load_full();
        let mut chain = Chain::new(Q::HOOK);
        let mut facts = Arc::new(facts.clone());
        for member in generation.asked(Q::HOOK) {
            let asked = match member.in_quarantine::<Q>() {
                Some(asked) => asked,
                None => {
                    self.ask_elsewhere(member, question, Arc::clone(&facts))
                        .await
                }
            };
            if chain.take(&member.policy().identity, asked, Arc::make_mut(&mut facts)) {
                break;
            }
        }
        chain.finish()
    }

    /// Asks on a thread where nothing else waits: a guest may take all of its time. The decision goes
    /// on there when whoever waits for it here has gone, and keeps its turn until it has ended.
    async fn ask_elsewhere<Q: Question>(
        &self,
        member: &Arc<Member>,
        question: Q,
        facts: Arc<JobFacts>,
    ) -> Asked<Q::Verdict> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let begin = Instant::now();
        let limit = member.policy().limits.time;
        let decision = task::spawn_blocking({
            let member = Arc::clone(member);
            move || {
                let asked = member.ask(question, facts);
                drop(turn);
                asked
            }
        });
        let failure = match timeout(limit + GRACE, decision).await {
            Ok(Ok(asked)) => return asked,
            Ok(Err(error)) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Ok(Err(_)) => Failure::Load("the service is shutting down".to_owned()),
            Err(_) => Failure::Timeout(limit),
        };
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Asked {
            answer: Err(failure),
            read: Vec::new(),
            micros,
        }
    }
}

#[async_trait]
impl Policies for PolicyHost {
    async fn select_image(&self, facts: &JobFacts, purpose: Purpose) -> Ruling<Choice> {
        self.rule(hooks::ImageSelection(purpose), facts).await
    }

    async fn select_site_url(&self, facts: &JobFacts) -> Ruling<Choice> {
        self.rule(hooks::SiteUrl, facts).await
    }

    async fn retry(&self, facts: &JobFacts) -> Ruling<RetryVerdict> {
        self.rule(hooks::Retry, facts).await
    }

    async fn retention(&self, facts: &JobFacts) -> Ruling<RetentionVerdict> {
        self.rule(hooks::Retention, facts).await
    }
}
