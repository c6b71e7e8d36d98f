//! Bounds on what retry and retention policies may ask for.
//!
//! They bind policies. What the operator configures, such as how long failed jobs are kept when
//! no policy minds, they never touch.

use std::time::Duration;

use domain::{End, JobKind, Keep, Outcome, RetentionVerdict, RetryVerdict};

use crate::{Gate, Origin, Refusal};

impl Gate {
    /// The pause before another attempt, or none, after policy `by` had its say about a job with
    /// so many `attempts`. The refusal tells what the gate refused or cut short.
    #[must_use]
    pub fn retry(
        &self,
        kind: JobKind,
        verdict: RetryVerdict,
        by: Option<&str>,
        attempts: u32,
        ever_ran: bool,
    ) -> (Option<Duration>, Option<Refusal>) {
        let RetryVerdict::RetryAfter(delay) = verdict else {
            return (None, None);
        };
        let bounds = self.grants(kind).retry;
        let refuse = |why: String, key: &str| {
            let subject = format!("another attempt after {}", in_words(delay));
            Some(refusal(
                by,
                subject,
                why,
                format!("gate.{kind}.retry.{key}"),
            ))
        };
        if ever_ran && !bounds.after_run {
            let why = "a container of the job ran, and a second run does harm";
            return (None, refuse(why.to_owned(), "after_run"));
        }
        if attempts >= bounds.max_attempts {
            return (
                None,
                refuse(
                    format!("the job had {attempts} of {} attempts", bounds.max_attempts),
                    "max_attempts",
                ),
            );
        }
        if delay > bounds.max_delay {
            let why = format!("the pause is cut to {}", in_words(bounds.max_delay));
            return (Some(bounds.max_delay), refuse(why, "max_delay"));
        }
        (Some(delay), None)
    }

    /// What happens to the data of an ended job after policy `by` had its say. Without a say,
    /// work that was done goes, and everything else stays for `failed_retention` (`None`: until
    /// somebody deletes it). The refusal tells what the gate changed.
    #[must_use]
    pub fn keep(
        &self,
        kind: JobKind,
        verdict: RetentionVerdict,
        by: Option<&str>,
        end: &End,
        failed_retention: Option<Duration>,
    ) -> (Keep, Option<Refusal>) {
        let bounds = self.grants(kind).retention;
        let (asked, subject) = match verdict {
            RetentionVerdict::Pass => return (unless_policy_minds(end, failed_retention), None),
            RetentionVerdict::Delete => (Duration::ZERO, "deleting the data at once".to_owned()),
            RetentionVerdict::KeepFor(time) => {
                (time, format!("keeping the data for {}", in_words(time)))
            }
            RetentionVerdict::Keep => (Duration::MAX, "keeping the data for ever".to_owned()),
        };
        let refuse = |why: String, key: &str| {
            Some(refusal(
                by,
                subject.clone(),
                why,
                format!("gate.{kind}.retention.{key}"),
            ))
        };
        let until = |time: Duration| Keep::Until(end.at.plus(time));
        if end.delivery.may_be_unsent() && asked < bounds.failed_at_least {
            let least = bounds.failed_at_least;
            let why = format!(
                "it may be the only copy of the work, which stays for {}",
                in_words(least)
            );
            return (until(least), refuse(why, "failed_at_least"));
        }
        if asked > bounds.at_most {
            let why = format!("it is kept for {}", in_words(bounds.at_most));
            return (until(bounds.at_most), refuse(why, "at_most"));
        }
        (
            if asked.is_zero() {
                Keep::Nothing
            } else {
                until(asked)
            },
            None,
        )
    }
}

fn unless_policy_minds(end: &End, failed_retention: Option<Duration>) -> Keep {
    match (end.outcome, failed_retention) {
        _ if end.delivery == domain::Delivery::NeverRan => Keep::Nothing,
        (Outcome::Succeeded, _) => Keep::Nothing,
        (Outcome::Failed, Some(time)) => Keep::Until(end.at.plus(time)),
        (Outcome::Failed, None) => Keep::ForEver,
    }
}

fn refusal(by: Option<&str>, subject: String, why: String, setting: String) -> Refusal {
    let origin = by.map_or(Origin::Client, |policy| Origin::Policy(policy.to_owned()));
    Refusal {
        origin,
        subject,
        why,
        setting,
    }
}

/// A duration in the largest unit that it is a whole number of.
fn in_words(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    match units
        .iter()
        .find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
