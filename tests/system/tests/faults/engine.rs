//! The container engine goes away and comes back.

use std::fs;
use std::time::{Duration, Instant};

use offloader_system_tests::{KEY, Passing};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::{CLIENT, World, wait_for, work_id};

/// How an engine goes away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Going {
    /// Its administrator stops it.
    Stopped,
    /// It crashes; the processes of its containers go on.
    Killed,
    /// All is lost but the disk.
    PowerFailed,
}

fn go(world: &mut World, going: Going) {
    match going {
        Going::Stopped => world.dockerd().stop(),
        Going::Killed => world.dockerd().kill(),
        Going::PowerFailed => world.dockerd().lose_everything(),
    }
}

async fn come_back(world: &mut World) {
    let dockerd = world.dockerd.as_mut().expect("an engine of its own");
    dockerd.resume().await.expect("the engine comes back");
    world.oracle.engine_is_back(&world.engine);
}

/// While the engine is away jobs stay as they are, and no new ones are taken.
async fn nothing_is_concluded(world: &mut World, id: &str, before: &Value) {
    let health = world.until_health("degraded").await;
    assert!(health["reasons"][0].is_string(), "{health}");
    let body = world.recording("away");
    let asked = Instant::now();
    let answer = world.submit(&body).await.expect("the daemon answers");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "a slow refusal");
    assert!(
        answer
            .text()
            .starts_with("failed to create recording job: "),
        "{answer:?}"
    );
    let job = world.job(id).await;
    for name in ["state", "deadline", "attempts"] {
        assert_eq!(job[name], before[name], "{name} while the engine is away");
    }
}

/// A job that still runs as it did, and whose end is still seen.
async fn still_runs_and_ends_well(world: &mut World, id: &str, before: &Value, process: &Value) {
    world.until_healthy().await;
    let container = world.container(id);
    let now = world.engine.inspect(&container);
    assert_eq!(&now["State"]["Pid"], process, "it is another process");
    let job = world.job(id).await;
    for name in ["state", "deadline", "attempts"] {
        assert_eq!(job[name], before[name], "{name} after the engine came back");
    }
    world.agrees_after_crashes(1).await;
    world.ask_to_end(id);
    let job = world.until_removed(id).await;
    assert_eq!(job["reason"], "completed", "{job:#}");
    assert_eq!(world.oracle.starts_of(id), 1);
    world.agrees().await;
}

#[tokio::test]
async fn an_engine_that_restarts_with_live_restore_stops_no_job() {
    let test = "an_engine_that_restarts_with_live_restore_stops_no_job";
    let Some(mut plan) = Plan::own_engine(test).await else {
        return;
    };
    plan.live_restore().await;
    let mut world = plan.begin().await;
    let id = world.start_job("rec").await;
    let before = world.job(&id).await;
    let process = world.engine.inspect(&world.container(&id))["State"]["Pid"].clone();
    for (going, service_too) in [
        (Going::Stopped, false),
        (Going::Killed, false),
        (Going::Stopped, true),
    ] {
        go(&mut world, going);
        nothing_is_concluded(&mut world, &id, &before).await;
        if service_too {
            world.crash();
            world.start_blind().await;
            nothing_is_concluded_blind(&mut world, &id).await;
        }
        come_back(&mut world).await;
        world.until_healthy().await;
    }
    still_runs_and_ends_well(&mut world, &id, &before, &process).await;
}

async fn nothing_is_concluded_blind(world: &mut World, id: &str) {
    world.until_health("degraded").await;
    sleep(Duration::from_secs(1)).await;
    let job = world.job(id).await;
    assert_eq!(
        job["state"], "running",
        "concluded without looking: {job:#}"
    );
}

/// A recorder that has written something, and loses it unless it is given time.
const HALF_A_FILM: &str = "mkdir -p /data/$RECORDING_ID; echo film > /data/$RECORDING_ID/call.mp4
    echo filming
    trap '' TERM; while :; do sleep 0.05; done";

