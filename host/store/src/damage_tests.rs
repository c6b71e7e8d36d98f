//! What the disk may do to the files, and what becomes of it.

use std::fs;

use domain::Job;
use engine::{Accepted, JobQuery, Store};
use rusqlite::Connection;

use super::*;
use crate::testing::{Place, accept, at, ended, filled, id, job, new, unfinished};
use crate::{SqliteStore, StoreConfig};

/// 2026-11-21T13:15:00Z.
const NOW: i64 = 1_795_266_900_000;

fn open(place: &Place) -> Result<(SqliteStore, Option<SetAside>), OpenError> {
    SqliteStore::open_or_set_aside(StoreConfig { path: place.path() }, at(NOW))
}

fn set_aside(place: &Place) -> (SqliteStore, SetAside) {
    let (store, set_aside) = open(place).unwrap();
    (store, set_aside.expect("the damage is noticed"))
}

/// The files of a store as they are while it is open: the last jobs are in the log alone.
async fn killed(jobs: u32) -> Place {
    let place = filled(jobs / 2).await;
    let store = place.open();
    for n in jobs / 2..jobs {
        accept(&store, new(job(n), &[])).await;
    }
    let copy = Place::new();
    for ending in ["", "-wal"] {
        fs::copy(with(&place.path(), ending), with(&copy.path(), ending)).unwrap();
    }
    copy
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x04;
    fs::write(path, bytes).unwrap();
}

