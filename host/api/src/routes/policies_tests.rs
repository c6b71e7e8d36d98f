//! What the administrator sees of policies, and what owners see of their decisions.

use domain::{Decision, DecisionOutcome, Hook, Timestamp};
use engine::ReloadProblem;
use serde_json::{Value, json};

use crate::testing::{ADMIN, KEY, OTHER_KEY, START, Service, basic};

fn decision(policy: &str, enforced: bool) -> Decision {
    Decision {
        at: Timestamp::from_millis(START + 1),
        hook: Hook::ImageSelection,
        attempt: None,
        policy: policy.into(),
        component_sha256: "c0".into(),
        settings_sha256: "5e".into(),
        read: vec!["image-asked".into()],
        outcome: DecisionOutcome::Answered,
        enforced,
        verdict: "use".into(),
        value: Some("a/b:v1.0.0".into()),
        reason: Some("mirrored".into()),
        micros: 21,
    }
}

#[tokio::test]
async fn the_administrator_sees_the_policies_in_force() {
    let service = Service::open().await;
    let answer = service.get("/policies", &basic("", ADMIN)).await;
    let policy = json!({
        "name": "well", "component": "map.wasm", "component_sha256": "c0",
        "settings_sha256": "5e", "signed_by": "site.pub",
        "hooks": ["image-selection", "retention"], "mode": "enforce", "on_failure": "skip",
        "state": "active",
        "limits": {
            "component_size_bytes": 1, "time_ms": 2, "memory_bytes": 3, "table_elements": 4,
            "host_calls": 5, "output_bytes": 6, "log_bytes": 7
        },
        "grants": {
            "inputs": ["call_id"], "env": ["TZ"], "dirs": [{ "as": "/maps", "write": false }],
            "real_clock": true, "real_entropy": false
        },
        "counters": { "decisions": 9, "failures": 2, "failures_in_a_row": 1 }
    });
    let mut ill = policy.clone();
    ill["name"] = json!("ill");
    ill["state"] = json!("quarantined");
    ill["quarantined_since"] = json!(START + 5);
    assert_eq!(
        answer.is_ok().json(),
        json!({
            "generation": 1, "loaded_at": START, "last_failure": null, "policies": [policy, ill],
            "left_out": [{ "policy": "lost", "step": "verify", "message": "No such file" }]
        })
    );
}

#[tokio::test]
async fn a_reload_answers_with_what_is_in_force_then() {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let answer = service.send("POST", "/policies/reload", &admin, "").await;
    assert_eq!(answer.is_ok().json()["generation"], 2);

    let problem = |policy: Option<&str>, step, message: &str| ReloadProblem {
        policy: policy.map(Into::into),
        step,
        message: message.into(),
    };
    *service.control.problems.lock().unwrap() = vec![
        problem(None, "configuration", "the file is gone"),
        problem(Some("well"), "compile", "no component"),
    ];
    let problems = json!([
        { "policy": null, "step": "configuration", "message": "the file is gone" },
        { "policy": "well", "step": "compile", "message": "no component" }
    ]);
    let answer = service.send("POST", "/policies/reload", &admin, "").await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.json(),
        json!({
            "error": "the policies were not reloaded; those in force stay", "code": "422",
            "at": START + 7, "problems": problems
        })
    );
    let status = service.get("/policies", &admin).await.is_ok().json();
    assert_eq!(status["generation"], 2);
    assert_eq!(
        status["last_failure"],
        json!({ "at": START + 7, "problems": problems })
    );
}

#[tokio::test]
async fn nobody_else_gets_at_policies_and_metrics() {
    let service = Service::open().await;
    let client = service.register("site", KEY).await;
    for (method, path) in [
        ("GET", "/policies"),
        ("POST", "/policies/reload"),
        ("GET", "/metrics"),
    ] {
        let answer = service.send(method, path, &client, "").await;
        answer.is_error(403, "only the administrator may do this");
        let answer = service.send(method, path, "", "").await;
        answer.is_error(401, "authentication failed: invalid auth header");
        let stranger = basic("stranger", OTHER_KEY);
        let answer = service.send(method, path, &stranger, "").await;
        answer.is_error(401, "authentication failed");
        let answer = service.send("PUT", path, &basic("", ADMIN), "").await;
        answer.is_error(405, "method not allowed");
    }
    let status = service.get("/policies", &basic("", ADMIN)).await;
    assert_eq!(status.json()["generation"], 1, "somebody else reloaded");
    let metrics = service.get("/metrics", &basic("", ADMIN)).await;
    assert_eq!(metrics.is_ok().text, "jobs 7\n");
    assert_eq!(
        metrics.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
}

#[tokio::test]
async fn owners_see_what_took_effect_and_the_administrator_all() {
    let service = Service::open().await;
    *service.decisions.lock().unwrap() = vec![decision("mirror", true), decision("trial", false)];
    let owner = service.register("site", KEY).await;
    let other = service.register("other", OTHER_KEY).await;
    let job = service.record(&owner, &"r".repeat(26)).await;
    let path = format!("/jobs/{job}/decisions");

    let brief = json!({
        "at": START + 1, "hook": "image-selection", "policy": "mirror", "outcome": "answered",
        "verdict": "use", "value": "a/b:v1.0.0", "reason": "mirrored"
    });
    let seen = service.get(&path, &owner).await.is_ok().json();
    assert_eq!(seen, json!({ "decisions": [brief] }));

    let full = |policy: &str, enforced: bool| -> Value {
        let mut full = brief.clone();
        full.as_object_mut().unwrap().extend(
            json!({
                "policy": policy, "enforced": enforced, "micros": 21, "read": ["image-asked"],
                "component_sha256": "c0", "settings_sha256": "5e"
            })
            .as_object()
            .unwrap()
            .clone(),
        );
        full
    };
    let seen = service.get(&path, &basic("", ADMIN)).await.is_ok().json();
    assert_eq!(
        seen,
        json!({ "decisions": [full("mirror", true), full("trial", false)] })
    );

    let unknown = format!("failed to get job {job}: not found");
    service.get(&path, &other).await.is_error(404, &unknown);
    let answer = service.send("DELETE", &path, &owner, "").await;
    answer.is_error(405, "method not allowed");
}
