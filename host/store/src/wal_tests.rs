#![expect(clippy::disallowed_methods, reason = "tests look at SQLite's files")]

use rusqlite::Connection;

use super::*;

const PAGE: usize = 4096;

/// The log of so many transactions, each of a page or more, as SQLite writes it.
fn log(transactions: u32) -> Vec<u8> {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("t.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    for n in 1..transactions {
        db.execute("INSERT INTO t VALUES (zeroblob(?1))", [n * 1000])
            .unwrap();
    }
    std::fs::read(path.with_extension("db-wal")).unwrap()
}

fn lost(log: &[u8]) -> Option<String> {
    damage(log).unwrap()
}

#[test]
fn what_sqlite_wrote_is_whole() {
    assert_eq!(lost(&log(10)), None);
    assert_eq!(lost(b""), None);
    assert_eq!(lost(&[0; 20_000]), None, "never written");
}

#[test]
fn a_log_may_end_anywhere_and_tear_in_its_last_transaction() {
    let log = log(10);
    for end in (0..log.len()).step_by(777) {
        assert_eq!(lost(&log[..end]), None, "cut at {end}");
    }
    let mut torn = log.clone();
    let last = torn.len() - PAGE / 2;
    torn[last] ^= 1;
    assert_eq!(lost(&torn), None);
}

#[test]
fn a_flipped_bit_before_the_last_transaction_is_noticed() {
    let log = log(10);
    let before_the_last = log.len() - 8 * (FRAME_HEADER + PAGE);
    for at in (0..before_the_last).step_by(251) {
        let mut flipped = log.clone();
        flipped[at] ^= 0x10;
        assert!(lost(&flipped).is_some(), "byte {at}");
    }
}

#[test]
fn what_is_left_of_an_earlier_round_is_no_loss() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("t.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    for _ in 0..20 {
        db.execute("INSERT INTO t VALUES (zeroblob(2000))", [])
            .unwrap();
    }
    let checkpoint = "PRAGMA wal_checkpoint(RESTART)";
    db.query_row(checkpoint, [], |_| Ok(())).unwrap();
    db.execute("INSERT INTO t VALUES (1)", []).unwrap();
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    assert!(log.len() > 15 * PAGE, "the earlier round is still there");
    assert_eq!(lost(&log), None);
}

/// The log of a store whose `failing` transactions could not be synced, each of so many pages, and
/// whose last one could. As SQLite does it: each is written from where the last good one ended,
/// which is told too.
fn log_with_failures(failing: &[u32], last: u32) -> (Vec<u8>, usize) {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let begun = Connection::open(path("begun.db")).unwrap();
    begun.pragma_update(None, "journal_mode", "WAL").unwrap();
    begun.execute_batch("CREATE TABLE t (x)").unwrap();
    let insert = |db: &Connection, pages: u32| {
        let blob = "INSERT INTO t VALUES (zeroblob(?1))";
        db.execute(blob, [pages * PAGE as u32]).unwrap();
    };
    for pages in [1, 3, 2] {
        insert(&begun, pages);
    }
    let mut log = std::fs::read(path("begun.db-wal")).unwrap();
    let good = log.len();
    for (n, pages) in failing.iter().chain([&last]).enumerate() {
        let name = format!("{n}.db");
        for ending in ["", "-wal"] {
            let from = path(&format!("begun.db{ending}"));
            std::fs::copy(from, path(&format!("{name}{ending}"))).unwrap();
        }
        let db = Connection::open(path(&name)).unwrap();
        insert(&db, *pages);
        let written = std::fs::read(path(&format!("{name}-wal"))).unwrap();
        assert!(written.len() > good && written[..good] == log[..good]);
        if log.len() < written.len() {
            log.resize(written.len(), 0);
        }
        log[..written.len()].copy_from_slice(&written);
    }
    (log, good)
}

#[test]
fn what_could_not_be_synced_was_never_there_to_be_lost() {
    for failing in [&[20][..], &[20, 10], &[20, 15, 10, 5], &[5, 20, 5, 10]] {
        let (log, _) = log_with_failures(failing, 2);
        assert_eq!(lost(&log), None, "{failing:?}");
    }
    // The last one may be torn too, and what was acknowledged before it may not.
    let (log, good) = log_with_failures(&[20, 15, 10], 5);
    for frame in 0..6 {
        let mut torn = log.clone();
        torn[good + frame * (FRAME_HEADER + PAGE) + 100] ^= 1;
        assert_eq!(lost(&torn), None, "frame {frame} of the last one");
    }
    let mut damaged = log.clone();
    damaged[good - 3 * (FRAME_HEADER + PAGE) + 100] ^= 1;
    assert!(lost(&damaged).is_some());
}

#[test]
fn what_is_damaged_everywhere_is_no_failure_to_sync() {
    let mut log = log(20);
    for frame in log[HEADER..].chunks_exact_mut(FRAME_HEADER + PAGE) {
        frame[FRAME_HEADER + 8] ^= 1;
    }
    assert!(lost(&log).is_some());
}
