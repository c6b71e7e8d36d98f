//! The port: a chain of policies for each hook.

use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use domain::{Choice, Hook, JobFacts, Purpose, RetentionVerdict, RetryVerdict, Ruling};
use engine::Policies;
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;

use crate::chain::{Asked, Chain};
use crate::config::{Mode, OnFailure, PolicyHostConfig};
use crate::failure::Failure;
use crate::hooks::{self, Question};
use crate::load::load;
use crate::load_error::LoadErrors;
use crate::policy::Policy;
use crate::sandbox::SLOTS;

/// How long after its limit a decision is given up on. The sandbox ends it long before; this is for
/// the case that it does not.
const GRACE: Duration = Duration::from_secs(1);

/// The policies of a site, ready to be asked.
pub struct PolicyHost {
    policies: Vec<Arc<Policy>>,
    turns: Semaphore,
}

/// What is known about a loaded policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInfo<'a> {
    /// Its configured name.
    pub name: &'a str,
    /// sha256 of the component, hexadecimal.
    pub component_sha256: &'a str,
    /// sha256 of its settings, hexadecimal.
    pub settings_sha256: &'a str,
    /// The hooks that it exports.
    pub hooks: &'a [Hook],
    /// Whether its answers have an effect.
    pub mode: Mode,
    /// What follows when it fails.
    pub on_failure: OnFailure,
}

impl PolicyHost {
    /// Reads, checks, compiles and asks about their settings all policies of a configuration. Blocks,
    /// for some hundred milliseconds where nothing is compiled yet: not for an asynchronous task.
    ///
    /// # Errors
    /// Everything that is wrong with any policy that is not optional. One that is optional is left
    /// out, and what is wrong with it logged.
    pub fn load(config: PolicyHostConfig) -> Result<Self, LoadErrors> {
        let policies = load(config)?.into_iter().map(Arc::new).collect();
        Ok(Self {
            policies,
            turns: Semaphore::new(SLOTS as usize),
        })
    }

    /// The loaded policies, in the order in which they are asked.
    pub fn policies(&self) -> impl Iterator<Item = PolicyInfo<'_>> {
        self.policies.iter().map(|policy| PolicyInfo {
            name: &policy.identity.name,
            component_sha256: &policy.identity.component_sha256,
            settings_sha256: &policy.identity.settings_sha256,
            hooks: &policy.hooks,
            mode: policy.identity.mode,
            on_failure: policy.identity.on_failure,
        })
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

    fn asked(&self, hook: Hook) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies
            .iter()
            .filter(move |policy| policy.hooks.contains(&hook))
    }

    fn rule_here<Q: Question>(&self, question: Q, facts: &JobFacts) -> Ruling<Q::Verdict> {
        let mut chain = Chain::new(Q::HOOK);
        let mut facts = Arc::new(facts.clone());
        for policy in self.asked(Q::HOOK) {
            let asked = policy.ask(question, Arc::clone(&facts));
            if chain.take(&policy.identity, asked, Arc::make_mut(&mut facts)) {
                break;
            }
        }
        chain.finish()
    }

    async fn rule<Q: Question>(&self, question: Q, facts: &JobFacts) -> Ruling<Q::Verdict> {
        let mut chain = Chain::new(Q::HOOK);
        let mut facts = Arc::new(facts.clone());
        for policy in self.asked(Q::HOOK) {
            let asked = self
                .ask_elsewhere(policy, question, Arc::clone(&facts))
                .await;
            if chain.take(&policy.identity, asked, Arc::make_mut(&mut facts)) {
                break;
            }
        }
        chain.finish()
    }

    /// Asks on a thread where nothing else waits: a guest may take all of its time.
    async fn ask_elsewhere<Q: Question>(
        &self,
        policy: &Arc<Policy>,
        question: Q,
        facts: Arc<JobFacts>,
    ) -> Asked<Q::Verdict> {
        let turn = self.turns.acquire().await;
        let begin = Instant::now();
        let limit = policy.limits.time;
        let decision = task::spawn_blocking({
            let policy = Arc::clone(policy);
            move || policy.ask(question, facts)
        });
        let failure = match timeout(limit + GRACE, decision).await {
            Ok(Ok(asked)) => return asked,
            Ok(Err(error)) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Ok(Err(_)) => Failure::Load("the service is shutting down".to_owned()),
            Err(_) => Failure::Timeout(limit),
        };
        drop(turn);
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
