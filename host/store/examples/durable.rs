//! How many jobs a second SQLite can save on this disk, whatever else a service does: the floor of
//! `cargo xtask bench rate`.
//!
//! `durable FILE JOBS GROUP`: each job is one row of the size of a job's record, inserted and then
//! changed three times; the same step of GROUP jobs is one transaction, synced as the store syncs its
//! own. Prints JSON. The file must not be there before.

use std::path::PathBuf;
use std::time::Instant;

use rusqlite::Connection;

/// Saves of a job after it was accepted as starting: running, removing, removed.
const CHANGES: u32 = 3;
/// About what the rows of a job hold: the submission's fields, its inputs, an attempt.
const RECORD: usize = 900;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("FILE JOBS GROUP are needed");
    let (file, jobs, group): (PathBuf, u32, u32) =
        (next()?.into(), next()?.parse()?, next()?.parse()?);
    let db = Connection::open(&file)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch("CREATE TABLE jobs (seq INTEGER PRIMARY KEY, state INTEGER, record TEXT)")?;
    let record = "x".repeat(RECORD);
    let mut transactions = 0;
    let begin = Instant::now();
    for first in (0..jobs).step_by(group as usize) {
        let group = first..jobs.min(first + group);
        for step in 0..=CHANGES {
            let transaction = db.unchecked_transaction()?;
            for job in group.clone() {
                if step == 0 {
                    db.prepare_cached("INSERT INTO jobs VALUES (?1, ?2, ?3)")?
                        .execute((job, step, &record))?;
                } else {
                    db.prepare_cached("UPDATE jobs SET state = ?2 WHERE seq = ?1")?
                        .execute((job, step))?;
                }
            }
            transaction.commit()?;
            transactions += 1;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "per_second": jobs as f64 / seconds,
            "transactions_per_second": f64::from(transactions) / seconds,
        })
    );
    Ok(())
}
