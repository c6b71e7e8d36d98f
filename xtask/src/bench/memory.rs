//! Memory of a service that has just started and has nothing to do.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use offloader_bench::Sample;

use super::Bench;
use super::daemon::{Daemon, Server, start_bare};
use super::report::{Goal, Report, Row};
use crate::engine::Engine;

/// Starts of each.
const STARTS: usize = 3;
/// What starting needed has been given back by then.
const IDLE: Duration = Duration::from_secs(2);
pub(super) const MEGABYTE: f64 = 1e6;

pub(super) async fn measure(bench: &Bench, engine: &Engine, report: &mut Report) -> Result<()> {
    let with = Daemon::with_policies(bench, "memory", engine.host(), "localhost:5000/mattermost")?;
    let without = Daemon::without_policies(bench, "memory-without", engine.host())?;
    // What compiling needed is not what a service keeps.
    resident(with.start()?).await?;
    let (mut ours, mut plain, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        ours.push(resident(with.start()?).await?);
        plain.push(resident(without.start()?).await?);
        floor.push(resident(start_bare(bench, "memory-bare", b"{}")?).await?);
    }
    let floor = Sample::new(floor).quantile(0.5);
    for (name, ours) in [("four policies", ours), ("no policies", plain)] {
        report.add(Row {
            what: format!("idle memory with {name}"),
            unit: "MB",
            ours: Sample::new(ours).quantile(0.5),
            floor: Some(floor),
            goals: vec![Goal::AtMost(25.0)],
        });
    }
    Ok(())
}

/// Megabytes of memory that a server has to itself, and its share of what it has with others.
pub(super) async fn resident(mut server: Server) -> Result<f64> {
    server.first_answer("/healthz")?;
    tokio::time::sleep(IDLE).await;
    let path = format!("/proc/{}/smaps_rollup", server.pid());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(proportional_kib(&text)? * 1024.0 / MEGABYTE)
}

pub(super) fn proportional_kib(rollup: &str) -> Result<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.parse().ok())
        .context("smaps_rollup tells no Pss")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_and_not_its_parts() {
        let rollup = "Rss:  20 kB\nPss_Anon:  3 kB\nPss:            12 kB\nPss_File: 9 kB\n";
        assert_eq!(proportional_kib(rollup).unwrap(), 12.0);
        assert!(proportional_kib("Rss: 20 kB\n").is_err());
    }
}
