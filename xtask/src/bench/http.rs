//! GET /jobs/{id} of a client, in turns with a bare route that answers the same bytes.

use anyhow::Result;
use tokio::process::Command;

use super::Bench;
use super::daemon::{Server, start_bare};
use super::report::{Goal, Report, Row};
use super::turns::Turns;
use super::work::Work;
use crate::engine::Engine;
use crate::process::command;

/// Turns of each.
const ROUNDS: usize = 5;

pub(super) async fn measure(bench: &Bench, engine: &Engine, report: &mut Report) -> Result<()> {
    let mut work = Work::begin(bench, "http", engine).await?;
    let (running, _) = work.submit().await?;
    let (finished, _) = work.submit().await?;
    work.finish(&finished).await?;
    for (what, job) in [("a running job", &running), ("a finished job", &finished)] {
        let bytes = work.show(job).await?;
        let mut bare = start_bare(bench, "http-bare", bytes.as_bytes())?;
        bare.first_answer("/version")?;
        compare(bench, &work, &bare, job, what, report).await?;
    }
    work.finish(&running).await
}

async fn compare(
    bench: &Bench,
    work: &Work,
    bare: &Server,
    job: &str,
    what: &str,
    report: &mut Report,
) -> Result<()> {
    let (mut ours, mut floor) = (Turns::default(), Turns::default());
    for _ in 0..ROUNDS {
        ours.add(&mut load(bench, &work.address(), job)).await?;
        floor
            .add(&mut load(bench, &bare.address().to_string(), job))
            .await?;
    }
    let what = format!("GET /jobs/{{id}} of {what}");
    report.add(Row {
        what: format!("{what}, 32 connections"),
        unit: "/s",
        ours: ours.median("per_second")?,
        floor: Some(floor.median("per_second")?),
        goals: vec![Goal::RatioAtLeast(0.7), Goal::AtLeast(13_500.0)],
    });
    report.add(Row {
        what: format!("{what}, p99"),
        unit: "us",
        ours: ours.median("p99_us")?,
        floor: Some(floor.median("p99_us")?),
        goals: vec![],
    });
    Ok(())
}

fn load(bench: &Bench, address: &str, job: &str) -> Command {
    let mut load = command(bench.tool("load"));
    load.arg(address)
        .arg(format!("/jobs/{job}"))
        .args(["--user", &Work::user()]);
    load
}