/// The end is what inspect tells. An engine that stops its containers in order knows how they ended;
/// one that finds them dead does not, and only then nobody knows.
async fn ends_without_live_restore(test: &str, going: Going, service_too: bool) {
    let Some(plan) = Plan::own_engine(test).await else {
        return;
    };
    // A stopping engine waits for its containers that long.
    let grace = "[gate.recording]\nstop_grace = \"2s\"";
    let mut world = plan.script(HALF_A_FILM).config(grace).begin().await;
    let id = world.start_job("rec").await;
    let container = world.container(&id);
    wait_for("half a film", || {
        world
            .engine
            .docker(&["logs", &container])
            .contains("filming")
    })
    .await;
    let before = world.job(&id).await;
    if service_too {
        world.stop();
    }
    go(&mut world, going);
    if !service_too {
        nothing_is_concluded_after_its_end(&mut world, &before).await;
    }
    come_back(&mut world).await;
    if service_too {
        world.start().await;
    }
    let kept = |job: &Value| job["state"] == "retained";
    let job = world.until(&id, "retained", kept).await;
    assert_eq!(
        (&job["outcome"], &job["delivery"]),
        (&json!("failed"), &json!("unsent")),
        "{going:?}: {job:#}"
    );
    let reason = if going == Going::PowerFailed {
        json!("runtime-lost")
    } else {
        json!("exited")
    };
    assert_eq!(job["reason"], reason, "{going:?}: {job:#}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
    assert_eq!(world.engine.volumes_of(&id).len(), 1, "the only copy");
    world.agrees_after_crashes(1).await;
    assert_eq!(world.oracle.starts_of(&id), 1, "it was run again");
}

/// The job may be seen to have ended before the engine is out of reach; it has not ended otherwise.
async fn nothing_is_concluded_after_its_end(world: &mut World, before: &Value) {
    world.until_health("degraded").await;
    let id = before["id"].as_str().expect("a job has an id");
    let job = world.job(id).await;
    let reason = &job["reason"];
    assert!(reason.is_null() || reason == "exited", "{job:#}");
}

#[tokio::test]
async fn an_engine_that_is_stopped_without_live_restore_ends_its_jobs() {
    let test = "an_engine_that_is_stopped_without_live_restore_ends_its_jobs";
    ends_without_live_restore(test, Going::Stopped, false).await;
}

#[tokio::test]
async fn an_engine_that_crashes_without_live_restore_ends_its_jobs() {
    let test = "an_engine_that_crashes_without_live_restore_ends_its_jobs";
    ends_without_live_restore(test, Going::Killed, false).await;
}

#[tokio::test]
async fn a_power_failure_loses_jobs_and_keeps_their_data() {
    let test = "a_power_failure_loses_jobs_and_keeps_their_data";
    ends_without_live_restore(test, Going::PowerFailed, false).await;
}

#[tokio::test]
async fn a_service_that_goes_down_with_its_engine_finds_out_what_became_of_its_jobs() {
    let test = "a_service_that_goes_down_with_its_engine_finds_out_what_became_of_its_jobs";
    for going in [Going::Stopped, Going::PowerFailed] {
        ends_without_live_restore(test, going, true).await;
    }
}

#[tokio::test]
async fn an_engine_that_hangs_holds_nobody_up() {
    let Some(plan) = Plan::own_engine("an_engine_that_hangs_holds_nobody_up").await else {
        return;
    };
    let mut world = plan.begin().await;
    let id = world.start_job("rec").await;
    let before = world.job(&id).await;
    let process = world.engine.inspect(&world.container(&id))["State"]["Pid"].clone();
    world.dockerd().freeze();
    nothing_is_concluded(&mut world, &id, &before).await;
    world.dockerd().thaw();
    still_runs_and_ends_well(&mut world, &id, &before, &process).await;
}

#[tokio::test]
async fn a_line_that_is_cut_ends_no_job() {
    let Some(plan) = Plan::shared("a_line_that_is_cut_ends_no_job") else {
        return;
    };
    let mut world = plan.line().begin().await;
    let id = world.start_job("rec").await;
    let before = world.job(&id).await;
    let process = world.engine.inspect(&world.container(&id))["State"]["Pid"].clone();
    let cut = |world: &World, passing| world.line.as_ref().expect("a line").set(passing);
    for _ in 0..3 {
        cut(&world, Passing::Nothing);
        nothing_is_concluded(&mut world, &id, &before).await;
        cut(&world, Passing::All);
        world.until_healthy().await;
    }
    still_runs_and_ends_well(&mut world, &id, &before, &process).await;
}

#[tokio::test]
async fn a_job_that_ends_while_the_line_is_cut_is_found_out_about() {
    let test = "a_job_that_ends_while_the_line_is_cut_is_found_out_about";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let plan = plan
        .line()
        .script("trap 'exit 3' TERM; while :; do sleep 0.05; done");
    let mut world = plan.begin().await;
    let id = world.start_job("rec").await;
    let cut = |world: &World, passing| world.line.as_ref().expect("a line").set(passing);
    cut(&world, Passing::Nothing);
    world.until_health("degraded").await;
    world.ask_to_end(&id);
    sleep(Duration::from_secs(1)).await;
    let job = world.job(&id).await;
    assert_eq!(job["state"], "running", "who told? {job:#}");
    cut(&world, Passing::All);
    let job = world.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["exit_code"]),
        (&json!("exited"), &json!(3)),
        "{job:#}"
    );
    world.agrees_after_crashes(1).await;
}

