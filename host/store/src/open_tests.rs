use std::fs;
use std::os::unix::fs::PermissionsExt;

use engine::Store;

use super::*;
use crate::testing::{Place, accept, at, ended, filled, id, job, new};
use crate::{SqliteStore, StoreConfig};

fn try_open(place: &Place) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(StoreConfig { path: place.path() })
}

/// Opens what must not be opened, and sees that it stays as it is.
fn refuse(place: &Place) -> OpenError {
    let before = fs::read(place.path()).unwrap();
    let Err(error) = try_open(place) else {
        panic!("it was opened")
    };
    assert_eq!(fs::read(place.path()).unwrap(), before);
    assert!(error.to_string().contains("offloader.db"), "{error}");
    error
}

#[tokio::test]
async fn jobs_are_there_after_reopening_and_their_order_goes_on() {
    let place = filled(3).await;
    let store = place.open();
    accept(&store, new(job(3), &[])).await;
    let query = engine::JobQuery {
        limit: 10,
        ..engine::JobQuery::default()
    };
    let page: Vec<_> = store
        .page(&query)
        .await
        .unwrap()
        .into_iter()
        .map(|(job, _)| job.id)
        .collect();
    assert_eq!(page, [id(3), id(2), id(1), id(0)]);
}

#[tokio::test]
async fn only_its_owner_may_read_it() {
    let place = Place::new();
    let store = place.open();
    accept(&store, new(job(1), &[])).await;
    let mut files: Vec<_> = fs::read_dir(place.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    files.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = files
        .iter()
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "offloader.db",
            "offloader.db-shm",
            "offloader.db-wal",
            "offloader.lock"
        ]
    );
    for file in files {
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{file:?}"
        );
    }
}

#[test]
fn two_never_share_it() {
    let place = Place::new();
    let first = place.open();
    assert!(matches!(try_open(&place), Err(OpenError::InUse { .. })));
    drop(first);
    assert!(try_open(&place).is_ok());
}

#[test]
fn a_missing_directory_is_told() {
    let place = Place::new();
    let path = place.dir.path().join("missing/offloader.db");
    let Err(error) = SqliteStore::open(StoreConfig { path }) else {
        panic!("it was opened")
    };
    assert!(
        matches!(&error, OpenError::NotWritable { detail, .. } if detail.contains("No such file")),
        "{error}"
    );
    let directory = Place::new();
    fs::create_dir(directory.path()).unwrap();
    assert!(matches!(
        try_open(&directory),
        Err(OpenError::NotWritable { .. })
    ));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    for garbage in [b"x".to_vec(), b"SQLite format 3\0".to_vec(), vec![7; 5000]] {
        let place = Place::new();
        fs::write(place.path(), garbage).unwrap();
        assert!(matches!(refuse(&place), OpenError::Foreign { .. }));
    }
    let place = Place::new();
    let other = Connection::open(place.path()).unwrap();
    other
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    drop(other);
    assert!(matches!(refuse(&place), OpenError::Foreign { .. }));
}

#[test]
fn the_standard_services_files_stay_as_they_are() {
    let place = Place::new();
    for name in ["000000000.data", "config.json", "lock"] {
        fs::write(place.dir.path().join(name), name).unwrap();
    }
    drop(place.open());
    for name in ["000000000.data", "config.json", "lock"] {
        assert_eq!(
            fs::read(place.dir.path().join(name)).unwrap(),
            name.as_bytes()
        );
    }
}

#[tokio::test]
async fn a_newer_version_is_left_alone() {
    let place = filled(2).await;
    let db = Connection::open(place.path()).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = refuse(&place);
    assert!(
        matches!(&error, OpenError::Newer { found: 99, known, .. } if *known == MIGRATIONS.len() as i64),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_of_the_first_version_is_taken_over() {
    let place = Place::new();
    let db = Connection::open(place.path()).unwrap();
    db.execute_batch(MIGRATIONS[0]).unwrap();
    db.pragma_update(None, "application_id", APPLICATION_ID)
        .unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    drop(db);
    let store = place.open();
    accept(&store, new(job(1), &[])).await;
    let removed = ended(job(1), 100, true);
    store.commit(removed.into(), Vec::new()).await.unwrap();
    assert_eq!(store.prune(at(1), at(200)).await.unwrap(), 0);
    assert_eq!(store.prune(at(201), at(201)).await.unwrap(), 1);
}

#[tokio::test]
async fn damage_is_noticed() {
    let place = filled(200).await;
    let mut bytes = fs::read(place.path()).unwrap();
    assert!(bytes.len() > 10 * 4096);
    for page in 2..9 {
        bytes[page * 4096..page * 4096 + 64].fill(0xAA);
    }
    fs::write(place.path(), bytes).unwrap();
    assert!(matches!(refuse(&place), OpenError::Damaged { .. }));
}

#[tokio::test]
async fn a_torn_tail_costs_nothing_but_itself() {
    let place = Place::new();
    let store = place.open();
    for n in 0..20 {
        accept(&store, new(job(n), &[])).await;
    }
    // What the disk could look like after losing power: the files of the moment, the last
    // transaction not whole.
    let torn = Place::new();
    for ending in ["", "-wal"] {
        let name = format!("offloader.db{ending}");
        fs::copy(place.dir.path().join(&name), torn.dir.path().join(&name)).unwrap();
    }
    let wal = torn.dir.path().join("offloader.db-wal");
    let file = OpenOptions::new().write(true).open(&wal).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1000).unwrap();
    let recovered = torn.open();
    for n in 0..19 {
        assert!(recovered.job(&id(n)).await.unwrap().is_some(), "{n}");
    }
    assert_eq!(recovered.job(&id(19)).await.unwrap(), None);
}

#[test]
fn a_creation_that_was_interrupted_is_begun_again() {
    // Power was lost before the first transaction: an empty file is all there is.
    let place = Place::new();
    fs::write(place.path(), b"").unwrap();
    assert!(try_open(&place).is_ok());
}
