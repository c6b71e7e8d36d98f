//! Every path, as clients meet it.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use domain::EndReason;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::testing::{ADMIN, KEY, OTHER_KEY, RUNNER, START, Service, basic, recording};

fn id(letter: char) -> String {
    letter.to_string().repeat(26)
}

#[tokio::test]
async fn the_version_is_for_everybody_and_all_text() {
    let service = Service::open().await;
    let answer = service.get("/version", "").await;
    assert_eq!(
        answer.is_ok().json(),
        json!({
            "buildDate": "", "buildVersion": "v0.9.4", "buildHash": "abc", "goVersion": "none",
            "name": "offloader", "version": "0.1.0"
        })
    );
}

#[tokio::test]
async fn health_tells_what_is_wrong() {
    let service = Service::open().await;
    assert_eq!(
        service.get("/healthz", "").await.is_ok().json(),
        json!({ "status": "ok" })
    );
    service.runner.play().down = true;
    assert_eq!(
        degraded(&service).await,
        json!(["container engine: ping: connection refused"])
    );
}

/// Waits until the service says that it cannot start jobs, and why.
async fn degraded(service: &Service) -> Value {
    for _ in 0..400 {
        let health = service.get("/healthz", "").await.is_ok().json();
        if health["status"] == "degraded" {
            return health["reasons"].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the engine is down and nobody says so");
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let service = Service::open().await;
    let auth = basic("", ADMIN);
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/jobs/"),
        ("GET", "/jobs/short"),
        ("PUT", "/jobs/short"),
        ("GET", "/jobs/ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("GET", "/jobs/..%2F..%2Fetc"),
        ("DELETE", "/jobs/../version"),
        ("GET", "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa/volume"),
        ("POST", "/version"),
        ("GET", "/login"),
        ("GET", "/register"),
        ("DELETE", "/unregister"),
    ] {
        service
            .send(method, path, &auth, "")
            .await
            .is_error(404, "not found");
        service
            .send(method, path, "", "")
            .await
            .is_error(404, "not found");
    }
    for (method, path) in [
        ("PUT", "/jobs"),
        ("DELETE", "/jobs"),
        ("GET", "/jobs/init"),
        ("DELETE", "/jobs/init"),
        ("POST", "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("PATCH", "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("POST", "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa/logs"),
        ("DELETE", "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa/logs"),
    ] {
        service
            .send(method, path, &auth, "")
            .await
            .is_error(405, "method not allowed");
    }
}

#[tokio::test]
async fn head_is_another_method() {
    let service = Service::open().await;
    let auth = basic("", ADMIN);
    for (path, status) in [
        ("/version", 404),
        ("/nothing", 404),
        ("/jobs/short", 404),
        ("/healthz", 405),
        ("/jobs", 405),
        ("/jobs/init", 405),
        ("/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa", 405),
        ("/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa/logs", 405),
    ] {
        let answer = service.send("HEAD", path, &auth, "").await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_job_is_checked_in_the_order_of_the_standard_service() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let runner = "invalid Runner value: ";
    for (change, text) in [
        (
            json!({ "type": "", "runner": "", "max_duration_sec": 0 }),
            "invalid Type value: should not be empty".into(),
        ),
        (
            json!({ "type": "x", "runner": "" }),
            format!("{runner}runner should not be empty"),
        ),
        (
            json!({ "type": "x", "runner": "evil/x:v1" }),
            format!("{runner}failed to validate runner \"evil/x:v1\""),
        ),
        (
            json!({ "runner": "mattermost/calls-recorder:v0.1.0" }),
            format!(
                "{runner}actual version (0.1.0) is lower than minimum supported version (0.6.0)"
            ),
        ),
        (
            json!({ "type": "x", "max_duration_sec": 0 }),
            "invalid MaxDurationSec value: should be positive".into(),
        ),
        (
            json!({ "max_duration_sec": -5 }),
            "invalid MaxDurationSec value: should be positive".into(),
        ),
        (json!({ "type": "x" }), "invalid Type value: \"x\"".into()),
    ] {
        let mut body = recording(&id('r'));
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        service
            .post("/jobs", &auth, &body)
            .await
            .is_error(400, &text);
    }
    service
        .post("/jobs", "", &recording(&id('r')))
        .await
        .is_error(401, "authentication failed: invalid auth header");
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_told() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    for path in ["/jobs", "/jobs/init"] {
        for body in ["", "{", "[]", "7", r#"{"type":7,"runners":7}"#, "not json"] {
            let answer = service.send("POST", path, &auth, body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
            let error = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(
                error.starts_with("failed to decode request body: "),
                "{error}"
            );
        }
        let large = service
            .send("POST", path, &auth, vec![b' '; (1 << 20) + 1])
            .await;
        large.is_error(413, "failed to decode request body: larger than 1 MiB");
    }
}

#[tokio::test]
async fn a_job_that_runs_is_answered_and_shown() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let created = service.post("/jobs", &auth, &recording(&id('r'))).await;
    let job = created.is_ok().json();
    let job_id = job["id"].as_str().unwrap();
    assert!(
        job_id.len() == 26
            && job_id
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );
    assert_eq!(job["start_at"], START);
    assert_eq!(job["state"], "running");
    assert!(job.get("stop_at").is_none());
    assert_eq!(job["input_data"]["width"], 1280);
    assert!(
        !created.text.contains(&id('t')),
        "the token is a secret: {}",
        created.text
    );
    let shown = service.get(&format!("/jobs/{job_id}"), &auth).await;
    assert_eq!(shown.is_ok().json(), job);

    service.runner.end_all(0);
    let ended = service.wait_for(&auth, job_id, "removed").await;
    assert_eq!(
        (&ended["outcome"], &ended["reason"], &ended["exit_code"]),
        (&json!("succeeded"), &json!("completed"), &json!(0))
    );
    assert!(ended["stop_at"].is_i64());
}

#[tokio::test]
async fn the_same_recording_again_is_the_same_job() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let first = service.record(&auth, &id('r')).await;
    assert_eq!(service.record(&auth, &id('r')).await, first);
    let mut other = recording(&id('r'));
    other["max_duration_sec"] = json!(61);
    assert_eq!(service.post("/jobs", &auth, &other).await.status, 409);
}

#[tokio::test]
async fn an_idempotency_key_does_the_same() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let mut body = recording(&id('r'));
    body["input_data"]
        .as_object_mut()
        .unwrap()
        .remove("recording_id");
    let send = |key: &'static str| {
        let request = Request::post("/jobs")
            .header("authorization", &auth)
            .header("idempotency-key", key);
        service.answer(request.body(Body::from(body.to_string())).unwrap())
    };
    let first = send("a").await;
    assert_eq!(
        send("a").await.is_ok().json()["id"],
        first.is_ok().json()["id"]
    );
    assert_ne!(send("b").await.is_ok().json()["id"], first.json()["id"]);
    assert_eq!(send("").await.status, 400);
}

#[tokio::test]
async fn full_slots_are_told_as_the_guide_says() {
    let service = Service::with(true, None, 1).await;
    let auth = basic("site", KEY);
    service.record(&auth, &id('a')).await;
    let full = service.post("/jobs", &auth, &recording(&id('b'))).await;
    full.is_error(
        503,
        "failed to create recording job: max concurrent jobs reached",
    );
    assert!(full.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn each_way_not_to_start_has_its_status() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let begins = "failed to create recording job: ";

    let mut denied = recording(&id('a'));
    denied["input_data"]["site_url"] = json!("https://denied.example");
    service
        .post("/jobs", &auth, &denied)
        .await
        .is_error(403, &format!("{begins}nobody knows this host"));

    for (name, value) in [
        ("path", json!("/x")),
        ("SITE_URL", json!("http://h;cmd")),
        ("recording_id", json!("../..")),
    ] {
        let mut bad = recording(&id('a'));
        bad["input_data"][name] = value;
        let answer = service.post("/jobs", &auth, &bad).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        assert!(answer.json()["error"].as_str().unwrap().starts_with(begins));
    }

    service.runner.play().pulls_fail = Some(EndReason::ImageNotFound);
    let answer = service.post("/jobs", &auth, &recording(&id('b'))).await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.json()["error"].as_str().unwrap().starts_with(begins),
        "{}",
        answer.text
    );

    service.runner.play().down = true;
    degraded(&service).await;
    let answer = service.post("/jobs", &auth, &recording(&id('c'))).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_its_wish_with_it() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    service.runner.play().pulls_hang = true;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, service.router()).into_future());
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = recording(&id('r')).to_string();
    let head = format!(
        "POST /jobs HTTP/1.1\r\nhost: x\r\nauthorization: {auth}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let job = first_job(&service, &auth, |job| job["state"] == "preparing").await;
    drop(client);
    let job = first_job(&service, &auth, |ended| {
        ended["id"] == job["id"] && ended["outcome"] == "failed"
    })
    .await;
    assert_eq!(job["reason"], "interrupted");
    assert!(service.runner.play().containers.is_empty());
    serving.abort();
}

