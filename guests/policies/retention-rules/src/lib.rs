//! Keeps the data of ended jobs as long as a table says.
//!
//! | setting | jobs |
//! |---|---|
//! | `delivered` | whose work the site has |
//! | `unsent` | whose data hold the only copy, or may |
//! | `never-ran` | of which no container ever ran |
//! | a failure, for example `image-not-found` | whose last attempt failed so |
//! | `failed` | all that were not delivered |
//! | `recording`, `transcribing` | a table of the same settings for that type of job, asked first |
//!
//! Each value is `delete`, `keep`, or a duration such as `12h` or `7d`. Delivered jobs go by
//! `delivered` alone. The others go by the first of these that is set: unsent ones by `unsent`, the
//! failure, `failed`; those that never ran by the failure, `never-ran`, `failed`. Where nothing is
//! set the policy has no opinion.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use offloader_policy_sdk::json::Value;
use offloader_policy_sdk::retention::{Retention, Verdict};
use offloader_policy_sdk::settings::{self, DURATION, Problem, Settings};
use offloader_policy_sdk::{Delivery, FailureReason, Job, Kind, SettingsCheck};

struct RetentionRules;

offloader_policy_sdk::export!(RetentionRules: retention, settings_check);
offloader_policy_sdk::small_runtime!();

impl SettingsCheck for RetentionRules {
    fn check_settings() -> Vec<Problem> {
        settings::check(Rules::configure)
    }
}

impl Retention for RetentionRules {
    fn decide_retention(job: &Job) -> Verdict {
        let failure = job.attempts().last().and_then(|attempt| attempt.failure());
        settings::read(Rules::configure).decide(job.kind(), job.delivery(), failure)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Delete,
    Keep,
    KeepFor(Duration),
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "delete" => Some(Self::Delete),
            "keep" => Some(Self::Keep),
            _ => settings::duration(text).map(Self::KeepFor),
        }
    }

    fn verdict(self, because: String) -> Verdict {
        match self {
            Self::Delete => Verdict::Delete(Some(because)),
            Self::Keep => Verdict::Keep(Some(because)),
            Self::KeepFor(duration) => Verdict::keep_for(duration, because),
        }
    }
}

type Table = Vec<(String, Rule)>;

struct Rules {
    any: Table,
    recording: Table,
    transcribing: Table,
}

const SITUATIONS: [&str; 4] = ["delivered", "unsent", "never-ran", "failed"];

fn names() -> impl Iterator<Item = &'static str> {
    SITUATIONS
        .into_iter()
        .chain(FailureReason::ALL.into_iter().map(|(_, name)| name))
}

impl Rules {
    fn configure(settings: &mut Settings) -> Self {
        let mut any = Table::new();
        for name in names() {
            if let Some(text) = settings.text(name) {
                match Rule::parse(&text) {
                    Some(rule) => any.push((name.into(), rule)),
                    None => settings.problem(name, expected(&text)),
                }
            }
        }
        let recording = Self::table(settings, "recording");
        let transcribing = Self::table(settings, "transcribing");
        Self {
            any,
            recording,
            transcribing,
        }
    }

    fn table(settings: &mut Settings, key: &'static str) -> Table {
        let mut table = Table::new();
        for (name, value) in settings.table(key).unwrap_or_default() {
            if !names().any(|known| known == name) {
                settings.problem(
                    key,
                    format!(
                        "{name}: unknown; there are {}, and failures",
                        SITUATIONS.join(", ")
                    ),
                );
            } else if let Value::Text(text) = value {
                match Rule::parse(&text) {
                    Some(rule) => table.push((name, rule)),
                    None => settings.problem(key, format!("{name}: {}", expected(&text))),
                }
            } else {
                settings.problem(key, format!("{name}: expected a text"));
            }
        }
        table
    }

