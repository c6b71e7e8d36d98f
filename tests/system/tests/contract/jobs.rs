//! What is refused before anything would run, and in which order.

use offloader_system_tests::{Daemon, KEY, Setup};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{Answer, post, request, send};

const CLIENT: &str = "the-site";
/// Ids and tokens of a site: 26 characters.
const ID: &str = "abcdefghijklmnopqrstuvwxyz";

fn recording() -> Value {
    json!({
        "type": "recording",
        "runner": "mattermost/calls-recorder:v0.8.13",
        "max_duration_sec": 60,
        "input_data": {
            "site_url": "http://site.test:8065",
            "call_id": ID, "post_id": ID, "recording_id": ID, "auth_token": ID,
        },
    })
}

/// A recording with one member of its body, or of its input if there is none of that name, changed.
fn with(name: &str, value: Value) -> Value {
    let mut job = recording();
    let place = if job.get(name).is_some() {
        &mut job[name]
    } else {
        &mut job["input_data"][name]
    };
    *place = value;
    job
}

async fn submit(daemon: &Daemon, job: &Value) -> Answer {
    send(post(daemon, "/jobs", job).basic_auth(CLIENT, Some(KEY))).await
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_bad_in_the_contracts_words() {
    let daemon = Setup::new().start().await;
    let cases = [
        (
            with("type", json!("")),
            "invalid Type value: should not be empty",
        ),
        (
            with("type", json!("dancing")),
            "invalid Type value: \"dancing\"",
        ),
        (
            with("max_duration_sec", json!(0)),
            "invalid MaxDurationSec value: should be positive",
        ),
        (
            with("max_duration_sec", json!(-1)),
            "invalid MaxDurationSec value: should be positive",
        ),
    ];
    for (job, text) in cases {
        assert_eq!(submit(&daemon, &job).await.error(400), text, "{job}");
    }
    for runner in [
        "",
        "calls-recorder:v0.8.13",
        "mattermostXcalls-recorder:v0.8.13",
        "evil/calls-recorder:v0.8.13",
        "mattermost/calls-recorder:latest",
        "mattermost/calls-recorder:v0.5.9",
    ] {
        let text = submit(&daemon, &with("runner", json!(runner)))
            .await
            .error(400);
        assert!(
            text.starts_with("invalid Runner value: "),
            "{runner}: {text}"
        );
    }
}

#[tokio::test]
async fn checks_come_in_the_contracts_order() {
    let daemon = Setup::new().start().await;
    let mut job = with("type", json!(""));
    job["runner"] = json!("bad");
    job["max_duration_sec"] = json!(0);
    assert!(
        submit(&daemon, &job)
            .await
            .error(400)
            .starts_with("invalid Type value")
    );
    job["type"] = json!("dancing");
    assert!(
        submit(&daemon, &job)
            .await
            .error(400)
            .starts_with("invalid Runner value")
    );
    job["runner"] = json!("mattermost/calls-recorder:v0.8.13");
    assert!(
        submit(&daemon, &job)
            .await
            .error(400)
            .starts_with("invalid MaxDurationSec value")
    );
    job["max_duration_sec"] = json!(1);
    assert_eq!(
        submit(&daemon, &job).await.error(400),
        "invalid Type value: \"dancing\""
    );
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused() {
    let daemon = Setup::new().start().await;
    for path in ["/jobs", "/jobs/init"] {
        for body in ["", "{", "[]", "\"text\"", "{\"type\":1,\"Runners\":1}"] {
            let asked = request(&daemon, Method::POST, path).basic_auth(CLIENT, Some(KEY));
            let text = send(asked.body(body)).await.error(400);
            assert!(
                text.starts_with("failed to decode request body: "),
                "{path} {body}: {text}"
            );
        }
    }
    let huge = with("site_url", json!("x".repeat(1 << 20)));
    let status = submit(&daemon, &huge).await.status.as_u16();
    assert!(
        [400, 413].contains(&status),
        "a body over 1 MiB was answered {status}"
    );
}

#[tokio::test]
async fn values_that_a_shell_would_act_on_are_refused_by_name() {
    let daemon = Setup::new().start().await;
    let cases = [
        ("site_url", "http://site.test;reboot"),
        ("site_url", "http://user:password@site.test"),
        ("site_url", "http://site.test/path"),
        ("site_url", "ftp://site.test"),
        ("recording_id", "../.."),
        ("call_id", "$(reboot)"),
        ("auth_token", "a b"),
        ("extra_chromium_args", "--no-sandbox"),
        ("ld_preload", "/data/evil.so"),
        ("dev_mode", "true"),
        ("my_own_variable", "1"),
    ];
    for (name, value) in cases {
        let text = submit(&daemon, &with(name, json!(value))).await.error(400);
        assert!(text.to_lowercase().contains(name), "{name}={value}: {text}");
    }
    let mut twice = recording();
    twice["input_data"]["Site_Url"] = json!("http://site.test");
    submit(&daemon, &twice).await.error(400);
}

#[tokio::test]
async fn init_names_what_it_cannot_use() {
    let daemon = Setup::new().start().await;
    let init = async |runners: Value| {
        let asked = post(&daemon, "/jobs/init", &json!({ "Runners": runners }));
        send(asked.basic_auth(CLIENT, Some(KEY))).await.error(400)
    };
    let begin = "invalid job service config: ";
    assert_eq!(
        init(json!([])).await,
        format!("{begin}invalid empty Runners")
    );
    assert!(
        init(json!([""]))
            .await
            .ends_with("runner should not be empty")
    );
    let text = init(json!(["evil/image:v1.0.0"])).await;
    assert!(text.starts_with(begin), "{text}");
    assert!(
        text.ends_with("failed to validate runner \"evil/image:v1.0.0\""),
        "{text}"
    );
    let text = init(json!(["mattermost/calls-recorder:v0.1.0"])).await;
    let low = "actual version (0.1.0) is lower than minimum supported version (0.6.0)";
    assert!(text.ends_with(low), "{text}");
}

#[tokio::test]
async fn without_an_engine_a_good_job_is_refused_for_now_and_leaves_nothing() {
    let daemon = Setup::new().start().await;
    let answer = submit(&daemon, &recording()).await;
    let text = answer.error(503);
    assert!(
        text.starts_with("failed to create recording job: "),
        "{text}"
    );
    let list = send(request(&daemon, Method::GET, "/jobs").basic_auth(CLIENT, Some(KEY))).await;
    assert_eq!(list.json()["jobs"], json!([]), "{list:?}");
    assert!(
        !daemon.log().contains(ID),
        "the token (or an id like it) is in the log"
    );
}

#[tokio::test]
async fn unknown_jobs_and_paths_are_not_found_and_other_methods_not_allowed() {
    let daemon = Setup::new().start().await;
    let ask = async |method: Method, path: &str| {
        send(request(&daemon, method, path).basic_auth(CLIENT, Some(KEY)))
            .await
            .status
            .as_u16()
    };
    let job = format!("/jobs/{ID}");
    let logs = format!("{job}/logs");
    for (method, path, status) in [
        (Method::GET, job.as_str(), 404),
        (Method::DELETE, &job, 404),
        (Method::GET, &logs, 404),
        (Method::GET, "/jobs/UPPER-CASE", 404),
        (Method::GET, "/jobs/..%2f..%2fetc", 404),
        (Method::GET, "/nowhere", 404),
        (Method::POST, "/version", 404),
        (Method::GET, "/login", 404),
        (Method::GET, "/register", 404),
        (Method::GET, "/unregister", 404),
        (Method::PUT, "/jobs", 405),
        (Method::GET, "/jobs/init", 405),
        (Method::POST, &job, 405),
        (Method::POST, &logs, 405),
    ] {
        assert_eq!(ask(method.clone(), path).await, status, "{method} {path}");
    }
}
