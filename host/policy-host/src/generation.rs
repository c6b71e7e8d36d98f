//! The policies that are in force together, and how each of them fares.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use domain::{DecisionOutcome, Hook, JobFacts, Timestamp};
use engine::{
    GrantedToPolicy, PoliciesStatus, PolicyCounters, PolicyLimits, PolicyStatus, ReloadProblem,
};

use crate::chain::{Asked, Identity};
use crate::config::{Limits, PolicyGrants};
use crate::failure::Failure;
use crate::hooks::Question;
use crate::metrics::{self, Meters};
use crate::policy::Policy;

/// A policy that went through all steps of loading.
pub(crate) struct Loaded {
    pub(crate) policy: Policy,
    /// Its file, below the policies' directory.
    pub(crate) component: String,
    /// The trusted key whose signature the file carries.
    pub(crate) signed_by: Option<String>,
    /// The keys of grants that it makes no use of.
    pub(crate) unused_grants: Vec<&'static str>,
}

/// Policies that were loaded together. A decision is made by one generation from its beginning to
/// its end, whatever is loaded meanwhile.
pub(crate) struct Generation {
    number: u64,
    loaded_at: Timestamp,
    members: Vec<Arc<Member>>,
    /// What was wrong with optional policies that it has to do without.
    left_out: Vec<ReloadProblem>,
}

impl Generation {
    /// The generation that follows `previous`. A policy that is the same in both goes on counting.
    pub(crate) fn new(
        previous: Option<&Self>,
        loaded_at: Timestamp,
        loaded: Vec<Loaded>,
        left_out: Vec<ReloadProblem>,
        quarantine_after: Option<NonZeroU32>,
    ) -> Self {
        let counts = |policy: &Policy| {
            let mut before = previous.into_iter().flat_map(|before| &before.members);
            let same = before.find(|member| is_same(&member.loaded.policy, policy));
            same.map_or_else(Arc::default, |member| Arc::clone(&member.counts))
        };
        let members = loaded.into_iter().map(|loaded| {
            Arc::new(Member {
                counts: counts(&loaded.policy),
                meters: Meters::new(&loaded.policy.identity.name, &loaded.policy.hooks),
                loaded,
                quarantine_after,
                failures_in_a_row: AtomicU32::new(0),
                quarantined_since: OnceLock::new(),
                retired: Mutex::new(false),
            })
        });
        Self {
            number: previous.map_or(0, |previous| previous.number) + 1,
            loaded_at,
            members: members.collect(),
            left_out,
        }
    }

    /// Shows in the metrics that this generation is in force.
    pub(crate) fn shown(&self) {
        metrics::generation(self.number);
    }

    /// Makes room for the next generation. Decisions under way go on; that a policy fails in them
    /// tells nothing about those that are to come.
    pub(crate) fn retire(&self) {
        self.members.iter().for_each(|member| member.retire());
    }

    /// Whether this generation does without an optional policy of that name.
    pub(crate) fn left_out(&self, name: &str) -> bool {
        let mut names = self.left_out.iter().filter_map(|out| out.policy.as_deref());
        names.any(|out| out == name)
    }

    /// The policies that answer a hook, in the order in which they are asked.
    pub(crate) fn asked(&self, hook: Hook) -> impl Iterator<Item = &Arc<Member>> {
        let answers = move |member: &&Arc<Member>| member.policy().hooks.contains(&hook);
        self.members.iter().filter(answers)
    }

    /// The policies, in the order in which they are asked.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.members.iter().map(|member| member.policy())
    }

    pub(crate) fn status(&self) -> PoliciesStatus {
        PoliciesStatus {
            generation: self.number,
            loaded_at: self.loaded_at,
            policies: self.members.iter().map(|member| member.status()).collect(),
            left_out: self.left_out.clone(),
            last_failure: None,
        }
    }
}

/// Whether a policy stayed what it was: what it does then is a continuation. Whether its answers have
/// an effect is not part of that.
fn is_same(before: &Policy, now: &Policy) -> bool {
    fn what(of: &Identity) -> (&str, &str, &str) {
        (&of.name, &of.component_sha256, &of.settings_sha256)
    }
    what(&before.identity) == what(&now.identity)
        && before.limits == now.limits
        && before.grants.env == now.grants.env
        && granted(&before.grants) == granted(&now.grants)
}

/// A policy in force.
pub(crate) struct Member {
    loaded: Loaded,
    counts: Arc<Counts>,
    meters: Meters,
    quarantine_after: Option<NonZeroU32>,
    /// Not kept over reloads: those that load policies anew have mended something, and decisions of
    /// the generation before do not count against this one.
    failures_in_a_row: AtomicU32,
    quarantined_since: OnceLock<Timestamp>,
    /// Whether the next generation takes its place. Locked while a quarantine is told of, so that
    /// nothing is told after that.
    retired: Mutex<bool>,
}

