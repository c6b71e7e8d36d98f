//! How jobs end, and what happens to what they leave.

use serde_json::json;

use crate::work::{TOKEN, WORKS_ON, Work, work_id};

/// Ends as if all were well, and leaves its recording behind.
const NOT_SENT: &str =
    "mkdir -p /data/$RECORDING_ID; echo film > /data/$RECORDING_ID/call.mp4; exit 0";

#[tokio::test]
async fn a_delivered_job_succeeds_and_leaves_nothing() {
    let script =
        "mkdir -p /data/$RECORDING_ID; echo done > /data/$RECORDING_ID/recorder.log; sleep 0.5";
    let Some(work) = Work::begin("a_delivered_job_succeeds_and_leaves_nothing", script).await
    else {
        return;
    };
    let id = work.start("rec").await;
    let running = work.job(&id).await;
    assert_eq!(running["state"], "running", "{running:#}");
    assert!(
        running["start_at"].is_i64() && running.get("stop_at").is_none(),
        "{running:#}"
    );

    let job = work.until_ended(&id).await;
    assert_eq!(
        (&job["outcome"], &job["reason"]),
        (&json!("succeeded"), &json!("completed")),
        "{job:#}"
    );
    assert!(
        job["stop_at"].as_i64() >= job["start_at"].as_i64(),
        "{job:#}"
    );
    work.until_removed(&id).await;
}

#[tokio::test]
async fn exit_0_with_a_recording_left_is_a_failure_that_keeps_it() {
    let test = "exit_0_with_a_recording_left_is_a_failure_that_keeps_it";
    let Some(work) = Work::begin(test, NOT_SENT).await else {
        return;
    };
    let id = work.start("rec").await;
    let job = work.until_ended(&id).await;
    assert_eq!(
        (&job["outcome"], &job["delivery"]),
        (&json!("failed"), &json!("unsent")),
        "{job:#}"
    );
    assert_eq!(job["unsent_bytes"], "film\n".len(), "{job:#}");
    let container = work.container(&id);
    let listed = work
        .engine
        .docker(&["inspect", "--format", "{{.State.Status}}", &container]);
    assert_eq!(listed, "exited");
    assert_eq!(
        work.engine.volumes_of(&id).len(),
        1,
        "the only copy is gone"
    );
    assert!(work.daemon.log().contains(&id), "nobody was warned");

    // An administrator or the client may have it removed.
    work.delete(&id).await;
}

#[tokio::test]
async fn a_job_that_outlives_its_time_is_asked_to_stop() {
    let test = "a_job_that_outlives_its_time_is_asked_to_stop";
    let Some(work) = Work::begin(test, WORKS_ON).await else {
        return;
    };
    let mut body = work.recording("rec");
    body["max_duration_sec"] = json!(1);
    let id = work.submit(&body).await.job_id().expect("a job has an id");
    let job = work.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("deadline"), &json!("succeeded")),
        "{job:#}"
    );
    work.until_removed(&id).await;
}

#[tokio::test]
async fn one_that_ignores_its_stop_is_killed_after_its_grace_and_keeps_its_data() {
    let test = "one_that_ignores_its_stop_is_killed_after_its_grace_and_keeps_its_data";
    let script = "mkdir -p /data/$RECORDING_ID; echo film > /data/$RECORDING_ID/call.mp4
                  trap '' TERM; while :; do sleep 0.05; done";
    let config = "[gate.recording]\nstop_grace = \"1s\"";
    let Some(work) = Work::configured(test, script, config).await else {
        return;
    };
    let mut body = work.recording("rec");
    body["max_duration_sec"] = json!(1);
    let id = work.submit(&body).await.job_id().expect("a job has an id");
    let job = work.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("killed-after-grace"), &json!("failed")),
        "{job:#}"
    );
    assert_eq!(
        work.engine.volumes_of(&id).len(),
        1,
        "the only copy is gone"
    );
}

#[tokio::test]
async fn a_container_removed_by_hand_ends_its_job_once() {
    let test = "a_container_removed_by_hand_ends_its_job_once";
    let Some(work) = Work::begin(test, WORKS_ON).await else {
        return;
    };
    let id = work.start("rec").await;
    work.engine.docker(&["rm", "--force", &work.container(&id)]);
    let job = work.until_ended(&id).await;
    // The engine kills it first, and its exit may be seen before its removal.
    let reason = job["reason"].as_str().unwrap_or_default();
    assert!(["removed-by-hand", "exited"].contains(&reason), "{job:#}");
    assert_eq!(job["outcome"], "failed", "{job:#}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job:#}");
    assert_eq!(
        work.engine.volumes_of(&id).len(),
        1,
        "data deleted by a guess"
    );
    work.delete(&id).await;
}

#[tokio::test]
async fn both_outputs_of_the_container_are_its_logs() {
    let test = "both_outputs_of_the_container_are_its_logs";
    let script =
        "echo to stdout; echo to stderr >&2; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let Some(work) = Work::begin(test, script).await else {
        return;
    };
    let id = work.start("rec").await;
    let logs = work.until_it_says(&id, &["to stdout", "to stderr"]).await;
    assert_eq!(logs.lines().count(), 2, "{logs}");
    let answer = work.client().delete(&id).await.expect("the daemon answers");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (400, "job is running")
    );
}

#[tokio::test]
async fn a_token_reaches_the_container_and_nothing_else() {
    let test = "a_token_reaches_the_container_and_nothing_else";
    let script = "env > /data/env; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let Some(work) = Work::begin(test, script).await else {
        return;
    };
    let id = work.start("rec").await;
    let container = work.container(&id);
    let variables = loop {
        let text = work
            .engine
            .docker(&["exec", &container, "cat", "/data/env"]);
        if text.contains("RECORDING_ID=") {
            break text;
        }
    };
    assert!(
        variables.contains(&format!("AUTH_TOKEN={TOKEN}")),
        "{variables}"
    );
    assert!(
        variables.contains(&format!("RECORDING_ID={}", work_id("rec"))),
        "{variables}"
    );

    assert!(
        !work.job(&id).await.to_string().contains(TOKEN),
        "the token is in the API's answer"
    );
    assert!(
        !work.daemon.log().contains(TOKEN),
        "the token is in the log"
    );
    let found = work.setup.files_with(TOKEN);
    assert!(found.is_empty(), "the token is in {found:?}");
}
