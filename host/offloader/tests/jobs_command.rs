//! `offloader jobs` against a service that runs, without a container engine: who may ask, and how
//! each failure is told.
#![allow(
    clippy::disallowed_methods,
    reason = "tests reach the machine by themselves"
)]

mod support;

use std::fs;
use std::process::{Command, Output};

use support::{Daemon, Site};

const PLAIN: &str = r#"
api.http.listen_address = "127.0.0.1:0"
api.security.allow_self_registration = true
api.security.enable_admin = true
api.security.admin_secret_key = "a very secret secret"
store.data_source = "DIR/state"
"#;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Runs `offloader jobs …` with this of the environment.
fn jobs(url: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offloader"));
    command.env_clear().envs(environment.iter().copied());
    command.args(["jobs", "--url", url]).args(arguments);
    command.output().unwrap()
}

fn url(daemon: &Daemon) -> String {
    format!("http://{}", daemon.address)
}

/// What it printed, as it ended with that code.
#[track_caller]
fn told(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let stream = if code == 0 {
        &output.stdout
    } else {
        &output.stderr
    };
    String::from_utf8(stream.clone()).unwrap()
}

const ADMIN: (&str, &str) = ("OFFLOADER_ADMIN_SECRET", "a very secret secret");

#[test]
fn the_administrator_and_clients_list_jobs_with_credentials_from_files_or_the_environment() {
    let site = Site::new(PLAIN);
    let daemon = site.serve();
    let url = url(&daemon);
    let (secret, key) = (site.path("secret"), site.path("key"));
    fs::write(&secret, "a very secret secret\n").unwrap();
    fs::write(&key, KEY).unwrap();
    let (secret, key) = (secret.to_str().unwrap(), key.to_str().unwrap());
    let by_file = ["list", "--admin-secret-file", secret];
    let as_client = ["list", "--client", "site", "--key-file", key];
    let client_by_environment = [("OFFLOADER_CLIENT", "site"), ("OFFLOADER_KEY", KEY)];
    for output in [
        jobs(&url, &[ADMIN], &["list"]),
        jobs(&url, &[], &by_file),
        jobs(&url, &[], &as_client),
        jobs(&url, &client_by_environment, &["list"]),
    ] {
        let table = told(&output, 0);
        assert!(table.starts_with("ID  TYPE  STATE"), "{table}");
    }
    let json = told(&jobs(&url, &[ADMIN], &["list", "--json"]), 0);
    assert_eq!(json, "[]\n");
}

#[test]
fn each_failure_has_its_exit_code_and_no_secret_in_its_words() {
    let site = Site::new(PLAIN);
    let daemon = site.serve();
    let url = url(&daemon);
    let id = "abcdefghijklmnopqrstuvwxyz";
    let wrong = ("OFFLOADER_ADMIN_SECRET", "another secret");
    let client = [("OFFLOADER_CLIENT", "site"), ("OFFLOADER_KEY", KEY)];
    let closed = "http://127.0.0.1:1";
    // By that it is registered.
    told(&jobs(&url, &client, &["list"]), 0);
    for (output, code, words) in [
        (jobs(&url, &[ADMIN], &["show", id]), 4, "not found"),
        (jobs(&url, &[ADMIN], &["logs", "-f", id]), 4, "not found"),
        (
            jobs(&url, &[ADMIN], &["delete", "--force", id]),
            4,
            "not found",
        ),
        (
            jobs(&url, &client, &["stop", id]),
            1,
            "only the administrator",
        ),
        (
            jobs(&url, &[wrong], &["list"]),
            1,
            "authentication failed: unauthorized",
        ),
        (
            jobs(&url, &[ADMIN], &["list", "--state", "asleep"]),
            1,
            "invalid state",
        ),
        (jobs(closed, &[ADMIN], &["list"]), 3, "127.0.0.1:1"),
        (jobs(&url, &[], &["list"]), 2, "set OFFLOADER_ADMIN_SECRET"),
        (
            jobs("https://localhost", &[ADMIN], &["list"]),
            2,
            "does not speak TLS",
        ),
        (jobs(&url, &[client[0]], &["list"]), 2, "set OFFLOADER_KEY"),
        (
            jobs(&url, &[], &["list", "--admin-secret-file", "/no/such"]),
            2,
            "/no/such",
        ),
        (
            jobs(&url, &[ADMIN], &["show", "../healthz"]),
            2,
            "26 characters",
        ),
    ] {
        let text = told(&output, code);
        assert!(text.contains(words), "{words}: {text}");
        assert!(
            !text.contains("secret secret") && !text.contains(KEY),
            "{text}"
        );
    }
}
