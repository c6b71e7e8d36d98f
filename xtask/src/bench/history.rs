//! What a long history costs: memory, the time to start, and pages of it.

use anyhow::Result;
use offloader_bench::Sample;
use offloader_system_tests::KEY;
use site::JobService;
use tokio::task::block_in_place;

use super::Bench;
use super::daemon::{ADMIN_SECRET, Daemon};
use super::memory::resident;
use super::report::{Goal, Report, Row};
use super::turns::Turns;
use super::work::CLIENT;
use crate::engine::Engine;
use crate::process::{command, run};

/// Jobs of a history that should cost next to nothing.
const FINISHED: u32 = 10_000;
/// Jobs of a history to be listed.
const LISTED: u32 = 100_000;
/// Starts of each.
const STARTS: usize = 5;
/// Turns of each page.
const ROUNDS: usize = 3;
/// Who asks for pages at once.
const CONNECTIONS: &str = "2";

pub(super) async fn measure(bench: &Bench, engine: &Engine, report: &mut Report) -> Result<()> {
    let daemon = |name: &str| Daemon::without_policies(bench, name, engine.host());
    let empty = daemon("history-empty")?;
    let removed = daemon("history-removed")?;
    let retained = daemon("history-retained")?;
    for (daemon, state) in [(&removed, "removed"), (&retained, "retained")] {
        // Makes the store.
        resident(daemon.start()?).await?;
        fill(bench, daemon, FINISHED, state).await?;
    }
    let mut all = [empty, removed, retained].map(|daemon| (daemon, Costs::default()));
    for start in 0..=STARTS {
        for (daemon, costs) in &mut all {
            costs.add(daemon, start > 0).await?;
        }
    }
    let [empty, removed, retained] = all.map(|(_, costs)| costs.medians());
    for (what, costs) in [("removed", removed), ("kept", retained)] {
        report.add(Row {
            what: format!(
                "memory with {FINISHED} jobs that ended and are {what}; floor: with none"
            ),
            unit: "MB",
            ours: costs.memory_mb,
            floor: Some(empty.memory_mb),
            goals: vec![Goal::AtMost(empty.memory_mb + 5.0)],
        });
        report.add(Row {
            what: "start with them to /healthz; floor: with none".to_owned(),
            unit: "ms",
            ours: costs.start_ms,
            floor: Some(empty.start_ms),
            goals: vec![Goal::AtMost(empty.start_ms + 1000.0)],
        });
    }
    pages(bench, &daemon("history-listed")?, report).await
}

#[derive(Default)]
struct Costs {
    memory_mb: Vec<f64>,
    start_ms: Vec<f64>,
}

struct Medians {
    memory_mb: f64,
    start_ms: f64,
}

impl Costs {
    async fn add(&mut self, daemon: &Daemon, counts: bool) -> Result<()> {
        let mut server = daemon.start()?;
        let took = block_in_place(|| server.first_answer("/healthz"))?;
        let memory = resident(server).await?;
        if counts {
            self.start_ms.push(took.as_secs_f64() * 1e3);
            self.memory_mb.push(memory);
        }
        Ok(())
    }

    fn medians(self) -> Medians {
        Medians {
            memory_mb: Sample::new(self.memory_mb).quantile(0.5),
            start_ms: Sample::new(self.start_ms).quantile(0.5),
        }
    }
}

/// Asks for pages of a long history, as the command line and the clients do.
async fn pages(bench: &Bench, daemon: &Daemon, report: &mut Report) -> Result<()> {
    resident(daemon.start()?).await?;
    fill(bench, daemon, LISTED, "removed").await?;
    let mut server = daemon.start()?;
    server.first_answer("/healthz")?;
    let address = server.address().to_string();
    // The first client to be registered is the one whom `fill` gives half of the jobs.
    let service = JobService::new(&format!("http://{address}"), CLIENT, KEY);
    service.list().await?;
    let admin = format!(":{ADMIN_SECRET}");
    let client = format!("{CLIENT}:{KEY}");
    // One in the middle, of the client's.
    let before = format!("before={:026}", LISTED / 2);
    for (what, user, path) in [
        ("the first page", &admin, "/jobs".to_owned()),
        ("a page in the middle", &admin, format!("/jobs?{before}")),
        (
            "a page of removed jobs",
            &admin,
            format!("/jobs?state=removed&{before}"),
        ),
        (
            "a page of jobs that are not removed, of which there are none",
            &admin,
            "/jobs?state=preparing,waiting,starting,running,stopping,ended,retained,removing"
                .to_owned(),
        ),
        (
            "a page of a client's own",
            &client,
            format!("/jobs?{before}"),
        ),
        (
            "a page of a client's own that are removed",
            &client,
            format!("/jobs?state=removed&{before}"),
        ),
    ] {
        let mut turns = Turns::default();
        for _ in 0..ROUNDS {
            let mut load = command(bench.tool("load"));
            load.args([&address, &path])
                .args(["--user", user, "--connections", CONNECTIONS]);
            turns.add(&mut load).await?;
        }
        for (name, key, goals) in [
            ("p50", "p50_us", vec![]),
            ("p99", "p99_us", vec![Goal::AtMost(10.0)]),
        ] {
            report.add(Row {
                what: format!("GET /jobs over {LISTED} jobs, {what}, {name}"),
                unit: "ms",
                ours: turns.median(key)? / 1e3,
                floor: None,
                goals,
            });
        }
    }
    Ok(())
}

/// Adds jobs that are over to the store of a daemon that does not run.
pub(super) async fn fill(bench: &Bench, daemon: &Daemon, jobs: u32, state: &str) -> Result<()> {
    let mut fill = command(bench.tool("examples/fill"));
    fill.arg(daemon.store()).args([&jobs.to_string(), state]);
    run(&mut fill).await
}
