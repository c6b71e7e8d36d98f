//! How long after its limit a decision has ended.
//!
//! On a machine that is busy with other tests this says that it ends, and soon. By hand, on a core of
//! its own, it says how soon:
//!
//!     OFFLOADER_OVERSHOOT_RUNS=1000 chrt -f 5 cargo test -p offloader-policy-host \
//!         --test hostile overshoot -- --nocapture

use std::time::{Duration, Instant};
use std::{env, thread};

use domain::{Decision, DecisionOutcome};
use offloader_policy_host::{PolicyConfig, PolicyHost};

use crate::BUSY;
use crate::broken_words::failing;
use crate::support::acts::Act;
use crate::support::*;

const LIMIT: Duration = Duration::from_millis(20);

/// The policies whose decisions never end by themselves, each with what it is told.
fn endless(policies: &Policies) -> Vec<(String, PolicyHost, Act)> {
    let load = |config: PolicyConfig| policies.load(vec![config]).unwrap();
    let hasty = |mut config: PolicyConfig, waits: bool| {
        config.limits.time = LIMIT;
        config.limits.host_calls = 10_000_000;
        config.grants.real_clock = waits;
        load(config)
    };
    let mut endless = Vec::new();
    for (kind, waits) in [("inert", false), ("waiting", true)] {
        for act in [Act::Loop, Act::CallSettings, Act::SleepForEver] {
            let host = hasty(misbehaving(), waits);
            endless.push((format!("{kind} {}", act.name()), host, act));
        }
        for policy in failing() {
            if policy.outcome == DecisionOutcome::Timeout {
                policies.write(policy.name, &policy.bytes());
                let host = hasty(configured(policy.name, policy.name, &[]), waits);
                endless.push((format!("{kind} {}", policy.name), host, Act::Remember));
            }
        }
    }
    endless
}

#[test]
fn overshoot() {
    let runs: Option<usize> = env::var("OFFLOADER_OVERSHOOT_RUNS")
        .ok()
        .map(|runs| runs.parse().expect("a number of runs"));
    let policies = Policies::new(&[MISBEHAVE]);
    for (name, host, act) in endless(&policies) {
        let over = || {
            let begin = Instant::now();
            let Decision {
                outcome, reason, ..
            } = host.decide_retry(&acting(act)).decisions.remove(0);
            let over = begin.elapsed().saturating_sub(LIMIT);
            assert_eq!(outcome, DecisionOutcome::Timeout, "{name}: {reason:?}");
            assert!(over < BUSY, "{name}: {over:?}");
            // A process of real-time priority that never rests is made to.
            thread::sleep(LIMIT / 4);
            over
        };
        let mut over: Vec<_> = (0..runs.unwrap_or(3)).map(|_| over()).collect();
        if runs.is_some() {
            over.sort_unstable();
            let at = |part: f64| over[((over.len() - 1) as f64 * part) as usize];
            println!(
                "{name}: p50 {:?}, p99 {:?}, max {:?}",
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
}
