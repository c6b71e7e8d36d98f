use std::collections::BTreeMap;
use std::time::Duration;

use domain::{JobKind, Timestamp};

use super::*;

pub(crate) fn facts() -> JobFacts {
    JobFacts {
        id: "job".to_owned(),
        client: "client".to_owned(),
        kind: JobKind::Recording,
        image_asked: "asked".to_owned(),
        image_chosen: "asked".to_owned(),
        site_url_asked: "https://asked".to_owned(),
        site_url_chosen: "https://asked".to_owned(),
        max_duration: Duration::from_secs(60),
        submitted_at: Timestamp::from_millis(1_000),
        now: Timestamp::from_millis(2_000),
        start_by: Timestamp::from_millis(101_000),
        attempts: Vec::new(),
        delivery: None,
        inputs: BTreeMap::new(),
    }
}

fn policy(name: &str, on_failure: OnFailure, mode: Mode) -> Identity {
    Identity {
        name: name.to_owned(),
        component_sha256: "c".to_owned(),
        settings_sha256: "s".to_owned(),
        on_failure,
        mode,
    }
}

/// Runs a chain over answers in order: `closed`, `skip` and `monitor` are policies of that sort.
fn run<V: Verdict>(hook: Hook, answers: &[(&str, Result<V, Failure>)]) -> (Ruling<V>, JobFacts) {
    let mut chain = Chain::new(hook);
    let mut facts = facts();
    for (sort, answer) in answers {
        let policy = match *sort {
            "closed" => policy("closed", OnFailure::FailClosed, Mode::Enforce),
            "skip" => policy("skip", OnFailure::Skip, Mode::Enforce),
            "monitor" => policy("monitor", OnFailure::FailClosed, Mode::Monitor),
            other => panic!("{other}"),
        };
        let answer = answer.clone().map(|verdict| Said {
            verdict,
            reason: Some("why".to_owned()),
        });
        if chain.take(
            &policy,
            Asked {
                answer,
                read: vec![],
                micros: 7,
            },
            &mut facts,
        ) {
            break;
        }
    }
    (chain.finish(), facts)
}

