//! Policies are swapped while they are asked, and taken out of service when they keep failing.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once, OnceLock, mpsc};
use std::time::Duration;
use std::{env, fs, io, thread};

use domain::{Choice, Decision, DecisionOutcome, Purpose, RetryVerdict, Ruling, Timestamp};
use offloader_policy_host::{
    ArtifactStore, Mode, OnFailure, PolicyConfig, PolicyHost, PolicyHostConfig,
};
use support::acts::Act;
use support::*;

const LATER: Timestamp = Timestamp::from_millis(900);

/// What all tests of this program log; told apart by the names of their policies.
fn log() -> String {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    static START: Once = Once::new();
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = LOG.get_or_init(Arc::default);
    START.call_once(|| {
        let writer = Arc::clone(log);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Log(Arc::clone(&writer)))
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    String::from_utf8(log.lock().unwrap().clone()).unwrap()
}

fn logged(words: &[&str]) -> usize {
    let log = log();
    let fits = |line: &&str| words.iter().all(|word| line.contains(word));
    log.lines().filter(fits).count()
}

/// Sends images to a registry.
fn mapping(name: &str, registry: &str) -> PolicyConfig {
    let registries = format!(r#"{{"mattermost": "{registry}"}}"#);
    configured(name, IMAGE_MAP, &[("registries", &registries)])
}

fn image(ruling: &Ruling<Choice>) -> &str {
    match &ruling.verdict {
        Choice::Use(image) => image,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_decision_under_way_ends_on_the_generation_that_it_began_with() {
    let policies = Policies::new(&[MISBEHAVE, RETRY_BACKOFF]);
    let mut slow = misbehaving();
    slow.limits.time = Duration::from_secs(2);
    slow.on_failure = OnFailure::Skip;
    let after = configured("retries", RETRY_BACKOFF, &[]);
    let host = policies.load(vec![slow, after]).unwrap();
    thread::scope(|scope| {
        let (begins, begun) = mpsc::channel();
        let deciding = scope.spawn({
            let host = &host;
            move || {
                begins.send(()).unwrap();
                host.decide_retry(&acting(Act::Loop))
            }
        });
        begun.recv().unwrap();
        thread::sleep(Duration::from_millis(500));
        host.reload(PolicyHostConfig::default(), LATER).unwrap();
        assert!(
            !deciding.is_finished(),
            "the reload waited for the decision"
        );
        assert_eq!(host.decide_retry(&acting(Act::Loop)).decisions, []);

        let decisions = deciding.join().unwrap().decisions;
        let told: Vec<_> = decisions
            .iter()
            .map(|decision| (decision.policy.as_str(), decision.outcome))
            .collect();
        let timeout = ("misbehave", DecisionOutcome::Timeout);
        assert_eq!(told, [timeout, ("retries", DecisionOutcome::Answered)]);
    });
    let status = host.status();
    assert_eq!((status.generation, status.policies.len()), (2, 0));
}

/// Two policies that agree, or the first of them alone with another opinion.
fn either(turn: usize) -> Vec<PolicyConfig> {
    match turn % 2 {
        0 => vec![mapping("first", "even"), mapping("second", "even")],
        _ => vec![mapping("first", "odd")],
    }
}

/// Asks until told to stop. Answers how often, and every ruling that no generation could have made.
fn ask(host: &PolicyHost, stop: &AtomicBool) -> (usize, Vec<Ruling<Choice>>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    let is_answer = |decision: &Decision| decision.outcome == DecisionOutcome::Answered;
    while !stop.load(Relaxed) {
        let ruling = host.decide_image(&facts(), Purpose::Start);
        let settings: BTreeSet<_> = ruling
            .decisions
            .iter()
            .map(|d| &d.settings_sha256)
            .collect();
        let expected = match image(&ruling).split_once('/') {
            Some(("even", _)) => 2,
            Some(("odd", _)) => 1,
            _ => 0,
        };
        let whole = ruling.decisions.len() == expected && settings.len() == 1;
        if !whole || !ruling.decisions.iter().all(is_answer) {
            wrong.push(ruling);
        }
        asked += 1;
    }
    (asked, wrong)
}

#[test]
fn swaps_under_load_lose_and_fail_no_decision() {
    let swaps = match env::var_os("OFFLOADER_TEST_SLOW") {
        Some(_) => 1_000,
        None => 100,
    };
    let policies = Policies::new(&[IMAGE_MAP]);
    let host = policies.load(either(0)).unwrap();
    let stop = AtomicBool::new(false);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| ask(&host, &stop)))
            .collect();
        for turn in 1..=swaps {
            host.reload(policies.config(either(turn)), LATER).unwrap();
        }
        stop.store(true, Relaxed);
        for thread in threads {
            let (asked, wrong) = thread.join().unwrap();
            assert!(
                wrong.is_empty(),
                "{} of {asked}: {:?}",
                wrong.len(),
                wrong[0]
            );
            assert!(asked > swaps / 10, "{asked} decisions beside {swaps} swaps");
        }
    });
    let status = host.status();
    assert_eq!(status.generation, swaps as u64 + 1);
    assert_eq!(status.last_failure, None);
}

