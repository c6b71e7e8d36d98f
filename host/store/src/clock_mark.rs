//! Where the service's time is kept from one start to the next.

use std::time::Duration;

use domain::{ClockMark, ClockReading, Timestamp, Uptime};
use rusqlite::{Connection, OptionalExtension};

use crate::failure::Failure;
use crate::record::clamp;

/// The last mark that was kept.
pub(crate) fn read(db: &Connection) -> Result<Option<ClockMark>, Failure> {
    let mark = db
        .prepare_cached("SELECT time, wall, boot, uptime_ms FROM clock_mark")?
        .query_row([], |row| {
            let boot: Option<String> = row.get(2)?;
            let uptime: Option<i64> = row.get(3)?;
            let uptime = boot.zip(uptime).map(|(boot, millis)| Uptime {
                boot,
                elapsed: Duration::from_millis(u64::try_from(millis).unwrap_or(0)),
            });
            Ok(ClockMark {
                time: Timestamp::from_millis(row.get(0)?),
                read: ClockReading {
                    wall: Timestamp::from_millis(row.get(1)?),
                    uptime,
                },
            })
        });
    Ok(mark.optional()?)
}

/// Keeps a mark in place of the last one.
pub(crate) fn save(db: &Connection, mark: &ClockMark) -> Result<(), Failure> {
    let uptime = mark.read.uptime.as_ref();
    db.prepare_cached(
        "INSERT OR REPLACE INTO clock_mark (id, time, wall, boot, uptime_ms) VALUES (1, ?1, ?2, ?3, ?4)",
    )?
    .execute((
        mark.time.as_millis(),
        mark.read.wall.as_millis(),
        uptime.map(|uptime| uptime.boot.as_str()),
        uptime.map(|uptime| clamp(uptime.elapsed.as_millis().try_into().unwrap_or(u64::MAX))),
    ))?;
    Ok(())
}
