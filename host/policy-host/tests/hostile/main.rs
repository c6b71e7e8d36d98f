//! Policies that misbehave: each ends with its own reason and in its time, and nobody else notices.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod broken_files;
mod broken_words;
mod granted;
mod overshoot;
#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use domain::{Choice, DecisionOutcome, JobFacts, Purpose, RetryVerdict};
use offloader_policy_host::{Limits, OnFailure, PolicyConfig, PolicyHost};
use support::acts::Act;
use support::*;

/// What acts may take that would never end. Enough for the others, on such a machine too.
const HASTY: Duration = Duration::from_millis(200);
/// How long after its limit a decision has ended, on a machine that is busy with other things.
const BUSY: Duration = Duration::from_millis(500);

/// How each act ends without grants: the outcome, and the reason or `ANY`. An act that is not here does not compile.
fn end_of(act: Act) -> (DecisionOutcome, &'static str) {
    use DecisionOutcome::{
        Answered, Exit, HostCalls, Memory, OutputMalformed, OutputTooLarge, Timeout, Trap,
    };
    match act {
        Act::Loop | Act::SleepForEver | Act::Flood => (Timeout, "took longer than 200 ms"),
        Act::Sleep => (Answered, "slept"),
        Act::GrowAtOnce | Act::GrowInSteps => (Memory, "wanted more than 16777216 bytes of memory"),
        // The stack that compiled code keeps in memory ends where memory does.
        Act::Recurse => (Trap, "trapped: wasm trap: out of bounds memory access"),
        Act::CallGetters | Act::CallSettings => {
            (HostCalls, "called the host more than 10000 times")
        }
        Act::HoardHandles => (HostCalls, "held too many handles of the host at once"),
        Act::HugeName => (
            OutputTooLarge,
            "the name of an input has 100000 bytes, more than 65536",
        ),
        Act::Panic | Act::Abort => (
            Trap,
            "trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        Act::ExitWell => (Exit, "ended its program with exit code 0"),
        // The base set tells success from failure and no more.
        Act::ExitBadly => (Exit, "ended its program with exit code 1"),
        Act::HugeReason => (
            OutputTooLarge,
            "the reason has 100000 bytes, more than 1024",
        ),
        Act::HoardedReason => (
            OutputTooLarge,
            "the reason has 5242880 bytes, more than 1024",
        ),
        Act::NotText => (
            OutputMalformed,
            "passed what makes no sense: a text that is not UTF-8",
        ),
        Act::Chatter => (Answered, "said a lot"),
        Act::ReadAbsolute | Act::ReadUpwards | Act::WriteFile | Act::FollowLink => (Answered, "no"),
        Act::ListDirectory => (Answered, "no no"),
        Act::ReadEnvironment => (Answered, "[] 0"),
        Act::ReadShown | Act::OpenPipe | Act::ReadForEver | Act::WriteForEver => (Answered, "no"),
        Act::LeaveShown => (
            Answered,
            "no no no no no no no no no no no no no no no no no",
        ),
        Act::ChangeShown | Act::ChangeKept => (Answered, "no no no no no no no no no no no"),
        Act::HoardFiles => (Answered, ANY),
        Act::ReadStdin => (Answered, "\"\""),
        Act::ProbeClocks => (Answered, "2000 0"),
        Act::ProbeEntropy => (Answered, ANY),
        Act::StartThread => (Answered, "no"),
        Act::ReadFacts => (Answered, ANY),
        Act::Remember => (Answered, REMEMBERS_NOTHING),
        Act::LeaveSecret => (Answered, "left it"),
        Act::FindSecret => (Answered, "0"),
        Act::FindOwnSecret => (Answered, "65536"),
        Act::LeaveSecretSlowly | Act::FindSecretSlowly => (Timeout, "took longer than 200 ms"),
    }
}

/// Tests of their own look at it.
const ANY: &str = "any";
const REMEMBERS_NOTHING: &str = "calls=1 kept=1";
const MAPPED: &str = "localhost:5000/mattermost/calls-recorder:v0.8.13";

/// Asks about the image again and again until it is told to stop; answers how often that went well,
/// and what did not.
fn bystander(hosts: &[&PolicyHost], stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    while !stop.load(Relaxed) {
        for host in hosts {
            let ruling = host.decide_image(&facts(), Purpose::Start);
            if ruling.verdict == Choice::Use(MAPPED.to_owned()) {
                good += 1;
            } else {
                bad.push(format!("{ruling:?}"));
            }
        }
    }
    (good, bad)
}

/// The hostile policy and a good one in one sandbox.
fn beside_a_good_one(policies: &Policies, time: Duration) -> PolicyHost {
    let mut hostile = misbehaving();
    hostile.limits.time = time;
    let mapped = (
        "registries",
        r#"{"mattermost": "localhost:5000/mattermost"}"#,
    );
    let good = configured("images", IMAGE_MAP, &[mapped]);
    policies.load(vec![hostile, good]).unwrap()
}

/// What is wrong with how an act ended, after some time.
fn judge(
    host: &PolicyHost,
    facts: &JobFacts,
    act: Act,
    (outcome, reason): (DecisionOutcome, &str),
) -> Option<String> {
    let begin = Instant::now();
    let ruling = host.decide_retry(facts);
    let elapsed = begin.elapsed();
    let decision = &ruling.decisions[0];
    let told = decision.reason.as_deref().unwrap_or_default();
    let after = host.decide_retry(&acting(Act::Remember)).decisions[0].clone();
    let well = decision.outcome == outcome
        && (reason == ANY || told == reason)
        && ruling.verdict == RetryVerdict::GiveUp
        && (outcome != DecisionOutcome::Timeout || elapsed < HASTY + BUSY)
        && after.reason.as_deref() == Some(REMEMBERS_NOTHING);
    (!well).then(|| {
        format!(
            "{act:?} after {elapsed:?}: {outcome:?} {reason:?} was expected of {decision:?}; \
             then {after:?}"
        )
    })
}

/// What the text of a component means.
fn component(fields: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {fields})")).expect("the text of a component")
}