#[test]
fn a_reload_that_fails_leaves_the_last_good_generation() {
    log();
    let policies = Policies::new(&[IMAGE_MAP]);
    let host = policies.load(vec![mapping("kept", "good")]).unwrap();
    let before = host.status();
    assert_eq!((before.generation, before.loaded_at), (1, LOADED_AT));

    policies.write("broken.wasm", b"\0asm\x0d\0\x01\0rubbish");
    let mut optional = PolicyConfig::new("kept-optional", "absent.wasm");
    optional.optional = true;
    let broken = PolicyConfig::new("kept-broken", "broken.wasm");
    let config = || {
        policies.config(vec![
            mapping("new", "new"),
            optional.clone(),
            broken.clone(),
        ])
    };
    let errors = host.reload(config(), LATER).unwrap_err();
    assert_eq!(errors.iter().count(), 2);

    let status = host.status();
    assert_eq!(status.generation, 1);
    let failure = status.last_failure.unwrap();
    assert_eq!(failure.at, LATER);
    let told: Vec<_> = failure
        .problems
        .iter()
        .map(|problem| (problem.policy.as_deref(), problem.step))
        .collect();
    let expected = [
        (Some("kept-optional"), "verify"),
        (Some("kept-broken"), "compile"),
    ];
    assert_eq!(told, expected);
    assert!(failure.problems[0].message.contains("absent.wasm"));
    assert_eq!(
        logged(&["policies are not reloaded", "kept-broken", "step=compile"]),
        1
    );
    let ruling = host.decide_image(&facts(), Purpose::Start);
    assert!(image(&ruling).starts_with("good/"), "{ruling:?}");

    host.reload(policies.config(vec![mapping("new", "new")]), LATER)
        .unwrap();
    let status = host.status();
    assert_eq!((status.generation, status.last_failure), (2, None));
    let ruling = host.decide_image(&facts(), Purpose::Start);
    assert!(image(&ruling).starts_with("new/"), "{ruling:?}");
}

#[test]
fn an_optional_policy_that_was_left_out_may_come_and_may_not_go() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let config = || {
        let optional = PolicyConfig {
            optional: true,
            ..configured("optional", RETRY_BACKOFF, &[])
        };
        policies.config(vec![mapping("kept", "good"), optional])
    };
    let host = PolicyHost::load(config(), LOADED_AT).unwrap();
    let left_out = |host: &PolicyHost| {
        let problems = host.status().left_out.into_iter();
        let told = problems.map(|problem| (problem.policy.unwrap(), problem.step));
        told.collect::<Vec<_>>()
    };
    let optional = [("optional".to_owned(), "verify")];
    assert_eq!(left_out(&host), optional);
    host.reload(config(), LATER).unwrap();
    assert_eq!(left_out(&host), optional);
    assert_eq!(host.status().generation, 2);

    policies.write(RETRY_BACKOFF, &policy(RETRY_BACKOFF));
    host.reload(config(), LATER).unwrap();
    assert_eq!(left_out(&host), []);
    assert_eq!(host.status().policies.len(), 2);
    fs::remove_file(policies.path().join(RETRY_BACKOFF)).unwrap();
    host.reload(config(), LATER).unwrap_err();
    assert_eq!(host.status().policies.len(), 2);
}