fn names(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.dir.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_whole_and_a_new_one_begun() {
    let place = killed(100).await;
    let log = with(&place.path(), "-wal");
    flip(&log, 200);
    let before = ["", "-wal"].map(|ending| fs::read(with(&place.path(), ending)).unwrap());
    let (store, aside) = set_aside(&place);
    assert_eq!(unfinished(&store).await, []);
    accept(&store, new(job(1), &[])).await;
    drop(store);
    assert_eq!(
        aside.path,
        place
            .dir
            .path()
            .join("offloader-damaged-20261121T131500Z.db")
    );
    assert!(aside.detail.contains("write-ahead log"), "{}", aside.detail);
    let after = ["", "-wal"].map(|ending| fs::read(with(&aside.path, ending)).unwrap());
    assert!(before == after, "it is as it was");
    assert!(place.open().job(&id(1)).await.unwrap().is_some());

    // Once more within the same second.
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[4096 * 2..4096 * 9].fill(0xAA);
    fs::write(place.path(), bytes).unwrap();
    set_aside(&place);
    let aside = "offloader-damaged-20261121T131500Z";
    let names = names(&place);
    for name in ["-2.db", ".db", ".db-wal"] {
        assert!(names.contains(&format!("{aside}{name}")), "{names:?}");
    }
}

#[tokio::test]
async fn what_is_whole_foreign_newer_or_in_use_is_not_set_aside() {
    let place = filled(3).await;
    let (store, aside) = open(&place).unwrap();
    assert_eq!((unfinished(&store).await.len(), aside), (3, None));
    assert!(matches!(open(&place), Err(OpenError::InUse { .. })));
    drop(store);
    let db = Connection::open(place.path()).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    assert!(matches!(open(&place), Err(OpenError::Newer { .. })));
    fs::write(place.path(), b"somebody's diary").unwrap();
    assert!(matches!(open(&place), Err(OpenError::Foreign { .. })));
    assert_eq!(names(&place), ["offloader.db", "offloader.lock"]);
}

/// No job that has something left to be done is lost or changed without a word, whatever byte flips.
#[tokio::test]
async fn a_flipped_byte_anywhere_in_the_database_is_noticed_or_does_no_harm() {
    let whole = filled(60).await;
    let expected = unfinished(&whole.open()).await;
    let bytes = fs::read(whole.path()).unwrap();
    let (mut noticed, mut flips) = (0, 0);
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        flips += 1;
        let place = Place::new();
        fs::write(place.path(), &bytes).unwrap();
        flip(&place.path(), at);
        match open(&place) {
            Ok((_, Some(_))) | Err(OpenError::Foreign { .. } | OpenError::Newer { .. }) => {
                noticed += 1;
            }
            Ok((store, None)) if !store.warnings().is_empty() => {
                // One record makes no sense any more, and no other has suffered.
                noticed += 1;
                assert_eq!(
                    unfinished(&store).await.len(),
                    expected.len() - 1,
                    "byte {at}"
                );
            }
            Ok((store, None)) => {
                let found = unfinished(&store).await;
                let known = |jobs: &[Job]| -> Vec<_> {
                    let known = jobs.iter().map(|job| (job.id.clone(), job.state));
                    known.collect()
                };
                assert_eq!(known(&found), known(&expected), "byte {at}");
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    // Much of the file is unused, and text that is no index tells nothing of itself.
    assert!(noticed > 10, "{noticed} of {flips}");
}

#[tokio::test]
async fn a_flipped_byte_in_the_log_is_noticed_but_for_the_last_transaction() {
    let whole = killed(40).await;
    let log = fs::read(with(&whole.path(), "-wal")).unwrap();
    for at in (0..log.len() - 60_000).step_by(log.len() / 20) {
        let place = Place::new();
        fs::copy(whole.path(), place.path()).unwrap();
        fs::write(with(&place.path(), "-wal"), &log).unwrap();
        flip(&with(&place.path(), "-wal"), at);
        set_aside(&place);
    }
}

#[tokio::test]
async fn a_truncated_database_is_set_aside() {
    let whole = filled(60).await;
    let bytes = fs::read(whole.path()).unwrap();
    for len in [
        80,
        100,
        4095,
        4096,
        8192,
        bytes.len() / 2,
        bytes.len() - 4096,
        bytes.len() - 1,
    ] {
        let place = Place::new();
        fs::write(place.path(), &bytes[..len]).unwrap();
        let (store, _) = set_aside(&place);
        assert_eq!(unfinished(&store).await, [], "{len}");
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_not_thrown_away() {
    for lost in [true, false] {
        let place = killed(20).await;
        let log = fs::read(with(&place.path(), "-wal")).unwrap();
        if lost {
            fs::remove_file(place.path()).unwrap();
        } else {
            fs::write(place.path(), b"").unwrap();
        }
        let (_, aside) = set_aside(&place);
        assert_eq!(fs::read(with(&aside.path, "-wal")).unwrap(), log);
    }
}

#[tokio::test]
async fn a_beginning_of_zeros_is_damage_and_nobody_elses_file() {
    let place = filled(20).await;
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[..4096].fill(0);
    fs::write(place.path(), &bytes).unwrap();
    let (_, aside) = set_aside(&place);
    assert_eq!(fs::read(aside.path).unwrap(), bytes);
}

/// Spoils the record of the `n`th job; the database stays whole.
fn spoil(place: &Place, n: u32, change: &str) {
    let db = Connection::open(place.path()).unwrap();
    let changed = db.execute(change, [id(n).as_str()]).unwrap();
    assert_eq!(changed, 1);
}

#[tokio::test]
async fn a_record_that_makes_no_sense_takes_no_other_along() {
    let place = filled(4).await;
    let store = place.open();
    let removed = ended(job(1), 100, true);
    store.commit(removed.into(), Vec::new()).await.unwrap();
    drop(store);
    let attempt = "DELETE FROM attempts WHERE job = (SELECT seq FROM jobs WHERE id = ?1)";
    for (n, change, left) in [
        (1, "UPDATE jobs SET kind = 'x' WHERE id = ?1", vec![0, 2, 3]),
        (0, "UPDATE jobs SET kind = 'x' WHERE id = ?1", vec![2, 3]),
        (2, attempt, vec![3]),
    ] {
        spoil(&place, n, change);
        let (store, aside) = open(&place).unwrap();
        assert_eq!(aside, None);
        let ids = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
        let expected: Vec<_> = left.iter().copied().map(id).collect();
        assert_eq!(ids(unfinished(&store).await), expected);
        let spoilt = 3 - left.len();
        let told = store.warnings().concat();
        assert!(
            told.starts_with(&spoilt.to_string()) != told.is_empty(),
            "{told}"
        );
        let query = JobQuery {
            limit: 10,
            ..JobQuery::default()
        };
        let listed = store.page(&query).await.unwrap();
        for id in &expected {
            assert!(
                listed.iter().any(|listed| listed.0.id == *id),
                "it hides {id}"
            );
        }
        if change != attempt {
            let error = store.job(&id(n)).await.unwrap_err();
            assert!(error.detail.contains("kind"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_start_finds_every_job_in_order_however_many_make_no_sense() {
    let place = filled(500).await;
    let db = Connection::open(place.path()).unwrap();
    db.execute_batch("UPDATE jobs SET kind = 'x' WHERE seq BETWEEN 10 AND 300")
        .unwrap();
    drop(db);
    let store = place.open();
    let found = unfinished(&store).await;
    let expected = (0..9).chain(300..500).map(id);
    assert!(found.iter().map(|job| job.id.clone()).eq(expected));
    let gone = store.unfinished(Some(&id(1000))).await;
    assert!(gone.is_err(), "a start that goes on after nothing");
}

#[tokio::test]
async fn a_record_that_makes_no_sense_holds_no_slot() {
    let place = filled(2).await;
    spoil(&place, 0, "UPDATE jobs SET kind = 'x' WHERE id = ?1");
    for (n, slots) in [
        (2, engine::Slots::of(2)),
        (
            3,
            engine::Slots {
                recordings: Some(3),
                ..engine::Slots::of(3)
            },
        ),
    ] {
        let store = place.open();
        for (n, expected) in [(n, Accepted::New), (n + 10, Accepted::Full)] {
            let mut new = new(job(n), &[]);
            new.slots = slots;
            assert_eq!(store.accept(new).await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn what_only_looks_changes_nothing() {
    // A store that cannot be opened stays as it is: also its log, which SQLite likes to tidy up.
    let place = killed(200).await;
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[4096 * 2..4096 * 9].fill(0xAA);
    fs::write(place.path(), &bytes).unwrap();
    let log = fs::read(with(&place.path(), "-wal")).unwrap();
    let config = StoreConfig { path: place.path() };
    assert!(matches!(
        SqliteStore::open(config),
        Err(OpenError::Damaged { .. })
    ));
    assert!(fs::read(place.path()).unwrap() == bytes);
    assert!(fs::read(with(&place.path(), "-wal")).unwrap() == log);
}
