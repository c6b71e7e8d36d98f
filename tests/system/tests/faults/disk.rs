//! A disk that does not sync what it is given: every sync of the daemon fails as long as a debugger
//! spoils that system call.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use offloader_system_tests::{Daemon, skipped};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::World;

/// As long as it lives nothing that the daemon writes can be synced.
struct NoSyncs(Child);

impl NoSyncs {
    /// None: a debugger is missing or not permitted here.
    async fn of(daemon: &Daemon) -> Option<Self> {
        let spoil = "inject=fsync,fdatasync:error=EIO";
        let strace = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=fsync,fdatasync",
            ])
            .args(["-e", spoil, "-p", &daemon.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut spoiling = Self(strace.ok()?);
        let until = Instant::now() + Duration::from_secs(10);
        while !spoiling.holds_all(daemon) {
            if !matches!(spoiling.0.try_wait(), Ok(None)) || Instant::now() > until {
                return None;
            }
            sleep(Duration::from_millis(20)).await;
        }
        Some(spoiling)
    }

    /// Whether it has hold of every thread.
    fn holds_all(&self, daemon: &Daemon) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid()));
        let tracer = format!("TracerPid:\t{}\n", self.0.id());
        let held = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status"));
            status.is_ok_and(|status| status.contains(&tracer))
        };
        tasks.is_ok_and(|mut tasks| tasks.all(|task| task.is_ok_and(held)))
    }
}

impl Drop for NoSyncs {
    /// Lets go of the daemon, which goes on by itself.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

/// A job that runs, on a disk that is well, and then does not sync any more.
async fn running_without_syncs(test: &str) -> Option<(World, String, NoSyncs)> {
    let mut world = Plan::shared(test)?.begin().await;
    let id = world.start_job("before").await;
    let Some(spoilt) = NoSyncs::of(world.daemon()).await else {
        skipped(test, "strace that may attach");
        return None;
    };
    Some((world, id, spoilt))
}

/// Jobs are refused, /healthz says why, and what runs goes on.
async fn assert_refuses(world: &mut World, running: &str) {
    for number in 0..3 {
        let body = world.recording(&format!("rec{number}"));
        let answer = world.submit(&body).await.expect("the daemon answers");
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    let health = world.until_health("degraded").await;
    assert!(health["reasons"].to_string().contains("store"), "{health}");
    assert_eq!(world.job(running).await["state"], "running");
    let seen = world.engine.inspect(&world.container(running));
    assert_eq!(seen["State"]["Running"], true);
}

#[tokio::test]
async fn a_disk_that_does_not_sync_refuses_jobs_and_what_ends_meanwhile_is_saved_later() {
    let test = "a_disk_that_does_not_sync_refuses_jobs_and_what_ends_meanwhile_is_saved_later";
    let Some((mut world, running, spoilt)) = running_without_syncs(test).await else {
        return;
    };
    assert_refuses(&mut world, &running).await;
    // A job that ends now has nowhere to be recorded, which must not end the service.
    world.ask_to_end(&running);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.engine.volumes_of(&running).len(), 1, "forgotten");
    drop(spoilt);
    let health = world.until_health("ok").await;
    assert_eq!(health["warnings"], Value::Null, "{health}");
    let job = world.until_removed(&running).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert_eq!(world.agrees_after_crashes(0).await.starts, 1);
}

#[tokio::test]
async fn a_crash_while_nothing_can_be_synced_loses_nothing_and_damages_no_store() {
    let test = "a_crash_while_nothing_can_be_synced_loses_nothing_and_damages_no_store";
    let Some((mut world, running, spoilt)) = running_without_syncs(test).await else {
        return;
    };
    assert_refuses(&mut world, &running).await;
    world.crash();
    drop(spoilt);
    world.start().await;
    let health = world.until_health("ok").await;
    assert_eq!(health["warnings"], Value::Null, "set aside: {health}");
    assert_eq!(world.job(&running).await["state"], "running");
    let agreement = world.agrees_after_crashes(1).await;
    assert_eq!((agreement.starts, agreement.running), (1, 1));
}
