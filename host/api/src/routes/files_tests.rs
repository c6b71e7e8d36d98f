use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Version};
use bytes::Bytes;
use engine::{FilesError, RunnerError};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use crate::testing::{ADMIN, KEY, Service, basic};

/// A service, the administrator, and a job that failed and left files.
async fn with_files() -> (Service, String, String) {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let job = service.record(&admin, &"r".repeat(26)).await;
    service.runner.play().files = vec![Ok("some ".into()), Ok("files".into())];
    service.runner.end_all(3);
    service.wait_for(&admin, &job, "retained").await;
    let path = format!("/jobs/{job}/files");
    (service, admin, path)
}

fn broken() -> RunnerError {
    RunnerError {
        operation: "fetch the files",
        detail: "the disk is gone".into(),
        unreachable: false,
    }
}

#[tokio::test]
async fn the_administrator_gets_them_as_an_archive_to_save() {
    let (service, admin, path) = with_files().await;
    let answer = service.get(&path, &admin).await;
    assert_eq!(answer.is_ok().text, "some files");
    let header = |name: &str| answer.headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/x-tar");
    let id = path.split('/').nth(2).unwrap();
    let saved = format!("attachment; filename=\"{id}.tar\"");
    assert_eq!(header("content-disposition"), saved);
}

#[tokio::test]
async fn nobody_else_does_the_owner_included() {
    let service = Service::open().await;
    let owner = service.register("site", KEY).await;
    let job = service.record(&owner, &"r".repeat(26)).await;
    service.runner.end_all(3);
    service.wait_for(&owner, &job, "retained").await;
    let path = format!("/jobs/{job}/files");
    let answer = service.get(&path, &owner).await;
    answer.is_error(403, "only the administrator may do this");
}

#[tokio::test]
async fn each_way_not_to_get_them_has_its_status() {
    let service = Service::open().await;
    let admin = basic("", ADMIN);
    let job = service.record(&admin, &"r".repeat(26)).await;
    let path = format!("/jobs/{job}/files");
    let begins = format!("failed to get files of job {job}: ");
    let running = service.get(&path, &admin).await;
    running.is_error(409, &format!("{begins}job is running"));
    service.runner.end_all(3);
    service.wait_for(&admin, &job, "retained").await;

    let gone = FilesError::ContainerGone {
        volume: "offloader-main-data".into(),
        by_hand: "tar it".into(),
    };
    let unreachable = RunnerError {
        unreachable: true,
        ..broken()
    };
    for (error, status, text) in [
        (
            gone,
            409,
            "its container is gone; its volume offloader-main-data still has them: tar it",
        ),
        (
            FilesError::Engine(unreachable),
            503,
            "container engine: fetch the files: the disk is gone",
        ),
        (
            FilesError::Engine(broken()),
            502,
            "container engine: fetch the files: the disk is gone",
        ),
    ] {
        service.runner.play().files_fail = Some(error);
        let answer = service.get(&path, &admin).await;
        answer.is_error(status, &format!("{begins}{text}"));
    }
    service.runner.play().files_fail = None;

    service.runner.play().containers.clear();
    let answer = service.get(&path, &admin).await;
    answer.is_error(404, &format!("{begins}nothing of it is kept"));
    let unknown = "a".repeat(26);
    let answer = service.get(&format!("/jobs/{unknown}/files"), &admin).await;
    answer.is_error(404, &format!("failed to get job {unknown}: not found"));
}

#[tokio::test]
async fn an_archive_that_breaks_off_ends_its_connection() {
    let (service, admin, path) = with_files().await;
    service.runner.play().files.push(Err(broken()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, service.router()).into_future());
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {admin}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    read.expect("the connection is closed").unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert!(answer.contains("some "), "{answer}");
    assert!(
        !answer.contains("\r\n0\r\n"),
        "the last chunk is missing: {answer}"
    );
    serving.abort();
}

#[tokio::test]
async fn what_is_removed_while_it_is_fetched_breaks_off() {
    let (service, admin, path) = with_files().await;
    let request = Request::get(&path).header("authorization", &admin);
    let request = request.body(Body::empty()).unwrap();
    let answer = service.router().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, Bytes::from("some "));
    let job = path.trim_end_matches("/files");
    service.send("DELETE", job, &admin, "").await.is_ok();
    let rest = body.collect().await;
    assert!(rest.is_err(), "all parts came, and nobody knows of what");
}

#[tokio::test]
async fn a_client_that_cannot_tell_a_whole_answer_is_refused() {
    let (service, admin, path) = with_files().await;
    let request = Request::get(&path)
        .version(Version::HTTP_10)
        .header("authorization", &admin);
    let answer = service.answer(request.body(Body::empty()).unwrap()).await;
    let told = "HTTP/1.1 is needed to tell a whole archive from one that breaks off";
    answer.is_error(505, told);
}
