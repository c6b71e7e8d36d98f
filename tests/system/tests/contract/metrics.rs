//! What the service tells about itself in numbers, and whom.

use std::net::{Ipv4Addr, TcpListener};

use offloader_system_tests::{ADMIN_SECRET, Daemon, KEY, Setup};
use reqwest::Method;
use serde_json::json;

use crate::http::{Answer, post, request, send};

const CLIENT: &str = "a-client-with-a-name-of-its-own";

async fn metrics(daemon: &Daemon) -> Answer {
    let asked = request(daemon, Method::GET, "/metrics");
    send(asked.basic_auth("", Some(ADMIN_SECRET))).await
}

/// The value of a metric whose line begins so.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[tokio::test]
async fn the_administrator_sees_what_was_asked_and_what_the_process_uses() {
    let daemon = Setup::new().with_admin().start().await;
    let unknown = "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa";
    for path in [unknown, unknown, "/jobs", "/no/such/path"] {
        send(request(&daemon, Method::GET, path).basic_auth(CLIENT, Some(KEY))).await;
    }
    let answer = metrics(&daemon).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.content_type,
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.body;
    let requests =
        |labels: &str| value(&text, &format!("offloader_http_requests_total{{{labels}}}"));
    for (labels, count) in [
        ("route=\"/jobs/{id}\",method=\"GET\",status=\"4xx\"", 2.0),
        ("route=\"/jobs\",method=\"GET\",status=\"2xx\"", 1.0),
        ("route=\"none\",method=\"GET\",status=\"4xx\"", 1.0),
    ] {
        assert_eq!(requests(labels), Some(count), "{labels}\n{text}");
    }
    let duration = "offloader_http_request_duration_seconds_count{route=\"/jobs\",method=\"GET\"}";
    assert_eq!(value(&text, duration), Some(1.0), "{text}");
    let resident = value(&text, "process_resident_memory_bytes");
    assert!(resident.is_some_and(|bytes| bytes > 1e6), "{text}");
    assert!(text.contains("offloader_build_info{version=\""), "{text}");
    for secret in [CLIENT, KEY, ADMIN_SECRET, "aaaaaaaa", "/no/such/path"] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
    let by_client = request(&daemon, Method::GET, "/metrics").basic_auth(CLIENT, Some(KEY));
    send(by_client).await.error(403);
    send(request(&daemon, Method::GET, "/metrics"))
        .await
        .error(401);
}

#[tokio::test]
async fn an_address_of_its_own_shows_metrics_to_everybody_and_nothing_else() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let setup = Setup::new().config(&format!("[metrics]\nlisten_address = \"{address}\""));
    let daemon = setup.start().await;
    let ask = async |path: &str| {
        let answer = reqwest::get(format!("http://{address}{path}")).await;
        let answer = answer.expect("it listens there");
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = ask("/metrics").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("process_start_time_seconds "), "{text}");
    assert_eq!(ask("/version").await.0, 404);
    drop(daemon);
}

#[tokio::test]
async fn without_metrics_there_is_no_such_path() {
    let setup = Setup::new().with_admin();
    let daemon = setup.config("metrics.enable = false").start().await;
    assert_eq!(metrics(&daemon).await.error(404), "not found");
    // And the service serves as ever.
    let body = json!({ "clientID": CLIENT, "authKey": KEY });
    let answer = send(post(&daemon, "/register", &body)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}
