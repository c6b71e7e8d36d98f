//! The daemon dies at exact points of a job's life, and again while it recovers.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::World;

/// Submits to a daemon that dies of it, and starts it again after two further deaths.
async fn submitted_to_the_dying(test: &str, point: &str) -> Option<World> {
    let plan = Plan::shared(test)?.slots(1);
    let mut world = plan.begin_dying_at(point).await;
    let body = world.recording("rec");
    assert!(world.submit(&body).await.is_none(), "the dead answered");
    world.until_dead();
    Some(world)
}

#[tokio::test]
async fn killed_before_the_intent_is_saved() {
    let test = "killed_before_the_intent_is_saved";
    let Some(mut world) = submitted_to_the_dying(test, "before-intent").await else {
        return;
    };
    assert!(world.labelled().is_empty());
    world.recover(0).await;
    assert_eq!(world.newest().await, json!(null), "a record of nothing");
    // The client's retry, of the same work.
    let id = world.start_job("rec").await;
    world.agrees_after_crashes(1).await;
    assert_eq!(world.oracle.starts_of(&id), 1);
}

#[tokio::test]
async fn killed_between_intent_and_creation() {
    let test = "killed_between_intent_and_creation";
    let Some(mut world) = submitted_to_the_dying(test, "after-intent").await else {
        return;
    };
    interrupted_without_a_start(&mut world, 0).await;
}

#[tokio::test]
async fn killed_between_creation_and_start() {
    let test = "killed_between_creation_and_start";
    let Some(mut world) = submitted_to_the_dying(test, "after-create").await else {
        return;
    };
    // Its container and its volume.
    interrupted_without_a_start(&mut world, 2).await;
}

async fn interrupted_without_a_start(world: &mut World, left: usize) {
    assert_eq!(world.labelled().len(), left, "{:?}", world.labelled());
    world.recover(1).await;
    let id = world.newest().await["id"].clone();
    let job = world
        .until_removed(id.as_str().expect("there is a job"))
        .await;
    assert_eq!(
        (&job["reason"], &job["outcome"], &job["delivery"]),
        (&json!("interrupted"), &json!("failed"), &json!("never-ran")),
        "{job:#}"
    );
    assert!(world.labelled().is_empty(), "{:?}", world.labelled());
    assert_eq!(world.oracle.starts(), 0, "a ghost");
    world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn killed_after_the_start_before_that_is_saved() {
    for point in ["after-start", "running-unsaved"] {
        let test = "killed_after_the_start_before_that_is_saved";
        let Some(mut world) = submitted_to_the_dying(test, point).await else {
            return;
        };
        let before = world.labelled();
        assert_eq!(before.len(), 2, "{before:?}");
        // What was found out is about to be saved once more, and once more it is not.
        world
            .setup
            .clone()
            .dies_at("running-unsaved")
            .start_and_die();
        world.recover(1).await;
        let job = world.newest().await;
        let id = job["id"].as_str().expect("there is a job");
        let job = world
            .until(id, "running", |job| job["state"] == "running")
            .await;
        assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
        assert_eq!(world.labelled(), before, "another container");
        world.agrees_after_crashes(1).await;
        assert_eq!(world.oracle.starts(), 1, "{point}");
        world.ask_to_end(id);
        let job = world.until_removed(id).await;
        assert_eq!(job["reason"], "completed", "{job:#}");
        world.agrees().await;
    }
}

#[tokio::test]
async fn killed_after_the_exit_before_that_is_saved() {
    let test = "killed_after_the_exit_before_that_is_saved";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let mut world = plan.script(script).begin_dying_at("end-unsaved").await;
    let id = world.start_job("rec").await;
    world.ask_to_end(&id);
    world.until_dead();
    world.setup.clone().dies_at("end-unsaved").start_and_die();
    world.recover(1).await;
    let job = world.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["exit_code"]),
        (&json!("exited"), &json!(7)),
        "{job:#}"
    );
    assert_eq!(world.agrees_after_crashes(1).await.running, 0);
}

#[tokio::test]
async fn killed_between_the_removals_of_container_and_volume() {
    let test = "killed_between_the_removals_of_container_and_volume";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.slots(1).begin_dying_at("between-removals").await;
    let id = world.start_job("rec").await;
    world.ask_to_end(&id);
    world.until_dead();
    assert_eq!(world.engine.containers_of(&id), [""; 0]);
    assert_eq!(world.engine.volumes_of(&id).len(), 1, "not the point meant");
    world.recover(1).await;
    let job = world.until_removed(&id).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert!(world.labelled().is_empty(), "{:?}", world.labelled());
    world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn ten_kills_during_one_job() {
    let Some(plan) = Plan::shared("ten_kills_during_one_job") else {
        return;
    };
    let mut world = plan.slots(1).begin().await;
    let id = world.start_job("rec").await;
    let (container, before) = (world.container(&id), world.job(&id).await);
    for number in 0..10 {
        world.crash();
        // Also while it has hardly begun to recover.
        world.start_blind().await;
        sleep(Duration::from_millis(number * 10)).await;
    }
    world.until_healthy().await;
    let job = world.job(&id).await;
    for name in ["start_at", "deadline", "attempts", "state"] {
        assert_eq!(job[name], before[name], "{name} after ten crashes");
    }
    assert_eq!(world.container(&id), container);
    assert_eq!(world.agrees_after_crashes(1).await.starts, 1);
}

#[tokio::test]
async fn a_deadline_that_passed_while_the_service_was_down_holds_at_its_start() {
    let test = "a_deadline_that_passed_while_the_service_was_down_holds_at_its_start";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let mut world = plan.slots(1).begin().await;
    let mut body = world.recording("rec");
    body["max_duration_sec"] = json!(2);
    let id = world.start_body(body).await;
    world.crash();
    sleep(Duration::from_secs(3)).await;
    let container = world.container(&id);
    let running = world.engine.inspect(&container)["State"]["Running"].clone();
    assert_eq!(running, true, "nobody was there to stop it");
    world.recover(1).await;
    let job = world.until_removed(&id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("deadline"), &json!("succeeded")),
        "{job:#}"
    );
    world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn restarts_while_a_job_finishes_leave_its_time_to_be_killed() {
    let test = "restarts_while_a_job_finishes_leave_its_time_to_be_killed";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    // Takes its time to send what it has, and is done when the file is there.
    let script = "trap 'late=1' TERM; while [ ! -e /data/sent ]; do sleep 0.05; done";
    let plan = plan
        .slots(1)
        .script(script)
        .config("[gate.recording]\nstop_grace = \"40s\"");
    let mut world = plan.begin().await;
    let mut body = world.recording("rec");
    body["max_duration_sec"] = json!(1);
    let id = world.start_body(body).await;
    let stopping = |job: &serde_json::Value| job["state"] == "stopping";
    let before = world.until(&id, "stopping", stopping).await;
    assert!(before["kill_at"].is_i64(), "{before:#}");
    for _ in 0..3 {
        world.crash();
        world.recover(1).await;
        let job = world.until(&id, "stopping", stopping).await;
        assert_eq!(job["kill_at"], before["kill_at"], "grace after a restart");
    }
    world.agrees().await;
    let container = world.container(&id);
    world
        .engine
        .docker(&["exec", &container, "/bin/mkdir", "/data/sent"]);
    let job = world.until_removed(&id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("deadline"), &json!("succeeded")),
        "{job:#}"
    );
    world.agrees_after_crashes(0).await;
}
