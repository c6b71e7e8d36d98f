//! The service itself: what it announces, how it starts, refuses to start, and ends.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;

use offloader_system_tests::{ADMIN_SECRET, KEY, Setup};
use reqwest::Method;

use crate::http::{request, send};

#[tokio::test]
async fn it_announces_a_version_that_the_plugin_accepts() {
    let daemon = Setup::new().start().await;
    let answer = send(request(&daemon, Method::GET, "/version")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.content_type.as_str()),
        (200, "application/json")
    );
    let body = answer.json();
    for name in ["buildDate", "buildVersion", "buildHash", "goVersion"] {
        assert!(body[name].is_string(), "{name} in {body}");
    }
    let version = body["buildVersion"].as_str().unwrap_or_default();
    assert!(version.starts_with("v0.9."), "{version}");
}

#[tokio::test]
async fn without_an_engine_it_serves_and_says_what_is_wrong() {
    let daemon = Setup::new().start().await;
    let answer = send(request(&daemon, Method::GET, "/healthz")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["status"], "degraded");
    assert!(
        body["reasons"]
            .as_array()
            .is_some_and(|reasons| !reasons.is_empty()),
        "{body}"
    );
}

#[tokio::test]
async fn sigterm_ends_it_well() {
    let daemon = Setup::new().start().await;
    let status = daemon.stop();
    assert!(status.success(), "{status}");
    assert_eq!(status.signal(), None);
}

#[tokio::test]
async fn every_mistake_in_its_configuration_is_told_at_once_and_nothing_starts() {
    let setup = Setup::new().config(
        "api.http.listen_address = 1\njobs.max_concurrent_jobs = 0\n\
         jobs.failed_jobs_retention_time = \"3 weeks\"\nlogger.console_level = \"LOUD\"\n\
         [gate]\nregistrys = []\n",
    );
    let ended = setup.run_to_end("127.0.0.1:0");
    assert!(!ended.status.success());
    for part in [
        "max_concurrent_jobs",
        "failed_jobs_retention_time",
        "console_level",
        "registrys",
        ":2",
        ":6",
    ] {
        assert!(ended.log.contains(part), "no {part} in:\n{}", ended.log);
    }
    assert!(
        !setup.dir().join("state").exists(),
        "it touched its state directory"
    );
}

#[tokio::test]
async fn a_standard_services_unknown_key_is_only_warned_about() {
    let daemon = Setup::new()
        .config("jobs.max_concurent_jobs = 2")
        .start()
        .await;
    let log = daemon.log();
    assert!(
        log.contains("max_concurent_jobs") && log.contains("max_concurrent_jobs"),
        "{log}"
    );
}

#[tokio::test]
async fn what_keeps_it_from_serving_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let listen = taken
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let ended = Setup::new().run_to_end(&listen);
    assert!(
        !ended.status.success() && ended.log.contains(&listen),
        "{ended:?}"
    );

    let setup = Setup::new();
    let file = setup.dir().join("config.toml").display().to_string();
    let setup = setup.env("STORE_DATASOURCE", &file);
    let ended = setup.run_to_end("127.0.0.1:0");
    assert!(
        !ended.status.success() && ended.log.contains(&file),
        "{ended:?}"
    );

    let setup = Setup::new()
        .env("API_HTTP_TLS_ENABLE", "true")
        .env("API_HTTP_TLS_CERTFILE", "/nonexistent/cert.pem")
        .env("API_HTTP_TLS_CERTKEY", "/nonexistent/key.pem");
    let ended = setup.run_to_end("127.0.0.1:0");
    assert!(
        !ended.status.success() && ended.log.contains("/nonexistent/cert.pem"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn an_admin_without_a_secret_is_no_admin() {
    let ended = Setup::new()
        .env("API_SECURITY_ENABLEADMIN", "true")
        .run_to_end("127.0.0.1:0");
    assert!(
        !ended.status.success() && ended.log.contains("admin_secret_key"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn secrets_stay_out_of_the_log_and_out_of_the_store() {
    let setup = Setup::new()
        .with_admin()
        .env("LOGGER_CONSOLELEVEL", "TRACE");
    let daemon = setup.start().await;
    assert_eq!(
        daemon
            .client("site", KEY)
            .list()
            .await
            .expect("an answer")
            .status,
        200
    );
    assert_eq!(daemon.admin().list().await.expect("an answer").status, 200);
    let log = daemon.log();
    assert!(daemon.stop().success());
    assert!(
        !log.contains(KEY) && !log.contains(ADMIN_SECRET),
        "a secret in the log"
    );

    for secret in [KEY, ADMIN_SECRET] {
        let found = setup.files_with(secret);
        assert!(found.is_empty(), "a secret is in {found:?}");
    }
}