#[test]
fn every_act_ends_as_it_must_and_nobody_else_notices() {
    let policies = Policies::new(&[MISBEHAVE, IMAGE_MAP]);
    let hasty = beside_a_good_one(&policies, HASTY);
    let patient = beside_a_good_one(&policies, Duration::from_secs(10));
    let stop = AtomicBool::new(false);
    let (wrong, (good, bad)) = thread::scope(|scope| {
        let bystander = scope.spawn(|| bystander(&[&hasty, &patient], &stop));
        let wrong: Vec<_> = Act::ALL
            .iter()
            .filter_map(|act| {
                let host = match end_of(*act).0 {
                    DecisionOutcome::Timeout => &hasty,
                    _ => &patient,
                };
                judge(host, &acting(*act), *act, end_of(*act))
            })
            .collect();
        stop.store(true, Relaxed);
        (wrong, bystander.join().unwrap())
    });
    assert_eq!(wrong, [] as [&str; 0]);
    assert_eq!(bad, [] as [&str; 0]);
    assert!(good > 0);
}

#[test]
fn a_policy_that_may_be_skipped_has_no_opinion_when_it_fails() {
    let policies = Policies::new(&[MISBEHAVE]);
    let skipped = PolicyConfig {
        on_failure: OnFailure::Skip,
        ..misbehaving()
    };
    let ruling = policies
        .load(vec![skipped])
        .unwrap()
        .decide_retry(&acting(Act::Panic));
    assert_eq!((ruling.verdict, ruling.by), (RetryVerdict::Pass, None));
}

#[test]
fn the_same_question_gets_the_same_random_numbers() {
    let policies = Policies::new(&[MISBEHAVE]);
    let host = policies.load(vec![misbehaving()]).unwrap();
    let random = |facts: &JobFacts| host.decide_retry(facts).decisions[0].reason.clone();
    let mut facts = acting(Act::ProbeEntropy);
    let seen = random(&facts);
    assert!(seen.is_some());
    assert_eq!(random(&facts), seen);
    facts.now = facts.now.plus(Duration::from_millis(1));
    assert_ne!(random(&facts), seen);
}

#[test]
fn limits_are_what_the_configuration_says() {
    let policies = Policies::new(&[MISBEHAVE]);
    let reason = |act, limit: &dyn Fn(&mut Limits)| {
        let mut config = misbehaving();
        limit(&mut config.limits);
        let ruling = policies
            .load(vec![config])
            .unwrap()
            .decide_retry(&acting(act));
        (
            ruling.decisions[0].reason.clone(),
            ruling.decisions[0].micros,
        )
    };
    let (told, micros) = reason(Act::Loop, &|l| l.time = Duration::from_millis(5));
    assert_eq!(told.as_deref(), Some("took longer than 5 ms"));
    assert!((5_000..5_000 + BUSY.as_micros() as u64).contains(&micros));
    let told = |act, limit| reason(act, limit).0.unwrap();
    assert_eq!(
        told(Act::HoardedReason, &|l| l.memory = 4 << 20),
        "wanted more than 4194304 bytes of memory"
    );
    assert_eq!(
        told(Act::CallGetters, &|l| l.host_calls = 77),
        "called the host more than 77 times"
    );
    assert_eq!(
        told(Act::HugeName, &|l| l.output = 2048),
        "the name of an input has 100000 bytes, more than 2048"
    );
    let mut config = misbehaving();
    config.limits.table_elements = 1;
    assert_eq!(
        problems(policies.load(vec![config])),
        ["policy \"misbehave\": settings-check: wanted more than 1 table elements"]
    );
    let mut config = misbehaving();
    config.limits.component_size = 1024;
    assert_eq!(
        problems(policies.load(vec![config])),
        ["policy \"misbehave\": component misbehave.wasm: has more than 1024 bytes"]
    );
}