/// Waits until the newest job is as wanted.
async fn first_job(service: &Service, auth: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..500 {
        let job = service.get("/jobs", auth).await.json()["jobs"][0].clone();
        if wanted(&job) {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the job does not get there");
}

#[tokio::test]
async fn jobs_of_others_do_not_exist() {
    let service = Service::open().await;
    let (ours, theirs) = (
        service.register("a", KEY).await,
        service.register("b", OTHER_KEY).await,
    );
    let job = service.record(&ours, &id('r')).await;
    let told = format!("failed to get job {job}: not found");
    service
        .get(&format!("/jobs/{job}"), &theirs)
        .await
        .is_error(404, &told);
    service
        .get(&format!("/jobs/{job}/logs"), &theirs)
        .await
        .is_error(404, &told);
    service
        .send("DELETE", &format!("/jobs/{job}"), &theirs, "")
        .await
        .is_error(404, &told);
    assert_eq!(
        service.get("/jobs", &theirs).await.json(),
        json!({ "jobs": [], "next": null })
    );
    assert_eq!(
        service.get("/jobs", &basic("", ADMIN)).await.json()["jobs"][0]["id"],
        job
    );
    // The same recording id of another client is another recording.
    assert_ne!(service.record(&theirs, &id('r')).await, job);
}

#[tokio::test]
async fn the_administrator_can_run_jobs_too() {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let job = service.record(&admin, &id('r')).await;
    assert_eq!(
        service.get(&format!("/jobs/{job}"), &admin).await.json()["client"],
        "administrator"
    );
    let theirs = service.register("administrator", KEY).await;
    assert_eq!(
        service.get(&format!("/jobs/{job}"), &theirs).await.status,
        404
    );
}

#[tokio::test]
async fn logs_are_text() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let job = service.record(&auth, &id('r')).await;
    let logs = service.get(&format!("/jobs/{job}/logs"), &auth).await;
    assert_eq!(logs.is_ok().text, "to stdout\nto stderr\n");
    assert_eq!(logs.headers["content-type"], "text/plain; charset=utf-8");
    let none = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
    let told = format!("failed to get job {none}: not found");
    service
        .get(&format!("/jobs/{none}/logs"), &auth)
        .await
        .is_error(404, &told);
}

#[tokio::test]
async fn a_job_is_deleted_when_it_does_not_run() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let job = service.record(&auth, &id('r')).await;
    let path = format!("/jobs/{job}");
    service
        .send("DELETE", &path, &auth, "")
        .await
        .is_error(400, "job is running");
    service.runner.end_all(0);
    service.wait_for(&auth, &job, "removed").await;
    assert_eq!(
        service.send("DELETE", &path, &auth, "").await.is_ok().text,
        ""
    );
    let told = format!("failed to get job {job}: not found");
    service.get(&path, &auth).await.is_error(404, &told);
    service
        .send("DELETE", &path, &auth, "")
        .await
        .is_error(404, &told);
}

