//! Running containers outlive the daemon.

use offloader_system_tests::{Daemon, TestEngine};
use serde_json::json;

use crate::work::{WORKS_ON, Work};

#[tokio::test]
async fn what_ended_while_the_daemon_was_away_is_found_out() {
    let test = "what_ended_while_the_daemon_was_away_is_found_out";
    let Some(work) = Work::begin(test, "trap 'exit 7' TERM; while :; do sleep 0.05; done").await
    else {
        return;
    };
    let id = work.start("rec").await;
    let container = work.container(&id);
    let stop = |daemon: Daemon| assert!(daemon.stop().success());
    let meanwhile = |engine: &TestEngine| {
        let running = engine.inspect(&container)["State"]["Running"].clone();
        assert_eq!(running, true, "ending the daemon ended the job");
        engine.docker(&["stop", &container]);
    };
    let work = work.restart(stop, meanwhile).await;
    let job = work.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["exit_code"]),
        (&json!("exited"), &json!(7)),
        "{job:#}"
    );
}

#[tokio::test]
async fn what_was_removed_while_the_daemon_was_away_is_told_so() {
    let test = "what_was_removed_while_the_daemon_was_away_is_told_so";
    let Some(work) = Work::begin(test, WORKS_ON).await else {
        return;
    };
    let id = work.start("rec").await;
    let container = work.container(&id);
    let remove = |engine: &TestEngine| drop(engine.docker(&["rm", "--force", &container]));
    let work = work.restart(Daemon::crash, remove).await;
    let job = work.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("removed-by-hand"), &json!("failed")),
        "{job:#}"
    );
    assert_eq!(
        work.engine.volumes_of(&id).len(),
        1,
        "data deleted by a guess"
    );
    work.delete(&id).await;
}
