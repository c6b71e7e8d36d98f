//! A policy's decision as the API shows it.

use domain::Decision;
use serde::Serialize;

/// A decision: what the owner of its job sees of it, and what the administrator sees beside.
#[derive(Serialize)]
pub(crate) struct DecisionBody<'a> {
    at: i64,
    hook: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    policy: &'a str,
    outcome: &'static str,
    verdict: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings_sha256: Option<&'a str>,
}

impl<'a> DecisionBody<'a> {
    /// What was decided, and why.
    pub(crate) fn for_owner(decision: &'a Decision) -> Self {
        Self {
            at: decision.at.as_millis(),
            hook: decision.hook.as_str(),
            attempt: decision.attempt,
            policy: &decision.policy,
            outcome: decision.outcome.as_str(),
            verdict: &decision.verdict,
            value: decision.value.as_deref(),
            reason: decision.reason.as_deref(),
            micros: None,
            enforced: None,
            read: None,
            component_sha256: None,
            settings_sha256: None,
        }
    }

    /// All that is recorded.
    pub(crate) fn for_administrator(decision: &'a Decision) -> Self {
        Self {
            micros: Some(decision.micros),
            enforced: Some(decision.enforced),
            read: Some(&decision.read),
            component_sha256: Some(&decision.component_sha256),
            settings_sha256: Some(&decision.settings_sha256),
            ..Self::for_owner(decision)
        }
    }
}
