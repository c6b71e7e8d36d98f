//! Jobs as components inside the daemon: what becomes of them when it is told to end, and when it
//! just ends.
#![allow(
    clippy::disallowed_methods,
    reason = "tests look at what the daemon leaves with plain means"
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use offloader_system_tests::{Daemon, KEY, Setup, job_probe};
use serde_json::{Value, json};
use site::JobService;

const CLIENT: &str = "the-site";
const IMAGE: &str = "mattermost/calls-recorder:v0.8.13";
const LONG: Duration = Duration::from_secs(60);

/// A daemon whose recorder does as it is told.
fn setup(shutdown_timeout: &str) -> Setup {
    let setup = Setup::new().with_admin();
    let components = setup.dir().join("components");
    fs::create_dir(&components).unwrap();
    fs::copy(job_probe(), components.join("probe.wasm")).unwrap();
    setup.config(&format!(
        "jobs.api_type = \"wasi\"\n\
         jobs.max_concurrent_jobs = 4\n\
         jobs.min_free_disk = 0\n\
         [jobs.wasi]\n\
         components = {components:?}\n\
         images = {{ {IMAGE:?} = \"probe.wasm\" }}\n\
         shutdown_timeout = {shutdown_timeout:?}\n\
         [gate.recording]\n\
         stop_grace = \"5s\"\n\
         inputs = {{ ACT = \".*\" }}"
    ))
}

async fn submit(daemon: &Daemon, number: u32, seconds: u32, act: &str) -> String {
    let id = |name: &str| format!("{:0<26}", format!("{name}{number}x"));
    let job = json!({
        "type": "recording",
        "runner": IMAGE,
        "max_duration_sec": seconds,
        "input_data": {
            "site_url": "http://site.test:8065",
            "call_id": id("call"), "post_id": id("post"), "recording_id": id("rec"),
            "auth_token": id("token"),
            "act": act,
        },
    });
    let answer = daemon.client(CLIENT, KEY).post(&job).await.unwrap();
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, daemon.log());
    answer.job_id().expect("a job has an id")
}

