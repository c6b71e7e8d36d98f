//! How long after a crash running containers are looked after again, in turns with asking the
//! container engine about each.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use offloader_bench::Sample;
use tokio::task::block_in_place;

use super::Bench;
use super::daemon::{Daemon, Server};
use super::history::fill;
use super::report::{Goal, Report, Row};
use super::work::{Work, container_of};
use crate::engine::Engine;

/// Running jobs that are found again.
const JOBS: usize = 100;
/// Running jobs of a start with a long history.
const MORE_JOBS: usize = 200;
/// Jobs of that history.
const FINISHED: u32 = 10_000;
/// Crashes, and starts of each kind.
const TURNS: usize = 7;
/// All containers are watched again by then.
const SETTLED: Duration = Duration::from_secs(3);
/// Time between two looks at a process's sockets.
const LOOK: Duration = Duration::from_millis(2);

pub(super) async fn measure(bench: &Bench, engine: &Engine, report: &mut Report) -> Result<()> {
    let mut work = Work::begin(bench, "adoption", engine).await?;
    let mut jobs = Vec::new();
    submit(&mut work, &mut jobs, JOBS).await?;
    let (mut shown, mut watched, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let start = restart(&mut work, true, JOBS).await?;
        shown.push(start.shown_ms);
        watched.push(start.watched_ms);
        floor.push(millis(ask_about_each(&work, &jobs).await?));
    }
    let floor = Sample::new(floor).quantile(0.5);
    let all = format!("{JOBS} running containers after SIGKILL");
    for (what, values) in [
        ("shown as running, /healthz good", shown),
        ("watched again", watched),
    ] {
        report.add(Row {
            what: format!("{all}: {what}"),
            unit: "ms",
            ours: Sample::new(values).quantile(0.5),
            floor: Some(floor),
            goals: vec![Goal::AtMost(1000.0)],
        });
    }

    submit(&mut work, &mut jobs, MORE_JOBS).await?;
    let empty = Daemon::without_policies(bench, "adoption-empty", engine.host())?;
    let daemon = work.end(false);
    fill(bench, daemon, FINISHED, "removed").await?;
    let server = daemon.start()?;
    work.go_on(server);
    let (mut healthy, mut watched, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let start = restart(&mut work, false, MORE_JOBS).await?;
        healthy.push(start.healthy_ms);
        watched.push(start.watched_ms);
        let mut server = empty.start()?;
        nothing.push(millis(block_in_place(|| server.first_answer("/healthz"))?));
    }
    let nothing = Sample::new(nothing).quantile(0.5);
    let all = format!("start with {FINISHED} finished and {MORE_JOBS} running jobs");
    for (what, values) in [("to /healthz", healthy), ("until all are watched", watched)] {
        report.add(Row {
            what: format!("{all} {what}; floor: with an empty store to /healthz"),
            unit: "ms",
            ours: Sample::new(values).quantile(0.5),
            floor: Some(nothing),
            goals: vec![Goal::AtMost(nothing + 1000.0)],
        });
    }
    for job in &jobs {
        work.raw.terminate(&container_of(job)).await?;
    }
    for job in &jobs {
        work.finish(job).await?;
    }
    Ok(())
}

/// Submits until there are so many jobs.
async fn submit(work: &mut Work, jobs: &mut Vec<String>, wanted: usize) -> Result<()> {
    while jobs.len() < wanted {
        let (job, _) = work.submit().await?;
        jobs.push(job);
    }
    Ok(())
}

/// Times from a start, in milliseconds.
struct Start {
    /// To the answer that all is well.
    healthy_ms: f64,
    /// To a page that shows all jobs as running, or as many as there are on it.
    shown_ms: f64,
    /// Until the last container is watched.
    watched_ms: f64,
}

/// Ends the daemon and starts it again.
async fn restart(work: &mut Work, at_once: bool, running: usize) -> Result<Start> {
    const PAGE: usize = 100;
    let daemon = work.end(at_once);
    let mut server = daemon.start()?;
    let sockets = Sockets::watch(&server);
    let healthy = block_in_place(|| server.first_answer("/healthz"))?;
    let began = Instant::now() - server.age();
    work.go_on(server);
    let shown = work.shown_running().await?;
    let shown_after = began.elapsed();
    ensure!(
        shown == running.min(PAGE),
        "{shown} jobs are shown as running"
    );
    tokio::time::sleep(SETTLED).await;
    Ok(Start {
        healthy_ms: millis(healthy),
        shown_ms: millis(shown_after),
        watched_ms: millis(sockets.complete_after(running)?),
    })
}

/// The sockets that a process has open, over time. The daemon watches each container over a connection
/// of its own, which it opens when it has found that the container runs.
struct Sockets {
    stop: mpsc::Sender<()>,
    looks: thread::JoinHandle<Vec<(Duration, BTreeSet<String>)>>,
}

impl Sockets {
    fn watch(server: &Server) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (dir, began) = (
            format!("/proc/{}/fd", server.pid()),
            Instant::now() - server.age(),
        );
        let looks = thread::spawn(move || {
            let mut looks = Vec::new();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let after = began.elapsed();
                looks.push((after, open_sockets(&dir)));
            }
            looks
        });
        Self { stop, looks }
    }

    /// When the last of the connections was there that are there still.
    fn complete_after(self, at_least: usize) -> Result<Duration> {
        drop(self.stop);
        let Ok(mut looks) = self.looks.join() else {
            bail!("looking at sockets failed");
        };
        let (_, last) = looks.pop().context("nobody looked at sockets")?;
        // What is asked at the moment of the last look is no watch.
        let last_but_some = &looks[looks.len().saturating_sub(100)].1;
        let watches: BTreeSet<_> = last.intersection(last_but_some).collect();
        ensure!(
            watches.len() >= at_least,
            "{} connections are open",
            watches.len()
        );
        let complete =
            |open: &BTreeSet<String>| watches.iter().all(|socket| open.contains(*socket));
        let first = looks.iter().find(|(_, open)| complete(open));
        first
            .map(|(after, _)| *after)
            .context("they were never open")
    }
}

/// What the kernel calls them: `socket:[NUMBER]`.
fn open_sockets(dir: &str) -> BTreeSet<String> {
    // A file may be closed while it is looked at.
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter_map(|link| link.into_os_string().into_string().ok())
        .filter(|link| link.starts_with("socket:"))
        .collect()
}

/// The least that finding containers again can cost: a list, and a question about each.
async fn ask_about_each(work: &Work, jobs: &[String]) -> Result<Duration> {
    let begin = Instant::now();
    work.raw.list().await?;
    let containers = jobs.iter().map(|job| container_of(job));
    work.raw.inspect_all(containers).await?;
    Ok(begin.elapsed())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