    fn decide(&self, kind: Kind, delivery: Delivery, failure: Option<FailureReason>) -> Verdict {
        let failure = failure.map(FailureReason::name);
        let situations = match delivery {
            Delivery::Undecided => return Verdict::Pass,
            Delivery::Delivered => [Some("delivered"), None, None],
            Delivery::Unsent | Delivery::Unknown => [Some("unsent"), failure, Some("failed")],
            Delivery::NeverRan => [failure, Some("never-ran"), Some("failed")],
        };
        let of_kind = match kind {
            Kind::Recording => &self.recording[..],
            Kind::Transcribing => &self.transcribing[..],
            Kind::Other => &[],
        };
        for (table, prefix) in [(of_kind, Some(kind)), (&self.any[..], None)] {
            for situation in situations.into_iter().flatten() {
                if let Some((name, rule)) = table.iter().find(|(name, _)| name == situation) {
                    let because = match prefix {
                        Some(kind) => format!("rule {}.{name}", kind.name()),
                        None => format!("rule {name}"),
                    };
                    return rule.verdict(because);
                }
            }
        }
        Verdict::Pass
    }
}

fn expected(found: &str) -> String {
    format!("expected delete, keep, or {DURATION}, found \"{found}\"")
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

    #[test]
    fn the_most_telling_rule_decides() {
        let rules = rules(&[
            ("delivered", "delete"),
            ("failed", "7d"),
            ("image-not-found", "1h"),
            ("exited", "2h"),
            ("recording", r#"{"unsent": "keep", "delivered": "10m"}"#),
        ]);
        use Delivery::{Delivered, NeverRan, Unknown, Unsent};
        use FailureReason::{Exited, ImageNotFound, StartFailed};
        use Kind::{Recording, Transcribing};
        for (kind, delivery, failure, rule) in [
            (
                Transcribing,
                Delivered,
                None,
                Some("delete by rule delivered"),
            ),
            (
                Recording,
                Delivered,
                Some(Exited),
                Some("600000 by rule recording.delivered"),
            ),
            (
                Recording,
                Unsent,
                None,
                Some("keep by rule recording.unsent"),
            ),
            (
                Recording,
                Unknown,
                Some(Exited),
                Some("keep by rule recording.unsent"),
            ),
            (
                Transcribing,
                Unsent,
                Some(Exited),
                Some("7200000 by rule exited"),
            ),
            (Transcribing, Unsent, None, Some("604800000 by rule failed")),
            (
                Recording,
                NeverRan,
                Some(ImageNotFound),
                Some("3600000 by rule image-not-found"),
            ),
            (
                Recording,
                NeverRan,
                Some(StartFailed),
                Some("604800000 by rule failed"),
            ),
            (Recording, Delivery::Undecided, None, None),
        ] {
            let told = match rules.decide(kind, delivery, failure) {
                Verdict::Pass => None,
                Verdict::Delete(why) => Some(format!("delete by {}", why.unwrap())),
                Verdict::Keep(why) => Some(format!("keep by {}", why.unwrap())),
                Verdict::KeepFor(period) => {
                    Some(format!("{} by {}", period.duration, period.reason.unwrap()))
                }
            };
            assert_eq!(told.as_deref(), rule, "{kind:?} {delivery:?} {failure:?}");
        }
    }

    #[test]
    fn without_rules_there_is_no_opinion() {
        for delivery in [
            Delivery::Delivered,
            Delivery::Unsent,
            Delivery::NeverRan,
            Delivery::Unknown,
        ] {
            assert_eq!(
                rules(&[]).decide(Kind::Recording, delivery, None),
                Verdict::Pass
            );
        }
    }

    #[test]
    fn wrong_settings_are_told() {
        let mut settings = Settings::from_pairs(&[
            ("failed", "a week"),
            (
                "recording",
                r#"{"lost": "1d", "unsent": 7, "failed": "never"}"#,
            ),
            ("transcribing", "1d"),
            ("succeeded", "1d"),
        ]);
        let _ = Rules::configure(&mut settings);
        let problems = settings.finish();
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "failed",
                "recording",
                "recording",
                "recording",
                "transcribing",
                "succeeded"
            ]
        );
        assert!(
            problems[1].message.starts_with("lost: unknown"),
            "{}",
            problems[1].message
        );
    }
}
