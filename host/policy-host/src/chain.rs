//! How the answers of several policies become one ruling. Pure: who asks, and how, is not known here.

use domain::{
    Choice, Decision, DecisionOutcome, Denial, Hook, JobFacts, RetentionVerdict, RetryVerdict,
    Ruling,
};

use crate::config::{Mode, OnFailure};
use crate::failure::Failure;

/// What a decision says about the policy that made it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) component_sha256: String,
    pub(crate) settings_sha256: String,
    pub(crate) on_failure: OnFailure,
    pub(crate) mode: Mode,
}

/// A policy's answer: a verdict, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said<V> {
    pub(crate) verdict: V,
    pub(crate) reason: Option<String>,
}

/// How asking a policy went.
#[derive(Debug)]
pub(crate) struct Asked<V> {
    pub(crate) answer: Result<Said<V>, Failure>,
    pub(crate) read: Vec<String>,
    pub(crate) micros: u64,
}

/// The verdicts of a hook.
pub(crate) trait Verdict: Clone + Send + 'static {
    /// No opinion.
    const PASS: Self;
    /// The careful answer in place of a policy that failed.
    fn fail_closed(policy: &str) -> Self;
    /// Whether this is no opinion.
    fn is_pass(&self) -> bool;
    /// Whether the policies that follow are not asked any more.
    fn settles(&self) -> bool;
    /// Its name in a decision.
    fn name(&self) -> &'static str;
    /// What it carries, as text.
    fn value(&self) -> Option<String> {
        None
    }
    /// Bytes of the texts that it carries.
    fn bytes(&self) -> usize {
        0
    }
    /// What it tells people itself.
    fn message(&self) -> Option<&str> {
        None
    }
    /// Makes it the choice so far, for the policies that follow.
    fn choose(&self, _: Hook, _: &mut JobFacts) {}
}

/// The first denial ends the chain; each policy sees what the one before chose.
impl Verdict for Choice {
    const PASS: Self = Self::AsAsked;

    fn fail_closed(policy: &str) -> Self {
        let message = format!("policy {policy} failed to decide");
        Self::Deny(Denial {
            code: "policy-failed".to_owned(),
            message,
        })
    }

    fn is_pass(&self) -> bool {
        matches!(self, Self::AsAsked)
    }

    fn settles(&self) -> bool {
        matches!(self, Self::Deny(_))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::AsAsked => "pass",
            Self::Use(_) => "use",
            Self::Deny(_) => "deny",
        }
    }

    fn value(&self) -> Option<String> {
        match self {
            Self::AsAsked => None,
            Self::Use(text) => Some(text.clone()),
            Self::Deny(denial) => Some(denial.code.clone()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::AsAsked => 0,
            Self::Use(text) => text.len(),
            Self::Deny(denial) => denial.code.len() + denial.message.len(),
        }
    }

    fn message(&self) -> Option<&str> {
        match self {
            Self::Deny(denial) => Some(&denial.message),
            _ => None,
        }
    }

    fn choose(&self, hook: Hook, facts: &mut JobFacts) {
        if let Self::Use(text) = self {
            match hook {
                Hook::SiteUrl => facts.site_url_chosen.clone_from(text),
                _ => facts.image_chosen.clone_from(text),
            }
        }
    }
}

/// The first opinion decides.
impl Verdict for RetryVerdict {
    const PASS: Self = Self::Pass;

    fn fail_closed(_: &str) -> Self {
        Self::GiveUp
    }

    fn is_pass(&self) -> bool {
        matches!(self, Self::Pass)
    }

    fn settles(&self) -> bool {
        !self.is_pass()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::GiveUp => "give-up",
            Self::RetryAfter(_) => "retry",
        }
    }

    fn value(&self) -> Option<String> {
        match self {
            Self::RetryAfter(delay) => Some(delay.as_millis().to_string()),
            _ => None,
        }
    }
}

/// The first opinion decides.
impl Verdict for RetentionVerdict {
    const PASS: Self = Self::Pass;

    fn fail_closed(_: &str) -> Self {
        Self::Keep
    }

    fn is_pass(&self) -> bool {
        matches!(self, Self::Pass)
    }

    fn settles(&self) -> bool {
        !self.is_pass()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Delete => "delete",
            Self::KeepFor(_) => "keep-for",
            Self::Keep => "keep",
        }
    }

    fn value(&self) -> Option<String> {
        match self {
            Self::KeepFor(duration) => Some(duration.as_millis().to_string()),
            _ => None,
        }
    }
}

/// A ruling in the making.
pub(crate) struct Chain<V> {
    hook: Hook,
    ruling: Ruling<V>,
}

impl<V: Verdict> Chain<V> {
    pub(crate) fn new(hook: Hook) -> Self {
        let ruling = Ruling {
            verdict: V::PASS,
            by: None,
            decisions: Vec::new(),
        };
        Self { hook, ruling }
    }

    /// Takes a policy's answer in, and shows its choice to those that follow. Says whether that
    /// settles the question.
    pub(crate) fn take(
        &mut self,
        policy: &Identity,
        asked: Asked<V>,
        facts: &mut JobFacts,
    ) -> bool {
        let (outcome, verdict, reason) = match asked.answer {
            Ok(said) => {
                let reason = said.verdict.message().map(str::to_owned).or(said.reason);
                (DecisionOutcome::Answered, said.verdict, reason)
            }
            Err(failure) => {
                let verdict = match policy.on_failure {
                    OnFailure::FailClosed => V::fail_closed(&policy.name),
                    OnFailure::Skip => V::PASS,
                };
                (failure.outcome(), verdict, Some(failure.to_string()))
            }
        };
        let enforced = policy.mode == Mode::Enforce;
        // Of a quarantine it is told once, when it begins.
        let known = [DecisionOutcome::Answered, DecisionOutcome::Quarantined].contains(&outcome);
        if enforced && !known {
            tracing::warn!(
                policy = policy.name, hook = %self.hook, outcome = outcome.as_str(), reason,
                verdict = verdict.name(), "a policy failed and its on_failure decided"
            );
        }
        self.ruling.decisions.push(Decision {
            at: facts.now,
            hook: self.hook,
            attempt: facts.attempts.last().map(|attempt| attempt.number),
            policy: policy.name.clone(),
            component_sha256: policy.component_sha256.clone(),
            settings_sha256: policy.settings_sha256.clone(),
            read: asked.read,
            outcome,
            enforced,
            verdict: verdict.name().to_owned(),
            value: verdict.value(),
            reason,
            micros: asked.micros,
        });
        if !enforced {
            return false;
        }
        let settled = verdict.settles();
        if !verdict.is_pass() {
            verdict.choose(self.hook, facts);
            self.ruling.by = Some(policy.name.clone());
            self.ruling.verdict = verdict;
        }
        settled
    }

    pub(crate) fn finish(self) -> Ruling<V> {
        self.ruling
    }
}

#[cfg(test)]
mod tests;
