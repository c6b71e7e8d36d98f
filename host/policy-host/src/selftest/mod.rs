//! Proof, on the machine that it runs on, that the limits of the sandbox bite: a few policies that
//! try to break out of them, each expected to fail in its own way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Attempt, DecisionOutcome, EndReason, JobFacts, JobKind, RetryVerdict, Timestamp};
use wasmtime::component::Component;

use crate::chain::Identity;
use crate::config::{Limits, Mode, OnFailure, PolicyGrants};
use crate::hooks::{self, Exports};
use crate::load::interfaces::Interfaces;
use crate::load_error::LoadProblem;
use crate::policy::Policy;
use crate::sandbox::Sandbox;

const FRAME: &str = include_str!("frame.wat");
const UNCOVERED_IMPORT: &str = include_str!("uncovered_import.wat");

/// Time for policies that must not run out of it, on a busy machine too.
const PLENTY: Duration = Duration::from_secs(5);
/// Time for the one that must.
const SHORT: Duration = Duration::from_millis(20);
/// How late a decision may end. Far more than it takes: what is late by this much is not being ended.
const FAR_TOO_LATE: Duration = Duration::from_secs(1);

/// How the limits of the sandbox hold on this machine.
#[derive(Debug)]
pub struct SelftestReport {
    /// What was tried, in order.
    pub checks: Vec<SelftestCheck>,
    /// How long after their time was up endless decisions ended: the median and the longest.
    pub overshoot: Option<(Duration, Duration)>,
}

/// One attempt to break out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelftestCheck {
    /// What was tried.
    pub name: &'static str,
    /// What had to come of it.
    pub expected: String,
    /// What did.
    pub seen: String,
    /// Whether that is the same.
    pub passed: bool,
}

impl SelftestReport {
    /// Whether every limit holds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// A policy, and how it has to end.
struct Hostile {
    name: &'static str,
    fields: &'static str,
    /// `None`: it answers, having found nothing.
    failure: Option<DecisionOutcome>,
    time: Duration,
    times: u32,
}

const fn fails(name: &'static str, fields: &'static str, outcome: DecisionOutcome) -> Hostile {
    Hostile {
        name,
        fields,
        failure: Some(outcome),
        time: PLENTY,
        times: 1,
    }
}

const HOSTILE: [Hostile; 8] = [
    Hostile {
        time: SHORT,
        times: 20,
        ..fails(
            "an endless loop",
            include_str!("endless_loop.wat"),
            DecisionOutcome::Timeout,
        )
    },
    fails(
        "growing memory",
        include_str!("memory_growth.wat"),
        DecisionOutcome::Memory,
    ),
    fails(
        "growing a table",
        include_str!("table_growth.wat"),
        DecisionOutcome::Table,
    ),
    fails(
        "endless recursion",
        include_str!("recursion.wat"),
        DecisionOutcome::Stack,
    ),
    fails(
        "a flood of calls to the host",
        include_str!("host_calls.wat"),
        DecisionOutcome::HostCalls,
    ),
    fails(
        "an answer of 64 KiB",
        include_str!("huge_answer.wat"),
        DecisionOutcome::OutputTooLarge,
    ),
    Hostile {
        name: "looking for variables of the environment",
        fields: include_str!("environment.wat"),
        failure: None,
        time: PLENTY,
        times: 1,
    },
    Hostile {
        name: "looking for what a decision before left behind",
        fields: include_str!("state.wat"),
        failure: None,
        time: PLENTY,
        times: 100,
    },
];

/// Tries to break out of the sandbox. Blocks, for about a second: not for an asynchronous task.
pub fn selftest() -> SelftestReport {
    let mut report = SelftestReport {
        checks: Vec::new(),
        overshoot: None,
    };
    let sandbox = match Sandbox::new() {
        Ok(sandbox) => sandbox,
        Err(error) => {
            report.checks.push(SelftestCheck {
                name: "making a sandbox",
                expected: "there is one".to_owned(),
                seen: error.to_string(),
                passed: false,
            });
            return report;
        }
    };
    for hostile in &HOSTILE {
        let (check, took) = hostile.try_to_break_out(&sandbox);
        report.checks.push(check);
        if hostile.failure == Some(DecisionOutcome::Timeout) {
            report.overshoot = overshoot(took, hostile.time);
        }
    }
    report.checks.push(imports_what_nobody_grants());
    report
}

/// The median and the longest of what decisions took beyond their time.
fn overshoot(mut took: Vec<Duration>, time: Duration) -> Option<(Duration, Duration)> {
    took.sort_unstable();
    let beyond = |index: usize| took.get(index).map(|took| took.saturating_sub(time));
    Some((beyond(took.len() / 2)?, beyond(took.len().checked_sub(1)?)?))
}

impl Hostile {
    /// Asks until it does not end as it has to. Gives how long each decision took, too.
    fn try_to_break_out(&self, sandbox: &Arc<Sandbox>) -> (SelftestCheck, Vec<Duration>) {
        let wanted = match self.failure {
            Some(outcome) => outcome.as_str().to_owned(),
            None => "nothing found".to_owned(),
        };
        let check = |seen: String, passed| SelftestCheck {
            name: self.name,
            expected: wanted.clone(),
            seen,
            passed,
        };
        let mut took = Vec::new();
        let policy = match self.policy(sandbox) {
            Ok(policy) => policy,
            Err(problem) => return (check(problem, false), took),
        };
        let facts = Arc::new(failed_job());
        let mut seen = String::new();
        for _ in 0..self.times {
            let begin = Instant::now();
            let asked = policy.ask(hooks::Retry, Arc::clone(&facts));
            took.push(begin.elapsed());
            let as_wanted = match (&asked.answer, self.failure) {
                (Err(failure), Some(outcome)) => failure.outcome() == outcome,
                (Ok(said), None) => said.verdict == RetryVerdict::Pass,
                _ => false,
            };
            seen = match &asked.answer {
                Ok(_) if as_wanted => wanted.clone(),
                Ok(said) => format!("the answer {:?}", said.verdict),
                Err(failure) => format!("{}: {failure}", failure.outcome().as_str()),
            };
            if !as_wanted {
                return (check(seen, false), took);
            }
        }
        let late = took.iter().any(|took| *took > self.time + FAR_TOO_LATE);
        (check(seen, !late), took)
    }

