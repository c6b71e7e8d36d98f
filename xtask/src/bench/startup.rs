//! From the start of the process to its first answers.

use anyhow::Result;
use offloader_bench::Sample;
use tokio::task::block_in_place;

use super::Bench;
use super::daemon::{Daemon, Server, start_bare};
use super::report::{Goal, Report, Row};
use crate::engine::Engine;

/// Starts of each that count.
const STARTS: usize = 20;

pub(super) async fn measure(bench: &Bench, engine: &Engine, report: &mut Report) -> Result<()> {
    let with = Daemon::with_policies(bench, "start", engine.host(), "localhost:5000/mattermost")?;
    let without = Daemon::without_policies(bench, "start-without", engine.host())?;
    let (mut ours, mut plain, mut floor) = (Times::default(), Times::default(), Times::default());
    // The first of each makes the store and compiles the policies.
    for start in 0..=STARTS {
        let counts = start > 0;
        ours.add(with.start()?, counts)?;
        plain.add(without.start()?, counts)?;
        floor.add(start_bare(bench, "start-bare", b"{}")?, counts)?;
    }
    let floor = floor.medians();
    for (name, ours) in [("four policies", ours), ("no policies", plain)] {
        for ((path, ours), (_, floor)) in ours.medians().into_iter().zip(floor) {
            report.add(Row {
                what: format!("start with {name} to GET {path}"),
                unit: "ms",
                ours,
                floor: Some(floor),
                goals: vec![Goal::AtMost(30.0)],
            });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Times {
    version_ms: Vec<f64>,
    health_ms: Vec<f64>,
}

impl Times {
    /// Takes the times of a server that was just started, and ends it.
    fn add(&mut self, mut server: Server, counts: bool) -> Result<()> {
        let (version, health) = block_in_place(|| {
            let version = server.first_answer("/version")?;
            let health = server.first_answer("/healthz")?;
            drop(server);
            anyhow::Ok((version, health))
        })?;
        if counts {
            self.version_ms.push(version.as_secs_f64() * 1e3);
            self.health_ms.push(health.as_secs_f64() * 1e3);
        }
        Ok(())
    }

    fn medians(self) -> [(&'static str, f64); 2] {
        [
            ("/version", Sample::new(self.version_ms).quantile(0.5)),
            ("/healthz", Sample::new(self.health_ms).quantile(0.5)),
        ]
    }
}
