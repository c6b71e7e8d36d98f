use std::sync::Arc;
use std::time::Duration;

use super::*;

fn writer() -> Writer {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY); CREATE TABLE probe (filler BLOB)")
        .unwrap();
    Writer::start(db).unwrap()
}

fn insert(db: &Connection, n: i64) -> Result<(), Failure> {
    db.execute("INSERT INTO t VALUES (?1)", [n])?;
    Ok(())
}

async fn all(writer: &Writer) -> Vec<i64> {
    let read = |db: &Connection| -> Result<Vec<i64>, Failure> {
        let mut statement = db.prepare("SELECT n FROM t ORDER BY n")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    writer.write(read).await.unwrap()
}

type Work<T> = Box<dyn FnOnce(&Connection) -> Result<T, Failure> + Send>;

/// Holds the writer up until all of `writes` are queued, so that they share a transaction.
async fn together<T: Send + 'static>(
    writer: &Arc<Writer>,
    writes: Vec<Work<T>>,
) -> Vec<Result<T, Failure>> {
    let (release, held) = mpsc::channel::<()>();
    let slow = tokio::spawn({
        let writer = writer.clone();
        async move { writer.write(move |_| Ok(held.recv().is_err())).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let queued: Vec<_> = writes
        .into_iter()
        .map(|write| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.write(write).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(release);
    slow.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for write in queued {
        answers.push(write.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_write_that_fails_takes_no_other_of_its_group_with_it() {
    let writer = Arc::new(writer());
    let answers = together(
        &writer,
        vec![
            Box::new(|db| insert(db, 1)),
            Box::new(|db| insert(db, 2).and_then(|()| Err(Failure::NoSuchJob))),
            Box::new(|db| insert(db, 3)),
            Box::new(|db| insert(db, 4).and_then(|()| insert(db, 3))),
            Box::new(|db| insert(db, 5)),
        ],
    )
    .await;
    let worked: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(worked, [true, false, true, false, true]);
    assert_eq!(all(&writer).await, [1, 3, 5]);
}

#[tokio::test]
async fn when_the_transaction_is_lost_every_write_of_it_hears_so() {
    let writer = Arc::new(writer());
    let answers = together(
        &writer,
        vec![
            Box::new(|db| insert(db, 1)),
            // What a full disk or a failing one does.
            Box::new(|db| {
                db.execute_batch("ROLLBACK")?;
                Err(Failure::NoSuchJob)
            }),
            Box::new(|db| insert(db, 2)),
        ],
    )
    .await;
    assert!(matches!(&answers[0], Err(Failure::NotCommitted(_))));
    assert!(matches!(&answers[1], Err(Failure::NoSuchJob)));
    assert!(matches!(&answers[2], Err(Failure::NotCommitted(_))));
    assert_eq!(all(&writer).await, [0; 0]);
    writer.write(|db| insert(db, 9)).await.unwrap();
    assert_eq!(all(&writer).await, [9]);
}

#[tokio::test]
async fn dropping_the_writer_waits_for_what_was_asked() {
    let place = tempfile::TempDir::new().unwrap();
    let path = place.path().join("t.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        .unwrap();
    let writer = Writer::start(db).unwrap();
    for n in 0..100 {
        let mut write = Box::pin(writer.write(move |db| insert(db, n)));
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let _ = write.as_mut().poll(context);
    }
    drop(writer);
    let db = Connection::open(&path).unwrap();
    assert_eq!(
        db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
            .unwrap(),
        100
    );
}

/// What a write of more than the disk holds comes to.
fn full(_: &Connection) -> Result<(), Failure> {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    Err(rusqlite::Error::SqliteFailure(code, None).into())
}

#[tokio::test]
async fn what_the_file_does_not_take_is_told_until_it_takes_something() {
    let writer = writer();
    assert_eq!(writer.trouble(), None);
    // A write that has itself to blame says nothing about the others.
    writer.write(|db| insert(db, 1)).await.unwrap();
    writer.write(|db| insert(db, 1)).await.unwrap_err();
    assert_eq!(writer.trouble(), None);

    writer.write(full).await.unwrap_err();
    assert!(writer.trouble().unwrap().contains("full"));
    writer.write(|db| insert(db, 2)).await.unwrap();
    assert_eq!(writer.trouble(), None);
}

#[tokio::test]
async fn nobody_has_to_write_for_the_trouble_to_end() {
    let writer = writer();
    writer.write(full).await.unwrap_err();
    assert!(writer.trouble().is_some());
    tokio::time::sleep(LOOK_AGAIN + Duration::from_secs(1)).await;
    assert_eq!(writer.trouble(), None);
}

#[test]
fn a_probe_finds_out_each_time_whether_there_is_room() {
    let place = crate::testing::Place::new();
    drop(place.open());
    let db = Connection::open(place.path()).unwrap();
    let probe = || run_all(&db, &mut [Box::new(Write::probe())]);
    let limit = |pages: i64| db.pragma_update(None, "max_page_count", pages).unwrap();
    limit(1);
    let full = probe().unwrap_or_else(Some).unwrap();
    assert!(full.contains("full"), "{full}");
    limit(1 << 30);
    let wal = place.path().with_extension("db-wal");
    let mut before = 0;
    for _ in 0..3 {
        assert_eq!(probe(), Ok(None));
        let after = wal.metadata().unwrap().len();
        assert!(after >= before + 65_536, "{after}");
        before = after;
    }
}