fn told<V: Verdict>(ruling: &Ruling<V>) -> String {
    let asked = ruling
        .decisions
        .iter()
        .filter(|d| d.enforced)
        .map(|d| d.verdict.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let value = ruling.verdict.value().unwrap_or_default();
    format!(
        "{} {value} by {:?} after {asked}",
        ruling.verdict.name(),
        ruling.by.as_deref()
    )
}

fn choose(text: &str) -> Result<Choice, Failure> {
    Ok(Choice::Use(text.to_owned()))
}

fn deny() -> Result<Choice, Failure> {
    Ok(Choice::Deny(Denial {
        code: "no".to_owned(),
        message: "because".to_owned(),
    }))
}

#[test]
fn choices_build_on_each_other_until_a_denial() {
    let pass = || Ok(Choice::AsAsked);
    let fail = || Err(Failure::Stack);
    for (answers, expected) in [
        (vec![], "pass  by None after "),
        (vec![("closed", pass())], "pass  by None after pass"),
        (
            vec![("closed", choose("a")), ("closed", pass())],
            "use a by Some(\"closed\") after use,pass",
        ),
        (
            vec![("skip", choose("a")), ("closed", choose("b"))],
            "use b by Some(\"closed\") after use,use",
        ),
        (
            vec![("closed", deny()), ("closed", choose("b"))],
            "deny no by Some(\"closed\") after deny",
        ),
        (
            vec![("skip", choose("a")), ("closed", fail())],
            "deny policy-failed by Some(\"closed\") after use,deny",
        ),
        (
            vec![("closed", choose("a")), ("skip", fail())],
            "use a by Some(\"closed\") after use,pass",
        ),
        (
            vec![("monitor", deny()), ("closed", choose("b"))],
            "use b by Some(\"closed\") after use",
        ),
        (vec![("monitor", fail())], "pass  by None after "),
    ] {
        assert_eq!(told(&run(Hook::ImageSelection, &answers).0), expected);
    }
}

#[test]
fn a_choice_is_seen_by_those_that_follow() {
    let (_, after) = run(Hook::ImageSelection, &[("closed", choose("image"))]);
    assert_eq!(
        (after.image_chosen.as_str(), after.image_asked.as_str()),
        ("image", "asked")
    );
    assert_eq!(after.site_url_chosen, "https://asked");
    let (_, after) = run(Hook::SiteUrl, &[("closed", choose("https://url"))]);
    assert_eq!(
        (after.site_url_chosen.as_str(), after.image_chosen.as_str()),
        ("https://url", "asked")
    );
    let (_, after) = run(Hook::ImageSelection, &[("monitor", choose("image"))]);
    assert_eq!(after.image_chosen, "asked");
}

#[test]
fn the_first_opinion_about_retrying_decides() {
    use RetryVerdict::{GiveUp, Pass, RetryAfter};
    let later = RetryAfter(Duration::from_secs(2));
    for (answers, expected) in [
        (
            vec![
                ("closed", Ok(Pass)),
                ("closed", Ok(later)),
                ("closed", Ok(GiveUp)),
            ],
            "retry 2000 by Some(\"closed\") after pass,retry",
        ),
        (
            vec![("closed", Ok(GiveUp)), ("closed", Ok(later))],
            "give-up  by Some(\"closed\") after give-up",
        ),
        (
            vec![("closed", Err(Failure::Exit(0))), ("closed", Ok(later))],
            "give-up  by Some(\"closed\") after give-up",
        ),
        (
            vec![("skip", Err(Failure::Exit(0))), ("closed", Ok(later))],
            "retry 2000 by Some(\"closed\") after pass,retry",
        ),
        (
            vec![("monitor", Ok(GiveUp)), ("closed", Ok(later))],
            "retry 2000 by Some(\"closed\") after retry",
        ),
    ] {
        assert_eq!(told(&run(Hook::Retry, &answers).0), expected);
    }
}

#[test]
fn the_first_opinion_about_retention_decides() {
    use RetentionVerdict::{Delete, Keep, KeepFor, Pass};
    let hour = KeepFor(Duration::from_secs(3600));
    for (answers, expected) in [
        (
            vec![
                ("closed", Ok(Pass)),
                ("closed", Ok(hour)),
                ("closed", Ok(Delete)),
            ],
            "keep-for 3600000 by Some(\"closed\") after pass,keep-for",
        ),
        (
            vec![("closed", Ok(Keep))],
            "keep  by Some(\"closed\") after keep",
        ),
        (
            vec![("closed", Err(Failure::Memory(1))), ("closed", Ok(Delete))],
            "keep  by Some(\"closed\") after keep",
        ),
        (
            vec![("skip", Err(Failure::Memory(1))), ("closed", Ok(Delete))],
            "delete  by Some(\"closed\") after pass,delete",
        ),
    ] {
        assert_eq!(told(&run(Hook::Retention, &answers).0), expected);
    }
}

#[test]
fn a_decision_tells_what_happened() {
    let (ruling, _) = run(
        Hook::ImageSelection,
        &[
            ("skip", choose("a")),
            ("closed", Err(Failure::Timeout(Duration::from_millis(50)))),
        ],
    );
    let [first, second] = &ruling.decisions[..] else {
        panic!("{ruling:?}")
    };
    assert_eq!(
        (first.outcome, first.reason.as_deref()),
        (DecisionOutcome::Answered, Some("why"))
    );
    assert_eq!(
        (first.at, first.micros, first.attempt),
        (Timestamp::from_millis(2_000), 7, None)
    );
    assert_eq!(
        (second.outcome, second.reason.as_deref()),
        (DecisionOutcome::Timeout, Some("took longer than 50 ms"))
    );
    let (ruling, _) = run(Hook::SiteUrl, &[("closed", deny())]);
    assert_eq!(ruling.decisions[0].reason.as_deref(), Some("because"));
}
