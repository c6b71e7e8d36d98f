//! What could not be delivered is sent in again.

use std::fs;

use offloader_system_tests::ADMIN_SECRET;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::world::World;

/// Leaves a film that it could not send. Sends it when it is told to, once it is asked to end; or
/// never, when the film says so.
const RECORDER: &str = "film=/data/$RECORDING_ID/call.mp4
    if [ $0 = resend ]; then
        [ $AUTH_TOKEN ] || exit 3
        trap 'rm $film; exit 0' TERM
        case $RECORDING_ID in lost*) exit 1;; esac
        while :; do sleep 0.05; done
    fi
    mkdir -p /data/$RECORDING_ID; echo film > $film; exit 1";

/// Delivered work goes at once.
const POLICY: &str = "{ unsent = \"keep\", delivered = \"delete\", failed = \"delete\" }";

/// What the administrator is answered who wants a job's work sent in again.
async fn resend(world: &World, id: &str) -> (u16, Value) {
    let url = format!("{}/jobs/{id}/resend", world.daemon().url());
    let asked = reqwest::Client::new().post(url);
    let answer = asked.basic_auth("", Some(ADMIN_SECRET)).send().await;
    let answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.text().await.expect("a body");
    (status, serde_json::from_str(&body).expect("JSON"))
}

async fn begins_to_resend(world: &World, id: &str) -> String {
    let (status, job) = resend(world, id).await;
    assert_eq!(status, 200, "{job:#}\n{}", world.daemon().log());
    assert_eq!(job["resends"], id);
    job["id"].as_str().expect("a job has an id").to_owned()
}

#[track_caller]
fn is_refused(answer: &(u16, Value), why: &str) {
    let text = answer.1["error"].as_str().unwrap_or_default();
    assert!(answer.0 == 409 && text.contains(why), "{answer:?}");
}

/// A world with a recording that was not delivered.
async fn unsent(test: &str, work: &str) -> Option<(World, String)> {
    let plan = Plan::shared(test)?;
    let mut world = plan.retention(POLICY).begin().await;
    world.image = world
        .engine
        .image_that_resends("calls-recorder:v1.0.2", RECORDER);
    let id = world.start_job(work).await;
    let kept = |job: &Value| job["state"] == "retained";
    let job = world.until(&id, "kept", kept).await;
    assert_eq!(job["delivery"], "unsent", "{job:#}");
    Some((world, id))
}

#[tokio::test]
async fn what_could_not_be_delivered_is_sent_in_again_across_crashes_and_goes_then() {
    let test = "what_could_not_be_delivered_is_sent_in_again_across_crashes_and_goes_then";
    let Some((mut world, id)) = unsent(test, "rec").await else {
        return;
    };
    let resend_id = begins_to_resend(&world, &id).await;
    let container = world.container(&resend_id);
    is_refused(&resend(&world, &id).await, &resend_id);
    is_refused(&resend(&world, &resend_id).await, &id);
    let deleted = world.daemon().admin().delete(&id).await;
    let deleted = deleted.expect("an answer");
    is_refused(&(deleted.status, deleted.json()), &resend_id);
    world.agrees().await;

    // It goes on by itself, and ends while nobody looks.
    world.crash();
    world.recover(2).await;
    assert_eq!(world.job(&resend_id).await["state"], "running");
    assert_eq!(world.container(&resend_id), container);
    world.crash();
    world.engine.docker(&["stop", &container]);
    world.recover(2).await;
    let sent = world.until_removed(&id).await;
    assert_eq!(sent["delivery"], "delivered", "{sent:#}");
    assert_eq!(
        (&sent["outcome"], &sent["reason"], &sent["exit_code"]),
        (&json!("failed"), &json!("exited"), &json!(1)),
        "how the job itself ended"
    );
    let resent = world.until_removed(&resend_id).await;
    assert_eq!(resent["outcome"], "succeeded", "{resent:#}");
    assert_eq!(world.labelled(), Vec::<String>::new());
    is_refused(&resend(&world, &id).await, "nothing is kept");
    world.agrees_after_crashes(0).await;
}

#[tokio::test]
async fn what_is_sent_in_vain_stays() {
    let test = "what_is_sent_in_vain_stays";
    let Some((mut world, id)) = unsent(test, "lost").await else {
        return;
    };
    let before = world.job(&id).await;
    let first = begins_to_resend(&world, &id).await;
    let kept = |job: &Value| job["state"] == "retained";
    let failed = world.until(&first, "kept for its log", kept).await;
    assert_eq!(
        (&failed["outcome"], &failed["delivery"]),
        (&json!("failed"), &json!("unsent")),
        "{failed:#}"
    );
    assert_eq!(world.job(&id).await, before);
    // Its log is in nobody's way.
    let second = begins_to_resend(&world, &id).await;
    world.until(&second, "kept for its log", kept).await;
    world.agrees_after_crashes(3).await;
    let admin = world.daemon().admin();
    for job in [&first, &second] {
        let answer = admin.delete(job).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(
        world.engine.volumes_of(&id).len(),
        1,
        "somebody's only copy"
    );
    // With the container its token goes; the volume is left alone.
    let container = world.container(&id);
    world.engine.docker(&["rm", &container]);
    is_refused(&resend(&world, &id).await, "gone");
    assert_eq!(
        world.engine.volumes_of(&id).len(),
        1,
        "somebody's only copy"
    );
}

#[tokio::test]
async fn an_image_that_takes_no_notice_is_never_started_again() {
    let test = "an_image_that_takes_no_notice_is_never_started_again";
    let Some((mut world, _)) = unsent(test, "rec").await else {
        return;
    };
    world.image = world.engine.image("calls-recorder:v1.0.3", RECORDER);
    let id = world.start_job("other").await;
    let kept = |job: &Value| job["state"] == "retained";
    world.until(&id, "kept", kept).await;
    let starts = world.oracle.starts();
    is_refused(&resend(&world, &id).await, "io.offloader.resend=true");
    assert_eq!(world.oracle.starts(), starts);
    world.agrees_after_crashes(2).await;
}

#[tokio::test]
async fn a_lost_store_finds_both_and_neither_loses_the_volume() {
    let test = "a_lost_store_finds_both_and_neither_loses_the_volume";
    let Some((mut world, id)) = unsent(test, "rec").await else {
        return;
    };
    let resend_id = begins_to_resend(&world, &id).await;
    world.crash();
    for end in ["db", "db-wal", "db-shm"] {
        let file = world.setup.dir().join(format!("state/offloader.{end}"));
        fs::remove_file(file).expect("the store is there");
    }
    world.start().await;
    let found = world.until(&resend_id, "found", |job| job["state"] == "running");
    assert_eq!(found.await["resends"], id);
    let kept = |job: &Value| job["state"] == "retained";
    assert_eq!(world.until(&id, "kept", kept).await["delivery"], "unsent");
    world.ask_to_end(&resend_id);
    let sent = world.until_removed(&id).await;
    assert_eq!(sent["delivery"], "delivered", "{sent:#}");
    world.until_removed(&resend_id).await;
    assert_eq!(world.labelled(), Vec::<String>::new());
}
