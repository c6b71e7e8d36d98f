//! What jobs leave on the disk, however they leave it.

use engine::{Runner as _, Sighting};

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

/// How many directories wait for jobs to come.
fn spares(place: &Place) -> usize {
    let entries = std::fs::read_dir(place.dir.path().join("jobs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_str().unwrap().starts_with("spare-"))
        .count()
}

#[tokio::test]
async fn a_directory_is_handed_on_only_when_nothing_was_left_in_it() {
    let place = Place::new();
    for (act, left) in [("exit=3", 1), ("say=hello", 0), ("write=/data/a=1", 0)] {
        let spares_before = spares(&place);
        let started = start(&place, act).await;
        assert_eq!(spares(&place), 0, "{act}: one of {spares_before} is taken");
        started.exit().await;
        started.runner.remove(&started.name).await.unwrap();
        assert_eq!(spares(&place), left, "{act}");
        assert_eq!(started.runner.list().await.unwrap(), []);
        let seen = started.runner.inspect(&started.name).await.unwrap();
        assert_eq!(seen, Sighting::Absent);
    }
}
