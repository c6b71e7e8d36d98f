//! GET /jobs/{id} of a client, in turns with a bare route that answers the same bytes.

use anyhow::{Context, Result};
use offloader_bench::Sample;
use serde_json::Value;

use super::Bench;
use super::daemon::{Server, start_bare};
use super::report::{Goal, Report, Row};
use super::work::Work;
use crate::engine::Engine;
use crate::process::{command, output};

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
    let (mut ours, mut floor) = (Loads::default(), Loads::default());
    for _ in 0..ROUNDS {
        ours.add(load(bench, &work.address(), job).await?)?;
        floor.add(load(bench, &bare.address().to_string(), job).await?)?;
    }
    let (ours, floor) = (ours.medians(), floor.medians());
    let what = format!("GET /jobs/{{id}} of {what}");
    report.add(Row {
        what: format!("{what}, 32 connections"),
        unit: "/s",
        ours: ours.per_second,
        floor: Some(floor.per_second),
        goals: vec![Goal::RatioAtLeast(0.7), Goal::AtLeast(13_500.0)],
    });
    report.add(Row {
        what: format!("{what}, p99"),
        unit: "us",
        ours: ours.p99_us,
        floor: Some(floor.p99_us),
        goals: vec![],
    });
    Ok(())
}

async fn load(bench: &Bench, address: &str, job: &str) -> Result<Value> {
    let mut load = command(bench.tool("load"));
    load.arg(address)
        .arg(format!("/jobs/{job}"))
        .args(["--user", &Work::user()]);
    let said = output(&mut load).await?;
    serde_json::from_str(&said).with_context(|| format!("load says {said}"))
}

#[derive(Default)]
struct Loads {
    per_second: Vec<f64>,
    p99_us: Vec<f64>,
}

struct Medians {
    per_second: f64,
    p99_us: f64,
}

impl Loads {
    fn add(&mut self, said: Value) -> Result<()> {
        let number = |key: &str| said[key].as_f64().with_context(|| format!("no {key}"));
        self.per_second.push(number("per_second")?);
        self.p99_us.push(number("p99_us")?);
        Ok(())
    }

    fn medians(self) -> Medians {
        Medians {
            per_second: Sample::new(self.per_second).quantile(0.5),
            p99_us: Sample::new(self.p99_us).quantile(0.5),
        }
    }
}