async fn until(api: &JobService, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + LONG;
    loop {
        let answer = api.job(id).await.expect("the daemon answers");
        let job = answer.json();
        if answer.status == 200 && wanted(&job) {
            return job;
        }
        assert!(Instant::now() < until, "not {what}: {job:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_ended(api: &JobService, id: &str) -> Value {
    until(api, id, "ended", |job| job["outcome"].is_string()).await
}

async fn until_it_says(daemon: &Daemon, id: &str, text: &str) {
    let until = Instant::now() + LONG;
    loop {
        let logs = daemon.client(CLIENT, KEY).logs(id).await.unwrap();
        if logs.body.contains(text) {
            return;
        }
        assert!(Instant::now() < until, "it does not say {text}: {logs:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The one film that a job left.
fn film(setup: &Setup) -> PathBuf {
    let jobs = fs::read_dir(setup.dir().join("state/offloader-jobs")).unwrap();
    let films = jobs.map(|job| job.unwrap().path().join("data/call.mp4"));
    let films: Vec<_> = films.filter(|film| film.is_file()).collect();
    assert_eq!(films.len(), 1, "{films:?}");
    films.into_iter().next().unwrap()
}

#[tokio::test]
async fn told_to_end_the_daemon_lets_jobs_end_and_saves_how() {
    let setup = setup("8s");
    let daemon = setup.start().await;
    let orderly = submit(&daemon, 1, 600, "say=ready,wait,exit=0").await;
    let stubborn = submit(&daemon, 2, 600, "write=/data/call.mp4=5,say=ready,spin").await;
    for job in [&orderly, &stubborn] {
        until_it_says(&daemon, job, "ready").await;
    }
    assert!(daemon.stop().success());
    let log = fs::read_to_string(setup.dir().join("log")).unwrap();
    assert!(
        log.contains("jobs did not end in jobs.wasi.shutdown_timeout"),
        "{log}"
    );
    assert!(
        log.contains("runtime-lost"),
        "the loss was not saved at once: {log}"
    );

    let daemon = setup.start().await;
    let job = until_ended(&daemon.client(CLIENT, KEY), &orderly).await;
    assert_eq!(
        (&job["reason"], &job["exit_code"]),
        (&json!("completed"), &json!(0)),
        "{job:#}"
    );
    let job = until_ended(&daemon.client(CLIENT, KEY), &stubborn).await;
    assert_eq!(job["reason"], "runtime-lost", "{job:#}");
    assert_eq!(fs::read(film(&setup)).unwrap().len(), 5);
}

#[tokio::test]
async fn after_a_crash_jobs_are_lost_and_their_films_kept() {
    let setup = setup("10s");
    let daemon = setup.start().await;
    let id = submit(&daemon, 1, 600, "write=/data/call.mp4=5,say=ready,wait").await;
    until_it_says(&daemon, &id, "ready").await;
    daemon.crash();

    let daemon = setup.start().await;
    let job = until_ended(&daemon.client(CLIENT, KEY), &id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("runtime-lost"), &json!("failed"))
    );
    assert_eq!(fs::read(film(&setup)).unwrap().len(), 5);
    let deleted = daemon.client(CLIENT, KEY).delete(&id).await.unwrap();
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let left = fs::read_dir(setup.dir().join("state/offloader-jobs")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn jobs_of_a_store_that_is_lost_are_known_by_what_they_left() {
    let setup = setup("10s");
    let daemon = setup.start().await;
    let id = submit(&daemon, 1, 600, "write=/data/call.mp4=5,say=ready,wait").await;
    until_it_says(&daemon, &id, "ready").await;
    daemon.crash();
    for file in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(setup.dir().join(format!("state/offloader.db{file}")));
    }

    let daemon = setup.start().await;
    let job = until_ended(&daemon.admin(), &id).await;
    assert_eq!(job["reason"], "runtime-lost", "{job:#}");
    assert_eq!(
        (&job["type"], &job["client"]),
        (&json!("recording"), &json!(CLIENT))
    );
    assert_eq!(fs::read(film(&setup)).unwrap().len(), 5);
}

#[tokio::test]
async fn a_deadline_asks_a_job_to_end_and_then_kills_it() {
    let setup = setup("10s");
    let daemon = setup.start().await;
    let orderly = submit(&daemon, 1, 1, "wait,exit=0").await;
    let stubborn = submit(&daemon, 2, 1, "spin").await;
    let job = until_ended(&daemon.client(CLIENT, KEY), &orderly).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("deadline"), &json!("succeeded")),
        "{job:#}"
    );
    let job = until_ended(&daemon.client(CLIENT, KEY), &stubborn).await;
    assert_eq!(job["reason"], "killed-after-grace", "{job:#}");
}

#[tokio::test]
async fn an_administrator_stops_a_job_and_deletes_one_that_hangs() {
    let setup = setup("10s");
    let daemon = setup.start().await;
    let orderly = submit(&daemon, 1, 600, "say=ready,wait,exit=0").await;
    let hanging = submit(&daemon, 2, 600, "write=/data/call.mp4=5,say=ready,spin").await;
    until_it_says(&daemon, &orderly, "ready").await;
    let stopped = daemon.admin().stop(&orderly).await.unwrap();
    assert!(stopped.is_success(), "{stopped:?}");
    let job = until_ended(&daemon.admin(), &orderly).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("stopped-by-admin"), &json!("succeeded"))
    );
    until_it_says(&daemon, &hanging, "ready").await;
    let deleted = daemon.admin().delete_by_force(&hanging).await.unwrap();
    assert!(deleted.is_success(), "{deleted:?}");
    let until = Instant::now() + LONG;
    while fs::read_dir(setup.dir().join("state/offloader-jobs"))
        .unwrap()
        .count()
        > 0
    {
        assert!(Instant::now() < until, "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
