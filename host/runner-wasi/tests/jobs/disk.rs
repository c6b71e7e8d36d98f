//! What jobs leave on the disk, however they leave it.

use engine::Runner as _;

use crate::place::{Place, start};

#[tokio::test]
async fn the_room_on_the_disk_is_known() {
    let place = Place::new();
    let free = place.runner().free_bytes().await.unwrap();
    assert!(free.is_some_and(|bytes| bytes > 0), "{free:?}");
}

#[tokio::test]
async fn data_below_thousands_of_directories_is_counted_and_removed() {
    let mut place = Place::new();
    place.data_max = 1 << 30;
    let started = start(&place, "nest=5000=call.mp4,exit=1").await;
    assert_eq!(started.exit().await.code, 1, "{}", started.output().await);
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left.unwrap().media_bytes, 5);
    started.runner.remove(&started.name).await.unwrap();
    assert!(!place.of(&started.name).exists());
}
