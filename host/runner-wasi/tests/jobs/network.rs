//! What a job can reach: its site, and nobody else by any means.

use std::net::TcpListener;

use crate::place::{Place, start, start_with_site};

/// What a job was told of each thing that it tried, without the reasons.
fn told(output: &str) -> Vec<&str> {
    output
        .lines()
        .map(|line| line.split(':').next().unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn a_job_reaches_its_site_alone() {
    let place = Place::new();
    let [site, other] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [site, other] = [&site, &other].map(|listener| listener.local_addr().unwrap());
    let act = format!("connect={site},connect={other}");
    let started = start_with_site(&place, &act, Some(&format!("http://{site}"))).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    assert_eq!(
        told(&output),
        ["connect worked", "connect failed"],
        "{output}"
    );
}

#[tokio::test]
async fn a_site_is_found_by_its_name_and_no_other_name_is_looked_up() {
    let place = Place::new();
    let site = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = site.local_addr().unwrap().port();
    let act = format!("resolve=localhost:{port},connect=localhost:{port},connect=127.0.0.1:{port}");
    let url = format!("http://localhost:{port}");
    let started = start_with_site(&place, &act, Some(&url)).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    let worked = ["resolve worked", "connect worked", "connect worked"];
    assert_eq!(told(&output), worked, "{output}");

    // The same name, which can be looked up here, is somebody else's for a site that has another.
    let place = Place::new();
    let url = format!("http://127.0.0.1:{port}");
    let act = format!("resolve=localhost:{port},connect=127.0.0.1:{port}");
    let started = start_with_site(&place, &act, Some(&url)).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    assert_eq!(
        told(&output),
        ["resolve failed", "connect worked"],
        "{output}"
    );
}

#[tokio::test]
async fn neither_another_address_nor_another_protocol_nor_listening_is_for_a_job() {
    let place = Place::new();
    // Everybody is there at this port, and only one of them is the site.
    let everybody = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everybody.local_addr().unwrap().port();
    let act = format!(
        "connect=127.0.0.1:{port},connect=127.0.0.2:{port},\
         udp=127.0.0.1:{port},listen=127.0.0.1:0,listen=0.0.0.0:0,say=done"
    );
    let url = format!("http://127.0.0.1:{port}");
    let started = start_with_site(&place, &act, Some(&url)).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    let expected = [
        "connect worked",
        "connect failed",
        "udp failed",
        "listen failed",
        "listen failed",
        "done",
    ];
    assert_eq!(told(&output), expected, "{output}");
}

#[tokio::test]
async fn without_a_site_there_is_no_network() {
    let place = Place::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let act = format!(
        "resolve=localhost:{port},connect=127.0.0.1:{port},udp=127.0.0.1:{port},listen=127.0.0.1:0"
    );
    let started = start(&place, &act).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    let failed = [
        "resolve failed",
        "connect failed",
        "udp failed",
        "listen failed",
    ];
    assert_eq!(told(&output), failed, "{output}");
}
