//! What an administrator does with jobs that run: looking into decisions, stopping, deleting.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use offloader_system_tests::{ADMIN_SECRET, policy_file};
use serde_json::{Value, json};

use crate::work::{CLIENT, WORKS_ON, Work, work_id};

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
    begin_in(Path::new("."), work, arguments)
}

/// The same in a directory.
fn begin_in(dir: &Path, work: &Work, arguments: &[&str]) -> Child {
    Command::new(format!("/proc/{}/exe", work.daemon.pid()))
        .current_dir(dir)
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
echo written; while :; do sleep 0.05; done";
    let test = "a_hung_job_is_deleted_by_force_and_it_is_told_what_goes_with_it";
    let Some(work) = Work::configured(test, hangs, ADMIN).await else {
        return;
    };
    let id = work.start("hung").await;
    work.until_it_says(&id, &["written"]).await;
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

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test looks at the files that were written"
)]
async fn what_a_failed_job_left_is_fetched_byte_for_byte() {
    const LINE: &str = "a line whose length divides no block\n";
    // More than fits into any buffer on the way.
    let fails = "cd /data; mkdir $RECORDING_ID; cd $RECORDING_ID
echo 'a line whose length divides no block' > call.mp4
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do
    cat call.mp4 call.mp4 > more; cat more > call.mp4
done
echo why > recorder.log
trap 'exit 1' TERM; echo ready; while :; do sleep 0.05; done";
    let config = format!("{ADMIN}jobs.failed_jobs_retention_time = \"7d\"\n");
    let test = "what_a_failed_job_left_is_fetched_byte_for_byte";
    let Some(work) = Work::configured(test, fails, &config).await else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let fetch = |to: &[&str], id: &str| {
        let arguments = [&["fetch"], to, &[id]].concat();
        let child = begin_in(dir.path(), &work, &arguments);
        child.wait_with_output().expect("the program ends")
    };
    let id = work.start("fetched").await;
    let mut following = begin(&work, &["logs", "--follow", &id]);
    let mut ready = [0; 6];
    let output = following.stdout.as_mut().expect("its output is read");
    output.read_exact(&mut ready).expect("it gets ready");
    let refused = fetch(&[], &id);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("job is running"), "{told}");
    let container = work.container(&id);
    work.engine
        .docker(&["kill", "--signal", "TERM", &container]);
    let kept = work.until(&id, "kept", |job| job["state"] == "retained");
    let kept = kept.await;
    assert_eq!(end(following), "", "it was ready, and ended");
    let listed = jobs(&work, &["list", "--state", "retained"]);
    assert!(listed.contains(" days left)"), "{listed}");

    let fetched = fetch(&[], &id);
    assert_eq!(fetched.status.code(), Some(0), "{fetched:?}");
    let unpacked = Command::new("tar")
        .args(["--extract", "--file", &format!("{id}.tar")])
        .current_dir(dir.path())
        .status();
    assert!(unpacked.expect("there is a tar").success());
    let data = dir.path().join("data").join(work_id("fetched"));
    let read = |name| fs::read_to_string(data.join(name)).expect("it was unpacked");
    assert!(read("call.mp4") == LINE.repeat(1 << 19));
    assert_eq!(read("recorder.log"), "why\n");
    assert_eq!(
        fetch(&[], &id).status.code(),
        Some(2),
        "it replaces nothing"
    );

    let metrics = admin(&work, "/metrics").await;
    let shown = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse::<f64>().ok());
        value.expect("it is shown")
    };
    let bytes = kept["unsent_bytes"].as_f64();
    assert_eq!(Some(shown("offloader_unsent_bytes ")), bytes);
    let until = kept["keep_until"].as_f64().expect("a time");
    let removal = shown("offloader_unsent_next_removal_timestamp_seconds ");
    assert!((removal - until / 1000.0).abs() < 0.001, "{removal}");

    let volume = work.engine.volumes_of(&id).remove(0);
    work.engine.docker(&["rm", &container]);
    let orphaned = fetch(&["-o", "-"], &id);
    assert_eq!(orphaned.status.code(), Some(1), "{orphaned:?}");
    let told = String::from_utf8_lossy(&orphaned.stderr);
    assert!(
        told.contains(&volume) && told.contains("tar -C /"),
        "{told}"
    );

    let log = work.daemon.log();
    let audited = |line: &&str| line.contains("offloader::audit") && line.contains("fetch-files");
    let audited: Vec<_> = log.lines().filter(audited).collect();
    assert_eq!(audited.len(), 2, "{audited:?}");
    let archive = fs::metadata(dir.path().join(format!("{id}.tar")));
    let whole = format!("whole, {} bytes", archive.expect("it is there").len());
    assert!(
        audited[1].contains(&id) && audited[1].contains(&whole),
        "{audited:?}"
    );
}

#[tokio::test]
async fn what_a_failed_job_left_is_sent_in_again_from_the_command_line() {
    let recorder = "film=/data/$RECORDING_ID/call.mp4
if [ $0 = resend ]; then
    echo sending; sleep 4
    case $RECORDING_ID in lost*) echo refused; exit 1;; esac
    rm $film; exit 0
fi
mkdir -p /data/$RECORDING_ID; echo film > $film; exit 1";
    let test = "what_a_failed_job_left_is_sent_in_again_from_the_command_line";
    let Some(mut work) = Work::configured(test, WORKS_ON, ADMIN).await else {
        return;
    };
    work.image = work
        .engine
        .image_that_resends("calls-recorder:v1.0.1", recorder);
    let kept = async |name| {
        let id = work.start(name).await;
        work.until(&id, "kept", |job| job["state"] == "retained")
            .await;
        id
    };
    let id = kept("sent").await;
    let told = jobs(&work, &["resend", "--follow", &id]);
    assert_eq!(
        told,
        format!("sending\nall that {id} left is delivered\n"),
        "{}",
        work.daemon.log()
    );
    assert_eq!(work.job(&id).await["delivery"], "delivered");
    let log = work.daemon.log();
    let audited = |line: &str| line.contains("offloader::audit") && line.contains("resend-job");
    assert!(log.lines().any(audited), "{log}");

    let lost = kept("lost").await;
    let failed = begin(&work, &["resend", "--follow", &lost]);
    let failed = failed.wait_with_output().expect("the program ends");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert_eq!(
        String::from_utf8_lossy(&failed.stdout),
        "sending\nrefused\n"
    );
    let told = String::from_utf8_lossy(&failed.stderr);
    assert!(told.contains(&format!("job {lost} keeps it")), "{told}");
    let listed = jobs(&work, &["list", "--state", "retained"]);
    assert!(listed.contains("recording, again"), "{listed}");
    let begun = jobs(&work, &["resend", &lost]);
    assert!(begun.contains("jobs logs --follow "), "{begun}");
}
