//! How long a decision of each stock policy takes, each in a fresh instance: through the policy host,
//! and with the same component on bare WebAssembly, in turns. `cargo xtask bench policy` runs it.
//!
//! `decisions DIRECTORY`

#![allow(
    clippy::disallowed_methods,
    reason = "a program for measuring opens what it is told to"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cap_std::fs::Dir;
use domain::{
    Attempt, Decision, DecisionOutcome, Delivery, EndReason, Hook, JobFacts, JobKind, Purpose,
    Timestamp,
};
use offloader_bench::Sample;
use offloader_policy_host::floor::Floor;
use offloader_policy_host::{PolicyConfig, PolicyHost, PolicyHostConfig};
use serde_json::{Value, json};

/// Turns of both sides.
const ROUNDS: usize = 40;
/// Decisions in a turn.
const BATCH: usize = 1000;
/// Turns before anything counts.
const WARM_UP: usize = 2;

/// A stock policy with settings as a site would give them.
struct Stock {
    file: &'static str,
    hook: Hook,
    settings: &'static [(&'static str, &'static str)],
}

const STOCK: [Stock; 4] = [
    Stock {
        file: "image_map.wasm",
        hook: Hook::ImageSelection,
        settings: &[(
            "registries",
            r#"{"mattermost":"localhost:5000/mattermost"}"#,
        )],
    },
    Stock {
        file: "site_url_map.wasm",
        hook: Hook::SiteUrl,
        settings: &[
            ("recording", "http://10.0.0.5:8065"),
            ("transcribing", "http://10.0.0.5:8065"),
        ],
    },
    Stock {
        file: "retry_backoff.wasm",
        hook: Hook::Retry,
        settings: &[
            ("attempts", "3"),
            ("first_delay", "2s"),
            ("factor", "2"),
            ("max_delay", "10s"),
        ],
    },
    Stock {
        file: "retention_rules.wasm",
        hook: Hook::Retention,
        settings: &[
            ("delivered", "delete"),
            ("never-ran", "delete"),
            ("failed", "7d"),
            ("unsent", "30d"),
        ],
    },
];

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("no DIRECTORY given")?;
    let measured: Vec<Value> = STOCK
        .iter()
        .map(|stock| measure(Path::new(&dir), stock).context(stock.file))
        .collect::<Result<_>>()?;
    println!("{}", Value::from(measured));
    Ok(())
}

fn measure(dir: &Path, stock: &Stock) -> Result<Value> {
    let &Stock { file, hook, .. } = stock;
    let settings: BTreeMap<String, String> = stock
        .settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut policy = PolicyConfig::new(file, file);
    policy.settings.clone_from(&settings);
    let config = PolicyHostConfig {
        dir: Some(Dir::open_ambient_dir(dir, cap_std::ambient_authority())?),
        policies: vec![policy],
        ..PolicyHostConfig::default()
    };
    let host = PolicyHost::load(config, Timestamp::from_millis(0))?;
    let floor = Floor::new(&std::fs::read(dir.join(file))?, settings)?;
    let facts = facts()?;
    let shared = Arc::new(facts.clone());

    let decided = decide(&host, hook, &facts);
    let outcomes: Vec<_> = decided.iter().map(|decision| decision.outcome).collect();
    ensure!(
        outcomes == [DecisionOutcome::Answered],
        "it decided {decided:?}"
    );

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            ours.clear();
            bare.clear();
        }
        for _ in 0..BATCH {
            let begin = Instant::now();
            drop(decide(&host, hook, &facts));
            ours.push(micros_since(begin));
        }
        for _ in 0..BATCH {
            let begin = Instant::now();
            floor.call(hook, &shared)?;
            bare.push(micros_since(begin));
        }
    }
    Ok(json!({
        "policy": file,
        "ours_us": quantiles(ours),
        "floor_us": quantiles(bare),
    }))
}

fn decide(host: &PolicyHost, hook: Hook, facts: &JobFacts) -> Vec<Decision> {
    match hook {
        Hook::ImageSelection => host.decide_image(facts, Purpose::Start).decisions,
        Hook::SiteUrl => host.decide_site_url(facts).decisions,
        Hook::Retry => host.decide_retry(facts).decisions,
        Hook::Retention => host.decide_retention(facts).decisions,
    }
}

fn micros_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}

fn quantiles(micros: Vec<f64>) -> Value {
    let sample = Sample::new(micros);
    json!({
        "p50": sample.quantile(0.5),
        "p99": sample.quantile(0.99),
        "p99.9": sample.quantile(0.999),
    })
}

/// A recording whose first attempt could not reach the registry, and that left something unsent:
/// every hook has something to decide.
fn facts() -> Result<JobFacts> {
    let image = "mattermost/calls-recorder:v0.8.13";
    let site = "https://mattermost.example.com";
    let now = Timestamp::from_millis(2_000);
    let mut attempt = Attempt::new(1, image.parse()?, now);
    attempt.reason = Some(EndReason::ImageUnreachable);
    Ok(JobFacts {
        id: "abcdefghijklmnopqrstuvwxyz".into(),
        client: "site".into(),
        kind: JobKind::Recording,
        image_asked: image.into(),
        image_chosen: image.into(),
        site_url_asked: site.into(),
        site_url_chosen: site.into(),
        max_duration: Duration::from_secs(3600),
        submitted_at: Timestamp::from_millis(1_000),
        now,
        start_by: Timestamp::from_millis(101_000),
        attempts: vec![attempt],
        delivery: Some(Delivery::Unsent { bytes: 9 }),
        inputs: BTreeMap::new(),
    })
}
