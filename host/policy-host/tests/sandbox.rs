//! A policy that misbehaves fails alone, each way with its own name, and sees nothing of the world.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{DecisionOutcome, EndReason, RetryVerdict, Ruling, Timestamp};
use engine::Policies as _;
use offloader_policy_host::{Limits, Mode, OnFailure, PolicyConfig, PolicyHost};
use support::*;

fn load(config: PolicyConfig) -> PolicyHost {
    Policies::new(&[MISBEHAVE]).load(vec![config]).unwrap()
}

fn decide(config: PolicyConfig) -> Ruling<RetryVerdict> {
    load(config).decide_retry(&failed(&[EndReason::StartFailed]))
}

fn told(config: PolicyConfig) -> String {
    let ruling = decide(config);
    let decision = &ruling.decisions[0];
    assert_eq!(decision.outcome, DecisionOutcome::Answered, "{decision:?}");
    decision.reason.clone().unwrap()
}

#[test]
fn each_misdeed_has_its_own_outcome() {
    use DecisionOutcome::{
        Exit, HostCalls, Memory, OutputMalformed, OutputTooLarge, Timeout, Trap,
    };
    for (act, outcome, reason) in [
        ("loop", Timeout, "took longer than 50 ms"),
        ("grow", Memory, "wanted more than 16777216 bytes of memory"),
        (
            "recurse",
            Trap,
            "trapped: wasm trap: out of bounds memory access",
        ),
        (
            "trap",
            Trap,
            "trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        ("exit", Exit, "ended its program with exit code 1"),
        (
            "huge",
            OutputTooLarge,
            "the reason has 100000 bytes, more than 1024",
        ),
        (
            "hoarded",
            OutputTooLarge,
            "the reason has 5242880 bytes, more than 1024",
        ),
        (
            "not-text",
            OutputMalformed,
            "answered what makes no sense: a text that is not UTF-8",
        ),
        ("call", HostCalls, "called the host more than 10000 times"),
    ] {
        let mut config = misbehaving(act);
        if act == "loop" {
            config.limits.time = Limits::default().time;
        }
        let ruling = decide(config.clone());
        let decision = &ruling.decisions[0];
        assert_eq!(
            (decision.outcome, decision.reason.as_deref()),
            (outcome, Some(reason)),
            "{act}"
        );
        assert_eq!(
            (ruling.verdict, decision.verdict.as_str()),
            (RetryVerdict::GiveUp, "give-up"),
            "{act}"
        );

        let skipped = decide(PolicyConfig {
            on_failure: OnFailure::Skip,
            ..misbehaving(act)
        });
        assert_eq!(
            (skipped.verdict, skipped.by),
            (RetryVerdict::Pass, None),
            "{act}"
        );
    }
}

#[test]
fn time_and_memory_are_what_the_configuration_says() {
    let mut config = misbehaving("loop");
    config.limits.time = Duration::from_millis(5);
    let host = load(config);
    let begin = Instant::now();
    let ruling = host.decide_retry(&failed(&[EndReason::StartFailed]));
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        ruling.decisions[0].reason.as_deref(),
        Some("took longer than 5 ms")
    );
    assert!(ruling.decisions[0].micros >= 5_000);

    let mut config = misbehaving("hoarded");
    config.limits.memory = 4 << 20;
    let reason = decide(config).decisions[0].reason.clone();
    assert_eq!(
        reason.as_deref(),
        Some("wanted more than 4194304 bytes of memory")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_decide_while_one_misbehaves() {
    let policies = Policies::new(&[MISBEHAVE, RETRY_BACKOFF]);
    let mut slow = misbehaving("loop");
    slow.limits.time = Duration::from_secs(2);
    let slow = Arc::new(policies.load(vec![slow]).unwrap());
    let good = policies
        .load(vec![configured("good", RETRY_BACKOFF, &[])])
        .unwrap();
    let looping = tokio::spawn(async move { slow.retry(&failed(&[EndReason::StartFailed])).await });
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

#[test]
fn nothing_of_the_world_is_seen() {
    let mut facts = failed(&[EndReason::StartFailed]);
    facts.now = Timestamp::from_millis(1_700_000_000_123);
    let host = load(misbehaving("look"));
    let look = |facts: &domain::JobFacts| {
        host.decide_retry(facts).decisions[0]
            .reason
            .clone()
            .unwrap()
    };
    let seen = look(&facts);
    let (world, random) = seen.split_once("random=").unwrap();
    assert_eq!(
        world,
        "env=0 args=0 unix=1700000000123 elapsed=0 stdin=0 file=false dir=false write=false "
    );
    // The same question gets the same random numbers, another question others.
    assert_eq!(look(&facts), seen);
    facts.id = "another".to_owned();
    assert_ne!(look(&facts).split_once("random=").unwrap().1, random);
}

#[test]
fn nothing_is_remembered() {
    let host = load(misbehaving("remember"));
    let seen: BTreeSet<_> = (0..1000)
        .map(|_| {
            host.decide_retry(&failed(&[EndReason::StartFailed]))
                .decisions[0]
                .reason
                .clone()
        })
        .collect();
    assert_eq!(seen, BTreeSet::from([Some("calls=1 kept=1".to_owned())]));
}

#[test]
fn sleeping_takes_no_time() {
    let begin = Instant::now();
    assert_eq!(told(misbehaving("sleep")), "slept");
    assert!(begin.elapsed() < Duration::from_secs(60), "it really slept");
}

#[test]
fn only_granted_inputs_are_seen_and_all_reading_is_recorded() {
    let mut config = misbehaving("read");
    config.grants.inputs = ["call_id", "auth_token"].map(str::to_owned).into();
    let ruling = decide(config);
    let decision = &ruling.decisions[0];
    assert_eq!(
        decision.reason.as_deref(),
        Some(
            "9a0c3f site-a recording mattermost/calls-recorder:v0.8.13 \
             mattermost/calls-recorder:v0.8.13 https://mattermost.example.com \
             https://mattermost.example.com max=3600000 submitted=1000 asked=2000 ran=false left=89000 \
             Delivery::Undecided bytes=None call_id=Some(\"call1\") post_id=None auth_token=None \
             [1 mattermost/calls-recorder:v0.8.13 1000 None Some(2000) \
             Some(FailureReason::StartFailed) None]"
        )
    );
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
    let ruling = decide(PolicyConfig {
        mode: Mode::Monitor,
        ..misbehaving("trap")
    });
    assert_eq!(
        (ruling.verdict, ruling.by, ruling.decisions.len()),
        (RetryVerdict::Pass, None, 0)
    );
}

#[test]
fn misdeeds_in_the_settings_check_keep_a_policy_out() {
    for (act, line) in [
        (
            "trap",
            "settings-check: trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        ("loop", "settings-check: took longer than 1000 ms"),
        ("exit", "settings-check: ended its program with exit code 1"),
    ] {
        let policies = Policies::new(&[MISBEHAVE]);
        let mut config = configured("bad", MISBEHAVE, &[("check", act)]);
        config.limits = Limits::default();
        let told = problems(policies.load(vec![config]));
        assert_eq!(told, [format!("policy \"bad\": {line}")]);
    }
}