#[test]
fn a_full_house_is_not_held_against_a_policy() {
    let policies = Policies::new(&[MISBEHAVE, IMAGE_MAP]);
    let mut slow = misbehaving();
    slow.limits.time = Duration::from_secs(2);
    slow.grants.real_clock = true;
    let config = PolicyHostConfig {
        quarantine_after: NonZeroU32::new(1),
        ..policies.config(vec![slow, mapping("well", "good")])
    };
    let host = PolicyHost::load(config, LOADED_AT).unwrap();
    let outcome = || {
        let ruling = host.decide_image(&facts(), Purpose::Start);
        ruling.decisions[0].outcome
    };
    thread::scope(|scope| {
        let sleeping: Vec<_> = (0..80)
            .map(|_| scope.spawn(|| host.decide_retry(&acting(Act::Sleep))))
            .collect();
        let is_over = || sleeping.iter().all(|thread| thread.is_finished());
        while outcome() != DecisionOutcome::Load {
            assert!(!is_over(), "there was room all the time");
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(outcome(), DecisionOutcome::Answered);
    let status = host.status();
    assert_eq!(status.policies[1].counters.failures, 1);
}

#[test]
fn policies_can_come_to_a_site_that_had_none() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let host = PolicyHost::load(PolicyHostConfig::default(), LOADED_AT).unwrap();
    assert_eq!(host.decide_image(&facts(), Purpose::Start).decisions, []);
    host.reload(policies.config(vec![mapping("a", "mirror")]), LATER)
        .unwrap();
    assert_eq!(
        host.decide_image(&facts(), Purpose::Start).decisions.len(),
        1
    );
}

#[test]
fn a_policy_that_stayed_the_same_goes_on_counting() {
    let policies = Policies::new(&[IMAGE_MAP, MISBEHAVE]);
    let host = policies
        .load(vec![mapping("a", "one"), misbehaving()])
        .unwrap();
    host.decide_image(&facts(), Purpose::Start);
    host.decide_retry(&acting(Act::Panic));
    let counts = || {
        let policies = host.status().policies;
        let counts = policies.iter().map(|policy| {
            let counters = policy.counters;
            (
                counters.decisions,
                counters.failures,
                counters.failures_in_a_row,
            )
        });
        counts.collect::<Vec<_>>()
    };
    assert_eq!(counts(), [(1, 0, 0), (1, 1, 1)]);

    // Another order and another effect are no other policy; other settings are.
    let mut monitored = misbehaving();
    monitored.mode = Mode::Monitor;
    host.reload(policies.config(vec![monitored, mapping("a", "one")]), LATER)
        .unwrap();
    assert_eq!(counts(), [(1, 1, 0), (1, 0, 0)]);
    let mut limited = misbehaving();
    limited.limits.host_calls = 50;
    host.reload(policies.config(vec![limited, mapping("a", "two")]), LATER)
        .unwrap();
    assert_eq!(counts(), [(0, 0, 0), (0, 0, 0)]);
}

#[test]
fn what_is_compiled_is_not_compiled_again() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let artifacts = tempfile::tempdir().unwrap();
    let config = |registry| PolicyHostConfig {
        artifacts: Some(ArtifactStore {
            dir: open(artifacts.path()),
            key: [1; 32],
        }),
        ..policies.config(vec![mapping("a", registry)])
    };
    let host = PolicyHost::load(config("one"), LOADED_AT).unwrap();
    for entry in fs::read_dir(artifacts.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    host.reload(config("two"), LATER).unwrap();
    let left = fs::read_dir(artifacts.path()).unwrap().count();
    assert_eq!(left, 0, "it was compiled again, and kept");
    let ruling = host.decide_image(&facts(), Purpose::Start);
    assert!(image(&ruling).starts_with("two/"), "{ruling:?}");
}

#[test]
fn compiled_policies_that_cannot_be_kept_are_told_of_once() {
    log();
    let policies = Policies::new(&[IMAGE_MAP, RETRY_BACKOFF]);
    let artifacts = tempfile::tempdir().unwrap();
    let dir = open(artifacts.path());
    drop(artifacts);
    let config = |components: &[&str]| {
        let named = components.iter().map(|file| configured(file, file, &[]));
        PolicyHostConfig {
            artifacts: Some(ArtifactStore {
                dir: dir.try_clone().unwrap(),
                key: [1; 32],
            }),
            ..policies.config(named.collect())
        }
    };
    let host = PolicyHost::load(config(&[IMAGE_MAP]), LOADED_AT).unwrap();
    host.reload(config(&[IMAGE_MAP, RETRY_BACKOFF]), LATER)
        .unwrap();
    assert_eq!(host.status().policies.len(), 2);
    assert_eq!(logged(&["compiled policies cannot be kept"]), 1);
}

#[test]
fn a_policy_that_keeps_failing_is_not_asked_until_policies_are_reloaded() {
    log();
    let policies = Policies::new(&[MISBEHAVE, RETRY_BACKOFF]);
    let named = |name: &str, mode| PolicyConfig {
        mode,
        on_failure: OnFailure::Skip,
        ..configured(name, MISBEHAVE, &[])
    };
    let config = || PolicyHostConfig {
        quarantine_after: NonZeroU32::new(3),
        ..policies.config(vec![
            named("quarantined", Mode::Enforce),
            named("quarantined-monitor", Mode::Monitor),
            configured("well", RETRY_BACKOFF, &[("jitter", "0")]),
        ])
    };
    let host = PolicyHost::load(config(), LOADED_AT).unwrap();
    let outcomes = |act| {
        let ruling = host.decide_retry(&acting(act));
        assert!(matches!(ruling.verdict, RetryVerdict::RetryAfter(_)) || act == Act::FindSecret);
        let outcome = |decision: &Decision| decision.outcome;
        ruling.decisions.iter().map(outcome).collect::<Vec<_>>()
    };
    use DecisionOutcome::{Answered, Quarantined, Trap};
    // An answer in between begins the count anew. It decides, so the last policy is not asked.
    assert_eq!(outcomes(Act::Panic), [Trap, Trap, Answered]);
    assert_eq!(outcomes(Act::Panic), [Trap, Trap, Answered]);
    assert_eq!(outcomes(Act::FindSecret), [Answered]);
    assert_eq!(host.status().policies[0].counters.failures_in_a_row, 0);
    assert_eq!(outcomes(Act::Panic), [Trap, Trap, Answered]);
    let since = |host: &PolicyHost| {
        let policies = host.status().policies;
        let since = policies.iter().map(|policy| policy.quarantined_since);
        since.collect::<Vec<_>>()
    };
    let at = Some(facts().now);
    // The monitored one was never asked for the answer that the first one gave.
    assert_eq!(since(&host), [None, at, None]);
    assert_eq!(outcomes(Act::Panic), [Trap, Quarantined, Answered]);
    assert_eq!(outcomes(Act::Panic), [Trap, Quarantined, Answered]);
    assert_eq!(outcomes(Act::Panic), [Quarantined, Quarantined, Answered]);
    assert_eq!(since(&host), [at, at, None]);
    let quarantined = host.decide_retry(&acting(Act::Panic)).decisions.remove(0);
    let reason = "is in quarantine and was not asked";
    assert_eq!(quarantined.reason.as_deref(), Some(reason));
    assert_eq!(host.status().policies[0].counters.decisions, 6);
    for name in ["policy=\"quarantined\"", "policy=\"quarantined-monitor\""] {
        assert_eq!(logged(&["is in quarantine", "reload", name]), 1, "{name}");
    }

    host.reload(config(), LATER).unwrap();
    assert_eq!(since(&host), [None, None, None]);
    assert_eq!(outcomes(Act::Panic), [Trap, Trap, Answered]);
}

#[test]
fn the_careful_answer_stands_in_for_a_policy_in_quarantine() {
    let policies = Policies::new(&[MISBEHAVE]);
    let config = PolicyHostConfig {
        quarantine_after: NonZeroU32::new(1),
        ..policies.config(vec![misbehaving()])
    };
    let host = PolicyHost::load(config, LOADED_AT).unwrap();
    host.decide_retry(&acting(Act::Panic));
    // It would have an opinion on this one.
    let ruling = host.decide_retry(&acting(Act::FindSecret));
    assert_eq!(ruling.verdict, RetryVerdict::GiveUp);
    assert_eq!(ruling.decisions[0].outcome, DecisionOutcome::Quarantined);
}

#[test]
fn a_policy_that_fails_at_sample_jobs_is_not_put_in_force() {
    let policies = Policies::new(&[RETRY_BACKOFF, RETENTION_RULES, IMAGE_MAP]);
    let starved = |file: &str| {
        let mut config = configured(file, file, &[]);
        config.limits.host_calls = 1;
        config
    };
    let host = policies.load(vec![mapping("kept", "good")]).unwrap();
    let config = policies.config(vec![starved(RETRY_BACKOFF), starved(RETENTION_RULES)]);
    let errors = host.reload(config, LATER).unwrap_err();
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let too_often = "called the host more than 1 times";
    assert_eq!(
        told,
        [
            format!(
                "policy \"{RETRY_BACKOFF}\": retry, asked about a job that failed before it ran: {too_often}"
            ),
            format!(
                "policy \"{RETENTION_RULES}\": retention, asked about a job whose work was delivered: {too_often}"
            ),
        ]
    );
    let steps: Vec<_> = errors
        .iter()
        .map(|error| error.problem.step().to_string())
        .collect();
    assert_eq!(steps, ["probe", "probe"]);
    assert_eq!(host.status().generation, 1);
}

#[test]
fn a_policy_that_denies_sample_jobs_is_as_good_as_any() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let forbidden = r#"{"calls-recorder:v0.8.13": "no"}"#;
    let host = policies.load(vec![configured(
        "strict",
        IMAGE_MAP,
        &[("forbidden", forbidden)],
    )]);
    let ruling = host.unwrap().decide_image(&facts(), Purpose::Start);
    assert!(matches!(ruling.verdict, Choice::Deny(_)), "{ruling:?}");
}

#[test]
fn a_policy_without_something_that_it_was_granted_is_not_loaded() {
    let policies = Policies::new(&[IMAGE_MAP]);
    let mut lacking = mapping("a", "one");
    lacking.lacking = vec!["dirs: cannot open /srv/x: No such file".to_owned()];
    assert_eq!(
        problems(policies.load(vec![lacking])),
        ["policy \"a\": grants: dirs: cannot open /srv/x: No such file"]
    );
}
