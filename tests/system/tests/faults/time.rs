//! Clocks that jump, and times that fall due while nobody looks.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::World;

const HOUR: i64 = 3600;
/// Long enough for whatever comes early to have come.
const A_WHILE: Duration = Duration::from_secs(2);

/// The daemon's clock on the wall, which can be set.
struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Puts the daemon's clock into our hands.
    fn of(plan: Plan) -> (Plan, Self) {
        let dir = plan.dir();
        let (library, file) = (dir.join("clock.so"), dir.join("clock"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([source, "-ldl"])
            .status();
        assert!(compiled.expect("a C compiler named cc").success());
        let clock = Self { file };
        clock.jump(0);
        let path = |path: &PathBuf| path.display().to_string();
        let plan = plan
            .env("LD_PRELOAD", &path(&library))
            .env("OFFLOADER_TEST_CLOCK", &path(&clock.file));
        (plan, clock)
    }

    /// Sets it so many seconds off the machine's.
    fn jump(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, seconds.to_string()).expect("the clock can be written");
        fs::rename(&new, &self.file).expect("the clock can be set");
    }
}

/// A job that runs for at most half an hour, and one that failed and is kept for as long.
async fn running_and_kept(plan: Plan) -> (World, String, String) {
    let script = "case $RECORDING_ID in kept*) exit 7;; esac
                  trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let config = "jobs.failed_jobs_retention_time = \"30m\"";
    let mut world = plan.script(script).config(config).begin().await;
    let kept = world.start_job("kept").await;
    world.until_ended(&kept).await;
    let mut body = world.recording("rec");
    body["max_duration_sec"] = json!(1800);
    let runs = world.start_body(body).await;
    world.agrees().await;
    (world, runs, kept)
}

async fn nothing_has_come_early(world: &World, runs: &str, kept: &str) {
    sleep(A_WHILE).await;
    for (id, state) in [(runs, "running"), (kept, "retained")] {
        let job = world.job(id).await;
        assert_eq!(job["state"], state, "{job:#}");
    }
    let agreement = world.agrees().await;
    assert_eq!((agreement.running, agreement.volumes), (1, 2));
}

#[tokio::test]
async fn a_clock_that_jumps_while_the_service_runs_ends_and_deletes_nothing() {
    let test = "a_clock_that_jumps_while_the_service_runs_ends_and_deletes_nothing";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let (plan, clock) = Clock::of(plan);
    let (world, runs, kept) = running_and_kept(plan).await;
    for jump in [HOUR, -HOUR] {
        clock.jump(jump);
        nothing_has_come_early(&world, &runs, &kept).await;
    }
}

#[tokio::test]
async fn a_clock_that_was_set_while_the_service_was_down_ends_and_deletes_nothing() {
    let test = "a_clock_that_was_set_while_the_service_was_down_ends_and_deletes_nothing";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let (plan, clock) = Clock::of(plan);
    let (mut world, runs, kept) = running_and_kept(plan).await;
    for jump in [-HOUR, 0, HOUR] {
        world.crash();
        clock.jump(jump);
        world.start().await;
        nothing_has_come_early(&world, &runs, &kept).await;
    }
}

#[tokio::test]
async fn what_falls_due_while_the_service_is_down_goes_at_its_start_and_nothing_else() {
    let test = "what_falls_due_while_the_service_is_down_goes_at_its_start_and_nothing_else";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let script = "case $RECORDING_ID in kept*) exit 7;; esac
                  trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let plan = plan.script(script).retention("{ delivered = \"4s\" }");
    let mut world = plan.begin().await;
    let runs = world.start_job("rec").await;
    let kept = world.start_job("kept").await;
    let job = world
        .until(&kept, "kept", |job| job["state"] == "retained")
        .await;
    assert!(job["keep_until"].is_i64(), "{job:#}");
    world.crash();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        world.engine.containers_of(&kept).len(),
        1,
        "who removed it?"
    );
    world.recover(2).await;
    world.until_removed(&kept).await;
    assert_eq!(world.job(&runs).await["state"], "running");
    assert_eq!(world.agrees_after_crashes(1).await.running, 1);
}
