//! Retries attempts that failed for a passing reason, each later than the one before.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `attempts` | 3 | attempts of a job at most, the first one counted |
//! | `first_delay` | 2s | delay before the second attempt |
//! | `factor` | 2 | each further delay is this many times the one before, at least 1 |
//! | `max_delay` | 30s | no delay is longer |
//! | `jitter` | 0.2 | up to this part of a delay is taken off it, so that jobs do not retry together |
//! | `reasons` | image-unreachable, image-stalled, start-failed | failures that are retried |
//! | `after_run` | false | also when a container of the job ran; the gate must allow it too |
//!
//! No attempt is proposed for later than it may still begin.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use offloader_policy_sdk::retry::{Retry, Verdict};
use offloader_policy_sdk::settings::{self, Problem, Settings};
use offloader_policy_sdk::{FailureReason, Job, SettingsCheck};

mod backoff;

use backoff::Backoff;

struct RetryBackoff;

offloader_policy_sdk::export!(RetryBackoff: retry, settings_check);
offloader_policy_sdk::small_runtime!();

impl SettingsCheck for RetryBackoff {
    fn check_settings() -> Vec<Problem> {
        settings::check(Rules::configure)
    }
}

impl Retry for RetryBackoff {
    fn decide_retry(job: &Job) -> Verdict {
        let attempts = job.attempts();
        let Some(last) = attempts.last() else {
            return Verdict::Pass;
        };
        settings::read(Rules::configure).decide(&Failure {
            job: job.id(),
            attempts: last.number(),
            reason: last.failure().unwrap_or(FailureReason::Other),
            ever_ran: job.ever_ran(),
            time_left: Duration::from_millis(job.time_left_to_start()),
        })
    }
}

struct Rules {
    attempts: u32,
    backoff: Backoff,
    reasons: Vec<FailureReason>,
    after_run: bool,
}

struct Failure {
    job: String,
    attempts: u32,
    reason: FailureReason,
    ever_ran: bool,
    time_left: Duration,
}

impl Rules {
    fn configure(settings: &mut Settings) -> Self {
        let first = settings
            .duration("first_delay")
            .unwrap_or(Duration::from_secs(2));
        let max = settings
            .duration("max_delay")
            .unwrap_or(Duration::from_secs(30).max(first));
        if max < first {
            settings.problem("max_delay", "shorter than first_delay");
        }
        Self {
            attempts: settings.whole("attempts", 1..=100).map_or(3, |n| n as u32),
            backoff: Backoff {
                first,
                max,
                factor: settings.decimal("factor", 1000..=100_000).unwrap_or(2000),
                jitter: settings.decimal("jitter", 0..=1000).unwrap_or(200),
            },
            reasons: Self::reasons(settings),
            after_run: settings.flag("after_run").unwrap_or(false),
        }
    }

    fn reasons(settings: &mut Settings) -> Vec<FailureReason> {
        let Some(names) = settings.texts("reasons") else {
            return Vec::from([
                FailureReason::ImageUnreachable,
                FailureReason::ImageStalled,
                FailureReason::StartFailed,
            ]);
        };
        let mut reasons = Vec::new();
        for name in names {
            match FailureReason::from_name(&name) {
                Some(reason) => reasons.push(reason),
                None => settings.problem("reasons", format!("no failure is called \"{name}\"")),
            }
        }
        reasons
    }

    fn decide(&self, failure: &Failure) -> Verdict {
        let why = failure.reason.name();
        if !self.reasons.contains(&failure.reason) {
            return Verdict::give_up(format!("{why} is not retried"));
        }
        if failure.ever_ran && !self.after_run {
            return Verdict::give_up("a container of the job has run");
        }
        if failure.attempts >= self.attempts {
            return Verdict::give_up(format!(
                "{why} at attempt {} of {}",
                failure.attempts, self.attempts
            ));
        }
        let delay = self.backoff.delay(failure.attempts, &failure.job);
        if delay >= failure.time_left {
            return Verdict::give_up(format!("{why}, and no time is left for another attempt"));
        }
        let next = failure.attempts + 1;
        Verdict::after(delay, format!("{why}: attempt {next} of {}", self.attempts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(pairs: &[(&str, &str)]) -> Rules {
        let mut settings = Settings::from_pairs(pairs);
        let rules = Rules::configure(&mut settings);
        assert_eq!(settings.finish(), []);
        rules
    }

    fn failure(reason: FailureReason, attempts: u32) -> Failure {
        let time_left = Duration::from_secs(80);
        Failure {
            job: "job".into(),
            attempts,
            reason,
            ever_ran: false,
            time_left,
        }
    }

    #[test]
    fn retries_passing_failures_by_default() {
        let rules = rules(&[]);
        for (reason, name) in FailureReason::ALL {
            let retried = matches!(rules.decide(&failure(reason, 1)), Verdict::Retry(_));
            let passing = ["image-unreachable", "image-stalled", "start-failed"].contains(&name);
            assert_eq!(retried, passing, "{name}");
        }
    }

    #[test]
    fn gives_up_with_the_reason() {
        let rules = rules(&[("reasons", r#"["start-failed", "exited"]"#)]);
        let ran = Failure {
            ever_ran: true,
            ..failure(FailureReason::Exited, 1)
        };
        let late = Failure {
            time_left: Duration::from_secs(1),
            ..failure(FailureReason::StartFailed, 1)
        };
        for (failure, reason) in [
            (
                failure(FailureReason::ImageUnreachable, 1),
                "image-unreachable is not retried",
            ),
            (
                failure(FailureReason::StartFailed, 3),
                "start-failed at attempt 3 of 3",
            ),
            (ran, "a container of the job has run"),
            (
                late,
                "start-failed, and no time is left for another attempt",
            ),
        ] {
            assert_eq!(rules.decide(&failure), Verdict::GiveUp(Some(reason.into())));
        }
    }

    #[test]
    fn waits_longer_each_time() {
        let rules = rules(&[("jitter", "0"), ("attempts", "9")]);
        let delays: Vec<_> = (1..8)
            .map(
                |n| match rules.decide(&failure(FailureReason::StartFailed, n)) {
                    Verdict::Retry(again) => again.after,
                    other => panic!("{other:?}"),
                },
            )
            .collect();
        assert_eq!(
            delays,
            [2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
        );
    }

    #[test]
    fn retries_after_a_run_where_it_is_set() {
        let rules = rules(&[("reasons", r#"["exited"]"#), ("after_run", "true")]);
        let ran = Failure {
            ever_ran: true,
            ..failure(FailureReason::Exited, 1)
        };
        assert!(matches!(rules.decide(&ran), Verdict::Retry(_)));
    }

    #[test]
    fn wrong_settings_are_told() {
        let mut settings = Settings::from_pairs(&[
            ("attempts", "0"),
            ("first_delay", "40s"),
            ("max_delay", "30s"),
            ("factor", "0.5"),
            ("jitter", "2"),
            ("reasons", r#"["bored"]"#),
            ("after_run", "maybe"),
            ("delay", "1s"),
        ]);
        let _ = Rules::configure(&mut settings);
        let keys: Vec<_> = settings.finish().into_iter().map(|p| p.key).collect();
        assert_eq!(
            keys,
            [
                "max_delay",
                "attempts",
                "factor",
                "jitter",
                "reasons",
                "after_run",
                "delay"
            ]
        );
    }
}