#[test]
fn the_texts_of_an_answer_are_counted_together() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let forbidden = format!(r#"{{"calls-recorder:v9.9.9": "{}"}}"#, "x".repeat(970));
    let mut facts = facts();
    facts.image_asked = "mattermost/calls-recorder:v9.9.9".to_owned();
    facts.image_chosen.clone_from(&facts.image_asked);
    let mut config = configured("images", IMAGE_MAP, &[("forbidden", &forbidden)]);
    let decision = |config: &PolicyConfig| {
        let host = policies.load(vec![config.clone()]).unwrap();
        let decision = host
            .decide_image(&facts, Purpose::Start)
            .decisions
            .remove(0);
        (decision.outcome, decision.reason.unwrap())
    };
    let (outcome, message) = decision(&config);
    assert_eq!(outcome, DecisionOutcome::Answered);
    assert!(message.len() <= 1024);
    config.limits.output = 1024;
    let (outcome, reason) = decision(&config);
    assert_eq!(outcome, DecisionOutcome::OutputTooLarge);
    let bytes = message.len() + "forbidden-version".len();
    assert_eq!(
        reason,
        format!("the answer has {bytes} bytes, more than 1024")
    );
}

#[test]
fn misdeeds_in_the_settings_check_keep_a_policy_out() {
    let policies = Policies::new(&[MISBEHAVE]);
    let misdeeds = [
        (
            "panic",
            "trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        ("loop", "took longer than 1000 ms"),
        ("exit", "ended its program with exit code 1"),
        (
            "long problems",
            "the answer has 100500 bytes, more than 65536",
        ),
        ("many problems", "passed what makes no sense: 101 problems"),
    ];
    let configs = misdeeds.map(|(act, _)| {
        let mut config = configured(act, MISBEHAVE, &[("check", act)]);
        config.limits = Limits::default();
        config
    });
    let told = problems(policies.load(configs.into()));
    let expected = misdeeds.map(|(act, line)| format!("policy {act:?}: settings-check: {line}"));
    assert_eq!(told, expected);
}

#[test]
fn broken_files_are_refused_for_what_is_wrong_with_them() {
    let policies = Policies::new(&[]);
    let refused = broken_files::refused();
    let mut expected = Vec::new();
    for file in &refused {
        policies.write(file.name, &file.bytes);
        let of_policy = |problem| format!("policy {:?}: {problem}", file.name);
        expected.extend(file.problems.iter().map(of_policy));
    }
    let configs = refused
        .iter()
        .map(|file| PolicyConfig::new(file.name, file.name));
    let told = problems(policies.load(configs.collect()));
    let wrong: Vec<_> = told
        .iter()
        .zip(&expected)
        .filter(|(told, expected)| !told.starts_with(expected.as_str()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn broken_words_end_the_decision_that_they_are_given_in() {
    let policies = Policies::new(&[RETRY_BACKOFF]);
    let failing = broken_words::failing();
    let mut configs = Vec::new();
    for policy in &failing {
        policies.write(policy.name, &policy.bytes());
        let mut config = configured(policy.name, policy.name, &[]);
        config.on_failure = OnFailure::Skip;
        if policy.outcome == DecisionOutcome::Timeout {
            config.limits.time = Limits::default().time;
        }
        configs.push(config);
    }
    configs.push(configured("good", RETRY_BACKOFF, &[]));
    let host = policies.load(configs).unwrap();
    let ruling = host.decide_retry(&acting(Act::Remember));
    assert_eq!(
        broken_words::wrong(&failing, &ruling.decisions),
        [] as [&str; 0]
    );
    // All of them were asked, and the one after them decided.
    assert_eq!(ruling.decisions.len(), failing.len() + 1);
    assert_eq!(ruling.by.as_deref(), Some("good"));
}
