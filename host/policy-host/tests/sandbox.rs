//! A policy sees its job and nothing else, and does not keep others from deciding.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use domain::{Choice, DecisionOutcome, EndReason, Purpose, RetryVerdict};
use engine::Policies as _;
use offloader_policy_host::{Mode, PolicyConfig};
use support::acts::Act;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_decide_while_one_misbehaves() {
    let policies = Policies::new(&[MISBEHAVE, RETRY_BACKOFF]);
    let mut slow = misbehaving();
    slow.limits.time = Duration::from_secs(2);
    let slow = Arc::new(policies.load(vec![slow]).unwrap());
    let good = policies
        .load(vec![configured("good", RETRY_BACKOFF, &[])])
        .unwrap();
    let looping = tokio::spawn(async move { slow.retry(&acting(Act::Loop)).await });
    for _ in 0..20 {
        let ruling = good.retry(&failed(&[EndReason::StartFailed])).await;
        assert!(
            matches!(ruling.verdict, RetryVerdict::RetryAfter(_)),
            "{ruling:?}"
        );
    }
    assert!(!looping.is_finished());
    assert_eq!(
        looping.await.unwrap().decisions[0].outcome,
        DecisionOutcome::Timeout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_that_nobody_waits_for_any_more_keep_their_turns_and_count() {
    const CALLERS: u64 = 70;
    let policies = Policies::new(&[MISBEHAVE, IMAGE_MAP]);
    let mut slow = misbehaving();
    slow.limits.time = Duration::from_secs(1);
    slow.grants.real_clock = true;
    let images = configured("images", IMAGE_MAP, &[]);
    let host = policies.load(vec![slow, images]).unwrap();
    for _ in 0..CALLERS {
        let asking = acting(Act::Sleep);
        let gone = tokio::time::timeout(Duration::from_millis(1), host.retry(&asking)).await;
        assert!(gone.is_err(), "it did not sleep");
    }
    let ruling = host.select_image(&facts(), Purpose::Start).await;
    assert_eq!(ruling.verdict, Choice::AsAsked);
    assert_eq!(ruling.decisions[0].outcome, DecisionOutcome::Answered);

    // Those that came to a turn were asked to the end.
    let counters = || host.status().policies[0].counters;
    let begin = Instant::now();
    while counters().decisions < 64 {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{:?}",
            counters()
        );
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(counters().failures, counters().decisions);
}

#[test]
fn an_input_that_is_too_long_is_not_shown_and_no_failure() {
    let policies = Policies::new(&[MISBEHAVE]);
    let mut config = misbehaving();
    config.grants.inputs = ["call_id".to_owned()].into();
    config.limits.output = 1024;
    let host = policies.load(vec![config]).unwrap();
    let told = |length| {
        let mut facts = acting(Act::ReadFacts);
        facts
            .inputs
            .insert("call_id".to_owned(), "x".repeat(length));
        let decision = host.decide_retry(&facts).decisions.remove(0);
        assert_eq!(decision.outcome, DecisionOutcome::Answered, "{decision:?}");
        assert!(decision.read.contains(&"input:call_id".to_owned()));
        decision.reason.unwrap()
    };
    assert!(told(500).contains("xxx"));
    let kept_back = told(1025);
    assert!(kept_back.contains("None None None"), "{kept_back}");
}

#[test]
fn sleeping_takes_no_time() {
    let policies = Policies::new(&[MISBEHAVE]);
    let host = policies.load(vec![misbehaving()]).unwrap();
    let begin = Instant::now();
    let ruling = host.decide_retry(&acting(Act::Sleep));
    assert_eq!(ruling.decisions[0].reason.as_deref(), Some("slept"));
    assert!(begin.elapsed() < Duration::from_secs(60), "it really slept");
}

#[test]
fn only_granted_inputs_are_seen_and_all_reading_is_recorded() {
    let policies = Policies::new(&[MISBEHAVE]);
    let mut config = misbehaving();
    config.grants.inputs = ["call_id", "auth_token"].map(str::to_owned).into();
    let ruling = policies
        .load(vec![config])
        .unwrap()
        .decide_retry(&acting(Act::ReadFacts));
    let decision = &ruling.decisions[0];
    let told = concat!(
        r#""read-facts" "site-a" "recording" "mattermost/calls-recorder:v0.8.13" "#,
        r#""mattermost/calls-recorder:v0.8.13" "https://mattermost.example.com" "#,
        r#""https://mattermost.example.com" 3600000 1000 2000 false 89000 Delivery::Undecided None "#,
        r#"Some("call1") None None "#,
        r#"1 "mattermost/calls-recorder:v0.8.13" 1000 None Some(2000) "#,
        "Some(FailureReason::StartFailed) None ",
    );
    assert_eq!(decision.reason.as_deref(), Some(told));
    assert_eq!(
        decision.read,
        [
            "asked-at",
            "attempt.ended-at",
            "attempt.exit-code",
            "attempt.failure",
            "attempt.image",
            "attempt.number",
            "attempt.running-at",
            "attempt.started-at",
            "attempts",
            "bytes-left",
            "client",
            "delivery",
            "ever-ran",
            "id",
            "image-asked",
            "image-chosen",
            "input:auth_token",
            "input:call_id",
            "kind",
            "max-duration",
            "site-url-asked",
            "site-url-chosen",
            "submitted-at",
            "time-left-to-start",
        ]
    );
}

#[test]
fn a_monitored_policy_changes_nothing() {
    let policies = Policies::new(&[MISBEHAVE]);
    let monitored = PolicyConfig {
        mode: Mode::Monitor,
        ..misbehaving()
    };
    let ruling = policies
        .load(vec![monitored])
        .unwrap()
        .decide_retry(&acting(Act::Panic));
    assert_eq!((ruling.verdict, ruling.by), (RetryVerdict::Pass, None));
    let [decision] = &ruling.decisions[..] else {
        panic!("{:?}", ruling.decisions)
    };
    assert!(!decision.enforced);
    assert_eq!(decision.outcome, DecisionOutcome::Trap);
}
