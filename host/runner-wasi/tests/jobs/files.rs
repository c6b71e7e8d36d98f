//! What a job left, handed out as an archive.

use std::fs;
use std::io::Read as _;

use engine::{FilesError, Runner as _};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::place::{Place, Started, start};

/// What a tar archive holds, each path with its contents; directories end in `/`.
async fn files_of(started: &Started) -> Vec<(String, Vec<u8>)> {
    let files = started.runner.files(&started.name).await.unwrap().unwrap();
    let parts: Vec<_> = files.try_collect().await.unwrap();
    let whole = parts.concat();
    let mut archive = tar::Archive::new(whole.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut path = entry.path().unwrap().display().to_string();
        if entry.header().entry_type().is_dir() {
            path = format!("{}/", path.trim_end_matches('/'));
        }
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        found.push((path, contents));
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_a_job_left_is_fetched_byte_for_byte_and_links_are_not_followed() {
    let place = Place::new();
    let act = "write=/data/call.mp4=300000,write=/data/a.log=3,exit=1";
    let started = start(&place, act).await;
    started.exit().await;
    let data = place.dir.path().join("jobs").join(started.name.to_string());
    let data = data.join("data");
    let deep = "d".repeat(120);
    fs::create_dir(data.join(&deep)).unwrap();
    fs::write(data.join(&deep).join("more.ogg"), "sound").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("link.mp4")).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("etc")).unwrap();
    let expected = [
        ("data/".to_owned(), vec![]),
        ("data/a.log".to_owned(), vec![7; 3]),
        ("data/call.mp4".to_owned(), vec![7; 300_000]),
        (format!("data/{deep}/"), vec![]),
        (format!("data/{deep}/more.ogg"), b"sound".to_vec()),
    ];
    assert_eq!(files_of(&started).await, expected);

    started.runner.remove(&started.name).await.unwrap();
    let gone = started.runner.files(&started.name).await.unwrap();
    assert!(gone.is_none());
}

#[tokio::test]
async fn files_that_are_removed_while_they_are_fetched_break_off_with_an_error() {
    let place = Place::new();
    let act = "write=/data/a.mp4=3000000,write=/data/b.mp4=3000000,exit=1";
    let started = start(&place, act).await;
    started.exit().await;
    let files = started.runner.files(&started.name).await.unwrap();
    let mut files = files.unwrap();
    files.next().await.unwrap().unwrap();
    started.runner.remove(&started.name).await.unwrap();
    let rest: Result<Vec<_>, _> = files.try_collect().await;
    assert!(rest.is_err());
}

#[tokio::test]
async fn files_of_a_job_that_runs_are_its_own() {
    let place = Place::new();
    let started = start(&place, "wait").await;
    let refused = started.runner.files(&started.name).await.err();
    assert!(matches!(refused, Some(FilesError::Running)), "{refused:?}");
}
