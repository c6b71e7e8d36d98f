//! From POST /jobs until the answer that the container runs, in turns with creating and starting the
//! same container and volume through the engine's own API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use offloader_bench::Sample;
use serde_json::{Value, json};

use super::Bench;
use super::report::{Goal, Report, Row};
use super::work::{Work, container_of};
use crate::engine::Engine;

/// At most so many of each.
const PAIRS: u32 = 300;
/// No further pair begins after this time.
const ENOUGH: Duration = Duration::from_secs(480);
/// The engine has work left when a container is gone.
const SETTLE: Duration = Duration::from_millis(150);

pub(super) async fn measure(bench: &Bench, engine: &Engine, report: &mut Report) -> Result<()> {
    let mut work = Work::begin(bench, "jobs", engine).await?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let mut template = None;
    let begin = Instant::now();
    for pair in 0..PAIRS {
        if begin.elapsed() > ENOUGH {
            break;
        }
        let (job, took) = work.submit().await?;
        ours.push(millis(took));
        let body = match &mut template {
            Some(body) => body,
            None => template.insert(work.raw.like(&container_of(&job)).await?),
        };
        work.finish(&job).await?;
        tokio::time::sleep(SETTLE).await;

        let name = format!("offloader-bench-raw-{}-{pair}", std::process::id());
        rename(body, &name)?;
        raw.push(millis(work.raw.run(&name, body).await?));
        work.raw.remove(&name, &name).await?;
        tokio::time::sleep(SETTLE).await;
    }
    let pairs = ours.len();
    let (ours, raw) = (Sample::new(ours), Sample::new(raw));
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        report.add(Row {
            what: format!("POST /jobs to running, {name} of {pairs}"),
            unit: "ms",
            ours: ours.quantile(share),
            floor: Some(raw.quantile(share)),
            goals: vec![Goal::RatioAtMost(1.05)],
        });
    }
    Ok(())
}

/// Gives a description another volume, and labels that no daemon takes for its own.
fn rename(body: &mut Value, volume: &str) -> Result<()> {
    body["Labels"]["io.offloader.instance"] = json!("bench-raw");
    let mount = body["HostConfig"]["Mounts"]
        .get_mut(0)
        .context("the job's container has no volume")?;
    mount["Source"] = json!(volume);
    mount["VolumeOptions"]["Labels"]["io.offloader.instance"] = json!("bench-raw");
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
