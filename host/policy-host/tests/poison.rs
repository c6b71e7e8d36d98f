//! Nothing of a decision is left for the one that gets its slot, and the pool takes no more memory
//! than it may. Alone in its program, whose memory it measures.
#![allow(
    clippy::disallowed_methods,
    reason = "tests open files and measure time themselves"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;
use std::{env, fs, thread};

use domain::DecisionOutcome;
use offloader_policy_host::{PolicyConfig, PolicyHost};
use support::acts::Act;
use support::*;

/// As many as there are slots for decisions.
const SLOTS: usize = 64;
/// What a slot keeps resident, with some room for what the host itself needs.
const RESIDENT: u64 = SLOTS as u64 * (256 << 10) + (32 << 20);

/// How a decision ended, and what was told.
fn end(host: &PolicyHost, act: Act) -> (DecisionOutcome, Option<String>) {
    let decision = host.decide_retry(&acting(act)).decisions.remove(0);
    (decision.outcome, decision.reason)
}

/// The same act in every slot at once, each for as long as it may.
fn in_every_slot(host: &PolicyHost, act: Act) -> Vec<(DecisionOutcome, Option<String>)> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..SLOTS).map(|_| scope.spawn(|| end(host, act))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Decisions of both kinds in turns, `count` in all: those that leave something, and those that look.
/// Answers what was seen by those that looked.
fn in_turns(host: &PolicyHost, count: usize) -> BTreeMap<String, usize> {
    const LEAVE: [Act; 6] = [
        Act::LeaveSecret,
        Act::Remember,
        Act::Panic,
        Act::GrowAtOnce,
        Act::ExitWell,
        Act::HugeReason,
    ];
    let mut seen = BTreeMap::new();
    for turn in 0..count / 2 {
        end(host, LEAVE[turn % LEAVE.len()]);
        let look = [Act::Remember, Act::FindSecret][turn % 2];
        *seen.entry(format!("{:?}", end(host, look))).or_default() += 1;
    }
    seen
}

/// Bytes of this process in memory now (`VmRSS`), of them those that no file holds (`RssAnon`), or
/// the most so far (`VmHWM`).
fn resident(which: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

#[test]
fn nothing_is_left_for_the_next_decision() {
    let decisions = match env::var_os("OFFLOADER_TEST_SLOW") {
        Some(_) => 100_000,
        None => 8_000,
    };
    let policies = Policies::new(&[MISBEHAVE]);
    let load = |config: PolicyConfig| policies.load(vec![config]).unwrap();
    let brief = |mut config: PolicyConfig| {
        config.limits.time = Duration::from_secs(2);
        load(config)
    };

    // The program's own pages come and go with what else the machine does.
    let before = resident("RssAnon");
    for kind in [misbehaving, waiting] {
        leaves_nothing(&load(kind()), &brief(kind()), decisions);
    }
    let grown = resident("RssAnon").saturating_sub(before);
    assert!(grown < RESIDENT, "{grown} bytes are kept");

    // What one decision takes at most: its memory, and little beside it. Not every kernel can begin
    // to measure anew.
    let host = load(misbehaving());
    if fs::write("/proc/self/clear_refs", "5").is_ok() {
        let before = resident("VmRSS");
        assert_eq!(end(&host, Act::GrowInSteps).0, DecisionOutcome::Memory);
        let taken = resident("VmHWM").saturating_sub(before);
        assert!(
            (8 << 20..24 << 20).contains(&taken),
            "{taken} bytes were taken"
        );
    }
}

/// One that is called on a stack of its own, since it can wait.
fn waiting() -> PolicyConfig {
    let mut config = misbehaving();
    config.grants.real_clock = true;
    config
}

/// Leaves and looks in every slot at once, and then in turns; `brief` is the same policy with the time
/// to do it slowly.
fn leaves_nothing(host: &PolicyHost, brief: &PolicyHost, decisions: usize) {
    let left = in_every_slot(brief, Act::LeaveSecretSlowly);
    let found = in_every_slot(brief, Act::FindSecretSlowly);
    let slowly = (
        DecisionOutcome::Timeout,
        Some("took longer than 2000 ms".to_owned()),
    );
    assert_eq!(left, vec![slowly.clone(); SLOTS]);
    assert_eq!(found, vec![slowly; SLOTS]);

    let workers = 4;
    let seen: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| in_turns(host, decisions / workers)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let half = decisions / workers / 4;
    let nothing = BTreeMap::from([
        (r#"(Answered, Some("0"))"#.to_owned(), half),
        (r#"(Answered, Some("calls=1 kept=1"))"#.to_owned(), half),
    ]);
    assert_eq!(seen, vec![nothing; workers]);
}