#[tokio::test]
async fn pages_follow_each_other_newest_first() {
    let service = Service::with(true, None, 10).await;
    let auth = basic("site", KEY);
    let mut jobs = Vec::new();
    for letter in ['a', 'b', 'c'] {
        jobs.insert(0, service.record(&auth, &id(letter)).await);
    }
    let ids = |page: &Value| -> Vec<String> {
        page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = service.get("/jobs?limit=2", &auth).await.is_ok().json();
    assert_eq!(
        (ids(&first), &first["next"]),
        (jobs[..2].to_vec(), &json!(jobs[1]))
    );
    let second = service
        .get(&format!("/jobs?limit=2&before={}", jobs[1]), &auth)
        .await
        .json();
    assert_eq!(
        (ids(&second), &second["next"]),
        (jobs[2..].to_vec(), &json!(null))
    );
    assert_eq!(
        ids(&service.get("/jobs?state=running", &auth).await.json()),
        jobs
    );
    assert!(
        ids(&service
            .get("/jobs?state=removed,retained", &auth)
            .await
            .json())
        .is_empty()
    );
    assert_eq!(service.get("/jobs?limit=x", &auth).await.status, 400);
}

#[tokio::test]
async fn init_makes_images_present() {
    let service = Service::open().await;
    let auth = service.register("site", KEY).await;
    let transcriber = "mattermost/calls-transcriber:v0.7.2";
    for field in ["Runners", "runners", "RUNNERS"] {
        let answer = service
            .post(
                "/jobs/init",
                &auth,
                &json!({ field: [RUNNER, transcriber] }),
            )
            .await;
        assert_eq!(answer.is_ok().text, "");
    }
    let begins = "invalid job service config: ";
    for (runners, text) in [
        (
            json!(vec![RUNNER; 17]),
            format!("{begins}more than 16 Runners"),
        ),
        (json!([]), format!("{begins}invalid empty Runners")),
        (json!(null), format!("{begins}invalid empty Runners")),
        (
            json!([RUNNER, ""]),
            format!("{begins}runner should not be empty"),
        ),
        (
            json!(["x/y:v1"]),
            format!("{begins}failed to validate runner \"x/y:v1\""),
        ),
        (
            json!(["mattermost/calls-recorder:v0.1.0"]),
            format!(
                "{begins}actual version (0.1.0) is lower than minimum supported version (0.6.0)"
            ),
        ),
    ] {
        service
            .post("/jobs/init", &auth, &json!({ "Runners": runners }))
            .await
            .is_error(400, &text);
    }
    service.runner.play().pulls_fail = Some(EndReason::ImageUnreachable);
    let answer = service
        .post("/jobs/init", &auth, &json!({ "Runners": [RUNNER] }))
        .await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.json()["error"]
            .as_str()
            .unwrap()
            .starts_with("failed to update job runner: ")
    );
}

