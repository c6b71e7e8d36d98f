//! Loads, swaps, and decisions that have to be ended.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use domain::{DecisionOutcome, Hook};
use offloader_policy_host::{PolicyConfig, PolicyHost};
use serde_json::Value;

use crate::stock::{NOW, STOCK, Stock, configuration, decide, facts};
use crate::{millis_since, quantiles};

const LOADS: usize = 20;
const SWAPS: usize = 50;
const OVERRUNS: usize = 300;
/// How long a decision may take that never ends by itself.
const LIMIT: Duration = Duration::from_millis(10);

/// Loads the four stock policies.
pub(crate) fn load(dir: &Path, artifacts: Option<&Path>) -> Result<Value> {
    let mut times = Vec::new();
    // The first writes the artifacts.
    for load in 0..=LOADS {
        let policies = STOCK.iter().map(Stock::config).collect();
        let config = configuration(dir, policies, artifacts)?;
        let begin = Instant::now();
        drop(PolicyHost::load(config, NOW)?);
        if load > 0 {
            times.push(millis_since(begin));
        }
    }
    Ok(quantiles(times))
}

/// From asking for a reload with another setting of one policy until its first decision.
pub(crate) fn swap_settings(dir: &Path, scratch: &Path) -> Result<Value> {
    swaps(dir, scratch, |swap, policy| {
        let delay = format!("{}s", 10 + swap);
        policy.settings.insert("max_delay".to_owned(), delay);
        Ok(())
    })
}

/// The same with another component, which is compiled first.
pub(crate) fn swap_component(dir: &Path, scratch: &Path) -> Result<Value> {
    swaps(dir, scratch, |swap, policy| {
        let mut bytes = fs::read(dir.join(&policy.component))?;
        // A custom section that nobody looks at, with a name of one byte.
        bytes.extend([0, 3, 1, b'n', u8::try_from(swap)?]);
        policy.component = format!("other-{swap}.wasm");
        Ok(fs::write(scratch.join(&policy.component), bytes)?)
    })
}

fn swaps(
    dir: &Path,
    scratch: &Path,
    change: impl Fn(usize, &mut PolicyConfig) -> Result<()>,
) -> Result<Value> {
    // Components and artifacts beside each other, so that changed ones have a place to be.
    for stock in &STOCK {
        fs::copy(dir.join(stock.file), scratch.join(stock.file))?;
    }
    let configured = |swap: usize| {
        let mut policies: Vec<_> = STOCK.iter().map(Stock::config).collect();
        let retry = STOCK.iter().position(|stock| stock.hook == Hook::Retry);
        change(swap, &mut policies[retry.expect("there is one")])?;
        configuration(scratch, policies, Some(scratch))
    };
    let facts = facts()?;
    let host = PolicyHost::load(configured(0)?, NOW)?;
    let identity = || {
        let decision = decide(&host, Hook::Retry, &facts).remove(0);
        (decision.component_sha256, decision.settings_sha256)
    };
    let mut before = identity();
    let mut times = Vec::new();
    for swap in 1..=SWAPS {
        let config = configured(swap)?;
        let begin = Instant::now();
        host.reload(config, NOW)?;
        let now = identity();
        times.push(millis_since(begin));
        ensure!(now != before, "the policy decides that was there before");
        before = now;
    }
    Ok(quantiles(times))
}

/// How much longer than its limit a decision takes that computes for ever.
pub(crate) fn overshoot(dir: &Path) -> Result<Value> {
    let mut policy = PolicyConfig::new("misbehave", "misbehave.wasm");
    policy.limits.time = LIMIT;
    let host = PolicyHost::load(configuration(dir, vec![policy], None)?, NOW)?;
    let mut facts = facts()?;
    facts.id = "loop".to_owned();
    let mut times = Vec::new();
    for _ in 0..OVERRUNS {
        let begin = Instant::now();
        let decision = decide(&host, Hook::Retry, &facts).remove(0);
        times.push(millis_since(begin) - LIMIT.as_secs_f64() * 1e3);
        ensure!(
            decision.outcome == DecisionOutcome::Timeout,
            "it ends with {decision:?}"
        );
    }
    Ok(quantiles(times))
}

/// Loads so many policies from artifacts, the stock ones by turns, and asks all of them once.
pub(crate) fn many(dir: &Path, artifacts: &Path, count: usize) -> Result<PolicyHost> {
    let policy = |number: usize| {
        let mut policy = STOCK[number % STOCK.len()].config();
        policy.name = format!("policy {number}");
        // What it would answer is not wanted: every one is to be asked.
        policy.mode = offloader_policy_host::Mode::Monitor;
        policy
    };
    let policies = (0..count).map(policy).collect();
    let host = PolicyHost::load(configuration(dir, policies, Some(artifacts))?, NOW)?;
    let facts = facts()?;
    let asked = STOCK
        .iter()
        .map(|stock| decide(&host, stock.hook, &facts).len());
    ensure!(asked.sum::<usize>() == count, "not all were asked");
    Ok(host)
}
