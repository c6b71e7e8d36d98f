//! Policies that are loaded anew while the service runs.
#![allow(
    clippy::disallowed_methods,
    reason = "tests change files with plain means"
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use offloader_system_tests::{ADMIN_SECRET, Daemon, Setup, policy_file};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::{Answer, request, send};

const LONG: Duration = Duration::from_secs(30);

/// A daemon with one policy, `mine`, whose file is to be changed.
struct Site {
    setup: Setup,
    daemon: Daemon,
}

const POLICY: &str = "[[policies.policy]]\nname = \"mine\"\ncomponent = \"mine.wasm\"\n";

impl Site {
    async fn start(section: &str) -> Self {
        let setup = Setup::new().with_admin();
        let dir = setup.dir().join("policies");
        fs::create_dir(&dir).unwrap();
        let head = format!("[policies]\ndir = {:?}\n{section}\n{POLICY}", dir);
        let setup = setup.config(&head);
        fs::copy(policy_file("image_map.wasm"), dir.join("mine.wasm")).unwrap();
        let daemon = setup.start().await;
        Self { setup, daemon }
    }

    fn component(&self) -> PathBuf {
        self.setup.dir().join("policies/mine.wasm")
    }

    /// Puts another policy in the place of the file.
    fn swap(&self, policy: &str) {
        fs::copy(policy_file(policy), self.component()).unwrap();
    }

    async fn admin(&self, method: Method, path: &str) -> Answer {
        let asked = request(&self.daemon, method, path);
        send(asked.basic_auth("", Some(ADMIN_SECRET))).await
    }

    async fn status(&self) -> Value {
        let answer = self.admin(Method::GET, "/policies").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn reload(&self) -> Answer {
        self.admin(Method::POST, "/policies/reload").await
    }

    fn hang_up(&self) {
        let pid = i32::try_from(self.daemon.pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    }

    /// Waits until the status is as it should be.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            let log = self.daemon.log();
            assert!(since.elapsed() < LONG, "{what}: {status}\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn hooks(status: &Value) -> Value {
    status["policies"][0]["hooks"].clone()
}

#[tokio::test]
async fn a_reload_by_request_takes_the_new_file_and_keeps_the_last_good_one() {
    let site = Site::start("").await;
    let first = site.status().await;
    assert_eq!(first["generation"], 1, "{first}");
    assert_eq!(hooks(&first), json!(["image-selection"]));

    site.swap("retry_backoff.wasm");
    let answer = site.reload().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let second = answer.json();
    assert_eq!(second["generation"], 2);
    assert_eq!(hooks(&second), json!(["retry"]));
    let digest = |status: &Value| status["policies"][0]["component_sha256"].clone();
    assert_ne!(digest(&first), digest(&second));

    // A file that is no component, a configuration that is none, and none at all.
    let config = site.setup.dir().join("config.toml");
    let good = fs::read_to_string(&config).unwrap();
    let wrongs: [(&str, &str, &dyn Fn()); 3] = [
        ("verify", "mine.wasm", &|| {
            fs::write(site.component(), "not a component").unwrap();
        }),
        ("configuration", "config.toml:1: ", &|| {
            fs::write(&config, "[policies\n").unwrap();
        }),
        ("configuration", "is gone", &|| {
            fs::remove_file(&config).unwrap()
        }),
    ];
    for (step, told, break_it) in wrongs {
        break_it();
        let answer = site.reload().await;
        let text = answer.error(422);
        assert_eq!(text, "the policies were not reloaded; those in force stay");
        let body = answer.json();
        let problem = &body["problems"][0];
        assert_eq!(problem["step"], step, "{body}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
        let status = site.status().await;
        assert_eq!(digest(&status), digest(&second));
        assert_eq!(status["generation"], 2);
        assert_eq!(status["last_failure"]["problems"], body["problems"]);
    }

    fs::write(&config, good).unwrap();
    site.swap("image_map.wasm");
    let status = site.reload().await.json();
    assert_eq!(digest(&status), digest(&first));
    assert_eq!(status["last_failure"], Value::Null);
    let log = site.daemon.log();
    let audited = log
        .lines()
        .filter(|line| line.contains("offloader::audit"))
        .filter(|line| line.contains("reload-policies") && line.contains("from=127.0.0.1"));
    assert_eq!(audited.count(), 5, "{log}");
}

#[tokio::test]
async fn a_reload_by_signal_takes_the_policies_of_the_configuration_and_nothing_else() {
    let site = Site::start("").await;
    let config = site.setup.dir().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("\"mine\"", "\"renamed\"");
    fs::write(&config, format!("jobs.max_concurrent_jobs = 7\n{text}")).unwrap();
    site.hang_up();
    let status = site.until("reloaded", |status| status["generation"] == 2);
    assert_eq!(status.await["policies"][0]["name"], "renamed");
    let log = site.daemon.log();
    assert!(log.contains("outside [policies] too"), "{log}");

    fs::write(site.component(), "not a component").unwrap();
    site.hang_up();
    let failed = |status: &Value| !status["last_failure"].is_null();
    let status = site.until("failed", failed).await;
    assert_eq!(status["generation"], 2);
    assert_eq!(status["last_failure"]["problems"][0]["policy"], "renamed");
}

#[tokio::test]
async fn a_watched_directory_is_reloaded_when_it_has_changed() {
    let site = Site::start("watch = true").await;
    // As editors and packages do: a new file takes the old one's place.
    let beside = site.setup.dir().join("policies/.mine.wasm.new");
    fs::copy(policy_file("retry_backoff.wasm"), &beside).unwrap();
    fs::rename(&beside, site.component()).unwrap();
    let retries = |status: &Value| hooks(status) == json!(["retry"]);
    let status = site.until("the new policy", retries).await;
    assert_eq!(status["last_failure"], Value::Null);

    // Half a file is waited for, and never loaded.
    let whole = fs::read(policy_file("image_map.wasm")).unwrap();
    fs::write(site.component(), &whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    fs::write(site.component(), &whole).unwrap();
    let selects = |status: &Value| hooks(status) == json!(["image-selection"]);
    site.until("the policy before", selects).await;
    let log = site.daemon.log();
    assert!(!log.contains("not reloaded"), "{log}");

    // Another directory at the same path is watched from then on.
    let (dir, old) = (
        site.setup.dir().join("policies"),
        site.setup.dir().join("old"),
    );
    fs::rename(&dir, &old).unwrap();
    fs::create_dir(&dir).unwrap();
    site.swap("retry_backoff.wasm");
    site.hang_up();
    site.until("the other directory", retries).await;
    site.swap("image_map.wasm");
    site.until("a change in the other directory", selects).await;
}

#[tokio::test]
async fn a_directory_that_is_not_watched_is_left_alone() {
    let site = Site::start("").await;
    site.swap("retry_backoff.wasm");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.status().await["generation"], 1);
}
