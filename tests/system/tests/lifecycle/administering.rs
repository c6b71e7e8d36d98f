//! What an administrator does with jobs that run: looking into decisions, stopping, deleting.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use offloader_system_tests::{ADMIN_SECRET, policy_file};
use serde_json::{Value, json};

use crate::work::{CLIENT, WORKS_ON, Work};

const ADMIN: &str = r#"
api.security.enable_admin = true
api.security.admin_secret_key = "the-secret-of-the-administrator-in-a-test"
"#;

/// What the administrator is answered.
async fn admin(work: &Work, path: &str) -> String {
    let asked = reqwest::Client::new().get(format!("{}{path}", work.daemon.url()));
    let answer = asked.basic_auth("", Some(ADMIN_SECRET)).send().await;
    let answer = answer.expect("the daemon answers");
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.expect("an answer has a body")
}

/// `offloader jobs …` as the administrator, with the daemon's own binary.
fn begin(work: &Work, arguments: &[&str]) -> Child {
    Command::new(format!("/proc/{}/exe", work.daemon.pid()))
        .env_clear()
        .env("OFFLOADER_ADMIN_SECRET", ADMIN_SECRET)
        .args(["jobs", "--url", work.daemon.url()])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// What the command printed when it was done.
fn end(child: Child) -> String {
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

fn jobs(work: &Work, arguments: &[&str]) -> String {
    end(begin(work, arguments))
}

#[tokio::test]
async fn decisions_are_shown_to_the_owner_and_all_of_them_counted_and_told_to_the_administrator() {
    let dir = policy_file("image_map.wasm");
    let dir = dir.parent().expect("a file is in a directory");
    let policies = format!(
        r#"{ADMIN}
[policies]
dir = {dir:?}
[[policies.policy]]
name = "in-force"
component = "image_map.wasm"
[[policies.policy]]
name = "on-trial"
component = "image_map.wasm"
mode = "monitor"
"#
    );
    let test =
        "decisions_are_shown_to_the_owner_and_all_of_them_counted_and_told_to_the_administrator";
    let Some(work) = Work::configured(test, WORKS_ON, &policies).await else {
        return;
    };
    let id = work.start("decided").await;
    let path = format!("/jobs/{id}/decisions");
    let asked = reqwest::Client::new().get(format!("{}{path}", work.daemon.url()));
    let owner = asked.basic_auth(CLIENT, Some(offloader_system_tests::KEY));
    let owner = owner.send().await.expect("the daemon answers");
    let seen: Value = owner.json().await.expect("it answers JSON");
    let decisions = seen["decisions"].as_array().expect("a list");
    assert_eq!(decisions.len(), 1, "{seen}");
    assert_eq!(decisions[0]["policy"], "in-force");
    assert!(decisions[0].get("component_sha256").is_none(), "{seen}");

    let seen: Value = serde_json::from_str(&admin(&work, &path).await).expect("JSON");
    let brief = |decision: &Value| json!([decision["policy"], decision["enforced"]]);
    let all = seen["decisions"].as_array().expect("a list").iter();
    let all: Vec<_> = all.map(brief).collect();
    assert_eq!(all, [json!(["in-force", true]), json!(["on-trial", false])]);
    assert_eq!(
        seen["decisions"][0]["component_sha256"]
            .as_str()
            .map(str::len),
        Some(64)
    );

    let metrics = admin(&work, "/metrics").await;
    for policy in ["in-force", "on-trial"] {
        let counted = metrics.lines().any(|line| {
            line.starts_with("offloader_policy_decisions_total{")
                && [
                    &format!("policy=\"{policy}\""),
                    "hook=\"image-selection\"",
                    "outcome=\"answered\"",
                ]
                .iter()
                .all(|label| line.contains(*label))
                && !line.ends_with(" 0")
        });
        assert!(counted, "{policy}\n{metrics}");
    }
    assert!(!metrics.contains(CLIENT), "{metrics}");
}

#[tokio::test]
async fn a_job_is_followed_and_stopped_from_the_command_line() {
    let test = "a_job_is_followed_and_stopped_from_the_command_line";
    let Some(work) = Work::configured(test, WORKS_ON, ADMIN).await else {
        return;
    };
    let id = work.start("stopped").await;
    let table = jobs(&work, &["list", "--state", "running"]);
    assert!(table.contains(&id) && table.contains(CLIENT), "{table}");
    let shown = jobs(&work, &["show", &id]);
    assert!(shown.contains("state         running"), "{shown}");

    let mut following = begin(&work, &["logs", "--follow", &id]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let early = following.try_wait().expect("it can be waited for");
    assert_eq!(early, None, "the job goes on, and so does its log");
    let told = jobs(&work, &["stop", &id]);
    assert!(told.contains("it is killed at 20"), "{told}");
    let ended = work.until_ended(&id).await;
    assert_eq!(ended["reason"], "stopped-by-admin");
    assert_eq!(end(following), "working\n");
}

#[tokio::test]
async fn a_hung_job_is_deleted_by_force_and_it_is_told_what_goes_with_it() {
    let hangs = "trap '' TERM; mkdir -p /data/$RECORDING_ID; echo lost > /data/$RECORDING_ID/a.mp4
while :; do sleep 0.05; done";
    let test = "a_hung_job_is_deleted_by_force_and_it_is_told_what_goes_with_it";
    let Some(work) = Work::configured(test, hangs, ADMIN).await else {
        return;
    };
    let id = work.start("hung").await;
    jobs(&work, &["stop", &id]);
    let stopping = work.until(&id, "stopping", |job| job["state"] == "stopping");
    stopping.await;
    let refused = begin(&work, &["delete", &id]);
    let refused = refused.wait_with_output().expect("the program ends");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");

    let told = jobs(&work, &["delete", "--force", &id]);
    assert_eq!(
        told,
        format!("{id} is deleted, with 5 B of work that was not sent in\n")
    );
    work.until_removed(&id).await;
    let log = work.daemon.log();
    let audited = log.lines().any(|line| {
        line.contains("offloader::audit")
            && line.contains("delete-job-by-force")
            && line.contains("deleted with 5 bytes of unsent work")
    });
    assert!(audited, "{log}");
}
