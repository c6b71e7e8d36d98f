//! Limits that are configured, each tripped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::JobId;
use engine::{Runner as _, Sighting};
use tokio::time::{Instant, sleep};

use crate::place::{Place, permit_of, start, ticket};

#[tokio::test]
async fn memory_is_what_the_permit_says() {
    let mut place = Place::new();
    place.memory = 32 << 20;
    for (bytes, code) in [(8 << 20, 0), (48 << 20, 137)] {
        let started = start(&place, &format!("grow={bytes}")).await;
        let exit = started.exit().await;
        assert_eq!(
            (exit.code, exit.out_of_memory),
            (code, code == 137),
            "{bytes}"
        );
        started.runner.remove(&started.name).await.unwrap();
    }
}

#[tokio::test]
async fn output_is_kept_up_to_its_limit() {
    let mut place = Place::new();
    place.output_max = 10_000;
    let started = start(&place, "print-bytes=1000000").await;
    assert_eq!(started.exit().await.code, 0);
    assert_eq!(started.output().await.len(), 10_000);
}

#[tokio::test]
async fn too_much_data_ends_a_job_and_is_kept() {
    let mut place = Place::new();
    place.data_max = 100_000;
    let started = start(&place, "write=/data/big.mp4=200000,wait").await;
    assert_eq!(started.exit().await.code, 137);
    assert!(started.output().await.contains("more than 100000 bytes"));
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left.unwrap().media_bytes, 200_000);
}

#[tokio::test]
async fn files_without_anything_in_them_are_data_too() {
    let mut place = Place::new();
    place.data_max = 100_000;
    let started = start(&place, "files=50,wait").await;
    assert_eq!(started.exit().await.code, 137);
    assert!(started.output().await.contains("more than 100000 bytes"));
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left.unwrap().total_bytes, 0);
}

#[tokio::test]
async fn without_a_limit_data_is_not_looked_at() {
    let place = Place::new();
    let started = start(&place, "write=/data/big=200000,sleep-ms=3000,exit=1").await;
    assert_eq!(started.exit().await.code, 1);
}

/// Files and directories below `dir` that this process has open.
fn open_below(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|file| file.starts_with(&dir))
        .count()
}

#[tokio::test]
async fn jobs_that_are_over_and_kept_hold_no_file_open() {
    let place = Place::new();
    let (runner, gate) = (place.runner(), place.gate());
    let before = open_below(place.dir.path());
    for number in 0..20 {
        let job: JobId = format!("{number:026}").parse().unwrap();
        let permit = permit_of(job, &runner, &gate, "write=/data/call.mp4=5,say=x", None).await;
        let launched = runner.launch(&permit, &ticket(true)).await.unwrap();
        let name = permit.name();
        runner.changed(name).await.unwrap();
        let ended = runner.inspect(name).await.unwrap();
        assert!(matches!(ended, Sighting::Ended(_)), "{ended:?}");
        // What is known of it stays so.
        assert_eq!(runner.inspect(name).await.unwrap(), ended);
        runner.changed(name).await.unwrap();
        let again = runner.launch(&permit, &ticket(true)).await.unwrap();
        assert_eq!(again.at, launched.at);
        assert_eq!(
            runner.leftovers(name).await.unwrap().unwrap().media_bytes,
            5
        );
        assert!(runner.files(name).await.unwrap().is_some());
    }
    // A job lets go of them a moment after its end.
    let due = Instant::now() + Duration::from_secs(60);
    while open_below(place.dir.path()) > before {
        assert!(Instant::now() < due, "{}", open_below(place.dir.path()));
        sleep(Duration::from_millis(20)).await;
    }
}