    /// As it is when it is loaded, without being asked about sample jobs: those it would not survive.
    fn policy(&self, sandbox: &Arc<Sandbox>) -> Result<Policy, String> {
        let text = |error: wasmtime::Error| format!("{error:#}");
        let bytes = wat::parse_str(FRAME.replace("(; fields ;)", self.fields))
            .map_err(|error| error.to_string())?;
        let component = Component::from_binary(&sandbox.engine, &bytes).map_err(text)?;
        let grants = PolicyGrants::default();
        let instances = sandbox.link(&component, &grants).map_err(text)?;
        let exports = Exports::find(&component).map_err(|wrong| wrong.detail)?;
        Ok(Policy {
            identity: Identity {
                name: self.name.to_owned(),
                component_sha256: String::new(),
                settings_sha256: String::new(),
                on_failure: OnFailure::FailClosed,
                mode: Mode::Enforce,
            },
            hooks: exports.hooks(),
            limits: Limits {
                time: self.time,
                ..Limits::default()
            },
            settings: Arc::default(),
            grants: Arc::new(grants),
            exports,
            instances,
            sandbox: Arc::clone(sandbox),
        })
    }
}

fn imports_what_nobody_grants() -> SelftestCheck {
    let read = || {
        let bytes = wat::parse_str(UNCOVERED_IMPORT).map_err(|error| error.to_string())?;
        let read = Interfaces::read(&bytes).map_err(|error| error.to_string())?;
        Ok::<_, String>(read.problems())
    };
    let (seen, passed) = match read().as_deref() {
        Ok([problem @ LoadProblem::UncoveredImport(_)]) => (format!("refused: it {problem}"), true),
        Ok(problems) => (format!("{problems:?}"), false),
        Err(error) => (error.to_owned(), false),
    };
    SelftestCheck {
        name: "importing the network",
        expected: "refused".to_owned(),
        seen,
        passed,
    }
}

/// A recording that could not be started.
fn failed_job() -> JobFacts {
    let (submitted_at, now) = (Timestamp::from_millis(0), Timestamp::from_millis(1_000));
    let image = "registry/recorder:v1";
    let attempts = image.parse().map(|image| Attempt {
        ended_at: Some(now),
        reason: Some(EndReason::StartFailed),
        ..Attempt::new(1, image, submitted_at)
    });
    JobFacts {
        id: "selftest".to_owned(),
        client: "selftest".to_owned(),
        kind: JobKind::Recording,
        image_asked: image.to_owned(),
        image_chosen: image.to_owned(),
        site_url_asked: String::new(),
        site_url_chosen: String::new(),
        max_duration: Duration::from_secs(3600),
        submitted_at,
        now,
        start_by: Timestamp::from_millis(100_000),
        attempts: attempts.into_iter().collect(),
        delivery: None,
        inputs: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_bite_here() {
        let report = selftest();
        assert!(report.passed(), "{report:#?}");
        assert_eq!(report.checks.len(), HOSTILE.len() + 1);
        let (median, longest) = report.overshoot.unwrap();
        assert!(median <= longest && longest < FAR_TOO_LATE);
    }

    #[test]
    fn a_limit_that_does_not_bite_is_told() {
        let sandbox = Sandbox::new().unwrap();
        let told = |hostile: Hostile| {
            let (check, _) = hostile.try_to_break_out(&sandbox);
            assert!(!check.passed, "{check:?}");
            check.seen
        };
        let harmless = include_str!("state.wat");
        let seen = told(fails("it is stopped", harmless, DecisionOutcome::Timeout));
        assert_eq!(seen, "the answer Pass");
        let seen = told(fails(
            "it runs out of time",
            include_str!("memory_growth.wat"),
            DecisionOutcome::Timeout,
        ));
        assert_eq!(seen, "memory: wanted more than 16777216 bytes of memory");
        let finds = Hostile {
            failure: None,
            ..fails(
                "it finds something",
                "(func (export \"decide-retry\") (param i32) (result i32) unreachable)",
                DecisionOutcome::Trap,
            )
        };
        assert!(told(finds).starts_with("trap: "));
    }
}
