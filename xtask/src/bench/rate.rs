//! Jobs a second, each saved at every step of its life, through the embedded runner: with containers
//! the container engine would be measured.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Bench;
use super::daemon::Daemon;
use super::report::{Goal, Report, Row};
use super::turns::Turns;
use super::work::{RUNNER, Work, recording};
use crate::process::{command, output};

/// Turns of each.
const ROUNDS: u32 = 5;
/// Jobs a turn.
const JOBS: u32 = 10_000;
/// Submissions under way at once.
const CONNECTIONS: u32 = 128;
/// Saves that SQLite alone has in one transaction. The most that the service's store puts into one.
const GROUP: u32 = 256;

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let daemon = Daemon::embedded(bench, "rate", RUNNER, &bench.probe)?;
    let mut server = daemon.start()?;
    server.first_answer("/healthz")?;
    let address = server.address().to_string();
    let dir = bench.dir("rate-bare")?;
    let body = dir.join("body");
    fs::write(&body, recording("NUMBER").to_string())
        .with_context(|| format!("writing {}", body.display()))?;
    let submissions = |first: u32, jobs: u32| {
        let mut submissions = command(bench.tool("submissions"));
        submissions
            .arg(&address)
            .args(["--user", &Work::user(), "--body"])
            .arg(&body)
            .args(["--first", &first.to_string()])
            .args(["--jobs", &jobs.to_string()])
            .args(["--connections", &CONNECTIONS.min(jobs).to_string()]);
        submissions
    };
    // The first call of a client registers it, and the first job compiles the program.
    output(&mut submissions(0, 1)).await?;
    let (mut ours, mut floor) = (Turns::default(), Turns::default());
    for round in 0..ROUNDS {
        ours.add(&mut submissions(1 + round * JOBS, JOBS)).await?;
        let file = dir.join(format!("bare-{round}.db"));
        floor.add(&mut durable(bench, &file)).await?;
    }
    report.add(Row {
        what: "jobs inside the service, from POST /jobs until nothing is left of them".into(),
        unit: "/s",
        ours: ours.median("per_second")?,
        floor: Some(floor.median("per_second")?),
        goals: vec![Goal::AtLeast(2000.0)],
    });
    for (name, key) in [("p50", "p50_ms"), ("p99", "p99_ms")] {
        report.add(Row {
            what: format!("the same with {CONNECTIONS} at once, POST /jobs to running, {name}"),
            unit: "ms",
            ours: ours.median(key)?,
            floor: None,
            goals: vec![],
        });
    }
    Ok(())
}

fn durable(bench: &Bench, file: &Path) -> tokio::process::Command {
    let mut durable = command(bench.tool("examples/durable"));
    durable
        .arg(file)
        .args([JOBS.to_string(), GROUP.to_string()]);
    durable
}
