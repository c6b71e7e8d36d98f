//! Limits that are configured, each tripped.

use engine::Runner as _;

use crate::place::{Place, start};

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