#[tokio::test]
async fn the_administrator_stops_a_job_and_nobody_else_does() {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let owner = service.register("site", KEY).await;
    let job = service.record(&owner, &id('r')).await;
    let path = format!("/jobs/{job}/stop");
    let answer = service.send("POST", &path, &owner, "").await;
    answer.is_error(403, "only the administrator may do this");
    service
        .get(&path, &admin)
        .await
        .is_error(405, "method not allowed");
    let stopped = service.send("POST", &path, &admin, "").await;
    assert_ne!(stopped.is_ok().json()["state"], "running");
    let ended = service.wait_for(&owner, &job, "removed").await;
    assert_eq!(ended["reason"], "stopped-by-admin");
    let again = service.send("POST", &path, &admin, "").await;
    again.is_error(400, "job is not running");
    let unknown = format!("/jobs/{}/stop", id('a'));
    let text = format!("failed to get job {}: not found", id('a'));
    service
        .send("POST", &unknown, &admin, "")
        .await
        .is_error(404, &text);
}

#[tokio::test]
async fn the_administrator_resends_what_is_kept_unsent_and_nothing_else() {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let owner = service.register("site", KEY).await;
    let job = service.record(&owner, &id('r')).await;
    let path = format!("/jobs/{job}/resend");
    let answer = service.send("POST", &path, &owner, "").await;
    answer.is_error(403, "only the administrator may do this");
    service
        .get(&path, &admin)
        .await
        .is_error(405, "method not allowed");
    let refused = |why: &str| format!("failed to resend job {job}: {why}");
    let answer = service.send("POST", &path, &admin, "").await;
    answer.is_error(409, &refused("job is running"));
    let stop = format!("/jobs/{job}/stop");
    service.send("POST", &stop, &admin, "").await.is_ok();
    service.wait_for(&owner, &job, "removed").await;
    let answer = service.send("POST", &path, &admin, "").await;
    answer.is_error(
        409,
        &refused("nothing is kept of it that was not delivered"),
    );
    let unknown = format!("/jobs/{}/resend", id('a'));
    let text = format!("failed to get job {}: not found", id('a'));
    service
        .send("POST", &unknown, &admin, "")
        .await
        .is_error(404, &text);
}

#[tokio::test]
async fn force_deletes_a_running_job_and_says_what_went() {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let owner = service.register("site", KEY).await;
    let job = service.record(&owner, &id('r')).await;
    let path = format!("/jobs/{job}?force=1");
    let answer = service.send("DELETE", &path, &owner, "").await;
    answer.is_error(403, "only the administrator may do this");
    let other = service.register("other", OTHER_KEY).await;
    let unknown = format!("failed to get job {job}: not found");
    service
        .send("DELETE", &path, &other, "")
        .await
        .is_error(404, &unknown);
    let plain = format!("/jobs/{job}");
    let answer = service.send("DELETE", &plain, &admin, "").await;
    answer.is_error(400, "job is running");
    let answer = service
        .send("DELETE", &format!("{plain}?force=yes"), &admin, "")
        .await;
    answer.is_error(400, "invalid force: should be 1 or 0");

    let answer = service.send("DELETE", &path, &admin, "").await;
    let gone = json!({ "id": job, "delivery": "delivered" });
    assert_eq!(answer.is_ok().json(), gone);
    assert!(service.runner.play().containers.is_empty());
    service.get(&plain, &admin).await.is_error(404, &unknown);
    service
        .send("DELETE", &path, &admin, "")
        .await
        .is_error(404, &unknown);
}