/// What a policy did since it was loaded.
#[derive(Debug, Default)]
struct Counts {
    decisions: AtomicU64,
    failures: AtomicU64,
}

impl Member {
    pub(crate) fn policy(&self) -> &Policy {
        &self.loaded.policy
    }

    /// The answer in place of a policy that is not asked, because it had failed too often in a row.
    pub(crate) fn in_quarantine<Q: Question>(&self) -> Option<Asked<Q::Verdict>> {
        self.quarantined_since.get()?;
        self.count(Q::HOOK, DecisionOutcome::Quarantined);
        Some(Asked {
            answer: Err(Failure::Quarantined),
            read: Vec::new(),
            micros: 0,
        })
    }

    /// Asks the policy, on the calling thread, and takes note of how it went.
    pub(crate) fn ask<Q: Question>(&self, question: Q, facts: Arc<JobFacts>) -> Asked<Q::Verdict> {
        let now = facts.now;
        let deciding = self.meters.deciding();
        let asked = self.policy().ask(question, facts);
        drop(deciding);
        self.note::<Q>(&asked, now);
        asked
    }

    fn note<Q: Question>(&self, asked: &Asked<Q::Verdict>, now: Timestamp) {
        self.counts.decisions.fetch_add(1, Relaxed);
        self.meters.took(Q::HOOK, asked.micros);
        let answer = asked.answer.as_ref();
        let outcome =
            answer.map_or_else(|failure| failure.outcome(), |_| DecisionOutcome::Answered);
        self.count(Q::HOOK, outcome);
        let Err(failure) = answer else {
            // Read first: threads that decide at once would pass the line back and forth.
            if self.failures_in_a_row.load(Relaxed) > 0 {
                self.failures_in_a_row.store(0, Relaxed);
            }
            return;
        };
        self.counts.failures.fetch_add(1, Relaxed);
        if !failure.is_the_policys() {
            return;
        }
        let failures = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
        let too_many = |limit: NonZeroU32| failures >= limit.get();
        if self.quarantine_after.is_some_and(too_many) && self.quarantined_since.set(now).is_ok() {
            self.tell_quarantine(failures, failure);
        }
    }

    fn tell_quarantine(&self, failures: u32, last: &Failure) {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if *retired {
            return;
        }
        self.meters.quarantined(true);
        tracing::error!(
            policy = self.policy().identity.name, failures, %last,
            "a policy failed too often in a row and is in quarantine: its on_failure answers \
             without asking it until policies are reloaded; mend it and reload"
        );
    }

    fn retire(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        *retired = true;
        self.meters.quarantined(false);
    }

    fn count(&self, hook: Hook, outcome: DecisionOutcome) {
        let policy = &self.policy().identity.name;
        self.meters.decided(policy, hook, outcome);
    }

    fn status(&self) -> PolicyStatus {
        let Loaded {
            policy,
            component,
            signed_by,
            ..
        } = &self.loaded;
        let identity = &policy.identity;
        PolicyStatus {
            name: identity.name.clone(),
            component: component.clone(),
            component_sha256: identity.component_sha256.clone(),
            settings_sha256: identity.settings_sha256.clone(),
            signed_by: signed_by.clone(),
            hooks: policy.hooks.clone(),
            mode: identity.mode.as_str(),
            on_failure: identity.on_failure.as_str(),
            quarantined_since: self.quarantined_since.get().copied(),
            limits: limits(&policy.limits),
            grants: granted(&policy.grants),
            counters: PolicyCounters {
                decisions: self.counts.decisions.load(Relaxed),
                failures: self.counts.failures.load(Relaxed),
                failures_in_a_row: self.failures_in_a_row.load(Relaxed),
            },
        }
    }
}

fn limits(limits: &Limits) -> PolicyLimits {
    PolicyLimits {
        component_size_bytes: limits.component_size,
        time_ms: crate::guest::millis(limits.time),
        memory_bytes: limits.memory,
        table_elements: limits.table_elements,
        host_calls: limits.host_calls,
        output_bytes: limits.output,
        log_bytes: limits.log,
    }
}

fn granted(grants: &PolicyGrants) -> GrantedToPolicy {
    let dirs = grants.dirs.iter();
    GrantedToPolicy {
        inputs: grants.inputs.iter().cloned().collect(),
        env: grants.env.keys().cloned().collect(),
        dirs: dirs
            .map(|grant| (grant.guest_path.clone(), grant.write))
            .collect(),
        real_clock: grants.real_clock,
        real_entropy: grants.real_entropy,
    }
}