#[tokio::test]
async fn a_creation_that_is_never_answered_is_adopted_in_time_and_else_removed() {
    let test = "a_creation_that_is_never_answered_is_adopted_in_time_and_else_removed";
    // With time to spare, and with none: a start may begin within two seconds only.
    for (start_timeout, status) in [("60s", 200), ("12s", 504)] {
        let Some(plan) = Plan::shared(test) else {
            return;
        };
        let plan = plan
            .line()
            .config(&format!("jobs.start_timeout = {start_timeout:?}"));
        let mut world = plan.begin().await;
        let line = world.line.as_ref().expect("a line");
        line.set(Passing::LosingAnswersTo("/containers/create"));
        let body = world.recording("rec");
        let answer = world.submit(&body).await.expect("the daemon answers");
        assert_eq!(answer.status, status, "{answer:?}");
        let line = world.line.as_ref().expect("a line");
        assert!(line.lost() > 0, "no answer was lost");
        line.set(Passing::All);
        let job = world.newest().await;
        let id = job["id"].as_str().expect("there is a job").to_owned();
        assert_eq!(job["input_data"]["recording_id"], work_id("rec"));
        if status == 200 {
            assert_eq!(world.agrees_after_crashes(1).await.running, 1);
            assert_eq!(world.oracle.starts_of(&id), 1);
        } else {
            let job = world.until_removed(&id).await;
            assert_eq!(job["reason"], "start-timeout", "{job:#}");
            assert_eq!(world.agrees_after_crashes(0).await.containers, 0);
            assert_eq!(world.oracle.starts_of(&id), 0, "a ghost");
        }
    }
}

#[tokio::test]
async fn a_volume_that_an_engine_left_half_made_is_labelled_like_any_other() {
    let test = "a_volume_that_an_engine_left_half_made_is_labelled_like_any_other";
    let Some(plan) = Plan::own_engine(test).await else {
        return;
    };
    let mut world = plan.begin().await;
    // So that what the engine is about to make is known before it does.
    world.dockerd().freeze();
    let client = world.daemon().client(CLIENT, KEY);
    let body = world.recording("rec");
    let posted = tokio::spawn({
        let body = body.clone();
        async move { client.post(&body).await }
    });
    let id = loop {
        if let Some(id) = world.newest().await["id"].as_str() {
            break id.to_owned();
        }
        sleep(Duration::from_millis(20)).await;
    };
    let volume = format!("offloader-{}-{id}-1-data", world.instance);
    let dockerd = world.dockerd();
    dockerd.kill();
    let dir = dockerd.data().join("volumes").join(&volume).join("_data");
    fs::create_dir_all(dir).expect("a directory of the engine's");
    come_back(&mut world).await;
    let answer = posted.await.expect("it does not panic");
    let answer = answer.expect("the daemon answers");
    assert_eq!(answer.status, 200, "{answer:?}");
    world.note(&body, Some(&answer));
    assert_eq!(world.agrees().await.volumes, 1);
    world.ask_to_end(&id);
    world.until_removed(&id).await;
    assert_eq!(world.agrees().await.volumes, 0);
}
