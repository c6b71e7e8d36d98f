//! Opening the database: only ours, only whole, only one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::failure::Failure;
use crate::jobs::{self, PastReading};
use crate::schema::{APPLICATION_ID, MIGRATIONS};
use crate::set_aside::{self, SetAside, with};
use crate::wal;

/// Why the store could not be opened. No record in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, or one beside it, cannot be created or written.
    #[error("the store {} cannot be written: {detail}", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// Another process has it open.
    #[error("the store {} is in use by another process", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// It is something else, or its beginning is destroyed.
    #[error("{} is no store of this service; it is left as it is", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error("the store {} has version {found}, and this program knows {known} at most: run the newer program again", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// It is ours, but not whole.
    #[error("the store {} is damaged: {detail}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found first.
        detail: String,
    },
    /// Something else failed.
    #[error("the store {} cannot be opened: {operation}: {detail}", path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What went wrong.
        detail: String,
    },
}

/// The opened database.
pub(crate) struct Opened {
    /// For the writer.
    pub(crate) writer: Connection,
    /// For the readers.
    pub(crate) readers: Vec<Connection>,
    /// Jobs that have something left to be done, and whose records make no sense.
    pub(crate) past_reading: Vec<PastReading>,
    /// Held as long as the database is open.
    pub(crate) lock: File,
}

/// How many reads may go on at once.
const READERS: usize = 2;

/// How long the log may grow before its pages are written to the database: 16 MB. Within that, a page
/// that changes often is written there once.
const LOG_PAGES: i64 = 4096;
const PAGE_BYTES: i64 = 4096;

/// Pages that SQLite keeps in memory per connection, in KiB; the system caches the file anyway.
const WRITER_CACHE_KIB: i64 = 2000;
const READER_CACHE_KIB: i64 = 512;

/// A database up to this size is checked through and through, which takes half a second at most.
/// Of a larger one only the structure is: an index that does not fit its table goes unnoticed.
const CHECKED_WHOLE_BYTES: i64 = 64 << 20;

pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
    let lock = lock(path)?;
    Ok(open_files(path)?.under(lock))
}

/// The same; a damaged database is set aside first.
pub(crate) fn open_or_set_aside(
    path: &Path,
    now: Timestamp,
) -> Result<(Opened, Option<SetAside>), OpenError> {
    let lock = lock(path)?;
    let detail = match open_files(path) {
        Ok(files) => return Ok((files.under(lock), None)),
        Err(OpenError::Damaged { detail, .. }) => detail,
        Err(error) => return Err(error),
    };
    let aside = set_aside::set_aside(path, now).map_err(|error| OpenError::Failed {
        path: path.into(),
        operation: "setting it aside, for it is damaged",
        detail: error.to_string(),
    })?;
    let set_aside = SetAside {
        path: aside,
        detail,
    };
    Ok((open_files(path)?.under(lock), Some(set_aside)))
}

/// A database that was opened under a lock.
struct Files {
    writer: Connection,
    ready: Ready,
}

/// What making a database ready brought.
struct Ready {
    readers: Vec<Connection>,
    past_reading: Vec<PastReading>,
}

impl Files {
    fn under(self, lock: File) -> Opened {
        let Ready {
            readers,
            past_reading,
        } = self.ready;
        Opened {
            writer: self.writer,
            readers,
            past_reading,
            lock,
        }
    }
}

fn open_files(path: &Path) -> Result<Files, OpenError> {
    recognize(path)?;
    let mut writer = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )
    .map_err(|error| explain_ours(path, "opening the file", &error))?;
    // What is damaged stays as it is: closing it must not tidy up.
    writer
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(|error| explain_ours(path, "opening the file", &error))?;
    let made_ready = make_ready(path, &mut writer);
    if !matches!(made_ready, Err(OpenError::Damaged { .. })) {
        writer
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(|error| explain_ours(path, "opening the file", &error))?;
    }
    Ok(Files {
        writer,
        ready: made_ready?,
    })
}

/// Checks the database, brings its tables up to date, and opens it for reading too.
fn make_ready(path: &Path, writer: &mut Connection) -> Result<Ready, OpenError> {
    if writer.is_readonly("main").unwrap_or(true) {
        return Err(OpenError::NotWritable {
            path: path.into(),
            detail: "it may only be read".into(),
        });
    }
    check(path, writer)?;
    prepare(writer)
        .map_err(|error| explain_ours(path, "bringing the tables up to date", &error))?;
    let past_reading = read_unfinished(path, writer)?;
    // What is written from now on is elsewhere than what was checked.
    let _ = writer.release_memory();
    let readers = (0..READERS)
        .map(|_| {
            let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            reader.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
            Ok(reader)
        })
        .collect::<rusqlite::Result<_>>()
        .map_err(|error| explain_ours(path, "opening it for reading", &error))?;
    Ok(Ready {
        readers,
        past_reading,
    })
}

/// Keeps other processes out. The lock is on a file of its own: closing a second handle on the
/// database would drop SQLite's own locks.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = path.with_extension("lock");
    let not_writable = |error: io::Error| OpenError::NotWritable {
        path: lock_path.clone(),
        detail: error.to_string(),
    };
    let file = open_or_create(&lock_path).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(not_writable(error)),
    }
}

/// Looks at the file before SQLite does, which could change it. Creates it, for its owner only,
/// where there is none; the files beside it get the same mode from SQLite.
fn recognize(path: &Path) -> Result<(), OpenError> {
    const HEADER: usize = 100;
    const MAGIC: &[u8] = b"SQLite format 3\0";
    const APPLICATION_ID_AT: usize = 68;
    let not_writable = |error: io::Error| OpenError::NotWritable {
        path: path.into(),
        detail: error.to_string(),
    };
    let file = open_or_create(path).map_err(not_writable)?;
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64)
        .read_to_end(&mut header)
        .map_err(not_writable)?;
    if header.is_empty() || with(path, "-journal").exists() {
        // SQLite would take an empty database for a new one, and throw the log of the old one away.
        return match log_damage(path, header.is_empty()).map_err(not_writable)? {
            Some(detail) => Err(OpenError::Damaged {
                path: path.into(),
                detail,
            }),
            None => Ok(()),
        };
    }
    // What a disk gives back for a sector that it lost.
    if header.iter().all(|byte| *byte == 0) {
        return Err(OpenError::Damaged {
            path: path.into(),
            detail: "its beginning is all zeros".into(),
        });
    }
    let ours = header.starts_with(MAGIC)
        && header.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4)
            == Some(&APPLICATION_ID.to_be_bytes());
    if !ours {
        return Err(OpenError::Foreign { path: path.into() });
    }
    match log_damage(path, false).map_err(not_writable)? {
        Some(detail) => Err(OpenError::Damaged {
            path: path.into(),
            detail,
        }),
        None => Ok(()),
    }
}

/// What is wrong with the write-ahead log beside a database, if there is one.
#[expect(
    clippy::disallowed_methods,
    reason = "SQLite takes a path, so the files beside go by path too"
)]
fn log_damage(path: &Path, no_database: bool) -> io::Result<Option<String>> {
    let log = match File::open(with(path, "-wal")) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if no_database && log.metadata()?.len() > 0 {
        return Ok(Some(
            "it is empty, and its write-ahead log is not".to_owned(),
        ));
    }
    wal::damage(BufReader::with_capacity(1 << 16, log))
}

#[expect(
    clippy::disallowed_methods,
    reason = "SQLite takes a path, so the files beside go by path too"
)]
fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

pub(crate) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(64);
    // A plan that looked at a bound value would be made anew for every other value.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(db)
}

/// Refuses what is foreign, newer or damaged.
fn check(path: &Path, db: &Connection) -> Result<(), OpenError> {
    let read =
        |pragma: &str| db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let failed = |error| explain_ours(path, "looking at it", &error);
    let application = read("application_id").map_err(failed)?;
    let found = read("user_version").map_err(failed)?;
    let empty = found == 0 && application == 0 && read("page_count").map_err(failed)? == 0;
    if application != i64::from(APPLICATION_ID) && !empty {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(OpenError::Newer {
            path: path.into(),
            found,
            known,
        });
    }
    let bytes = read("page_count").map_err(failed)? * read("page_size").map_err(failed)?;
    let check = if bytes <= CHECKED_WHOLE_BYTES {
        "PRAGMA integrity_check(1)"
    } else {
        "PRAGMA quick_check(1)"
    };
    let verdict: String = db.query_row(check, [], |row| row.get(0)).map_err(failed)?;
    match verdict.as_str() {
        "ok" => Ok(()),
        // A page that the disk did not give says nothing about what is on it.
        unread if unread.contains("error code=") => Err(OpenError::Failed {
            path: path.into(),
            operation: "looking at it",
            detail: verdict,
        }),
        _ => Err(OpenError::Damaged {
            path: path.into(),
            detail: verdict,
        }),
    }
}

/// Reads every job that has something left to be done. A record that makes no sense in a database
/// that is whole is one job's trouble; what cannot be read at all is damage.
fn read_unfinished(path: &Path, db: &Connection) -> Result<Vec<PastReading>, OpenError> {
    jobs::past_reading(db).map_err(|failure| {
        let damaged = || OpenError::Damaged {
            path: path.into(),
            detail: failure.to_string(),
        };
        match &failure {
            // A disk that does not give it, or want of memory, says nothing about what is on it.
            Failure::Sql(error) => match error.sqlite_error_code() {
                // The tables are those of this version, so a statement that does not fit them, or
                // a value of another type, means that something is spoilt.
                None | Some(ErrorCode::Unknown) => damaged(),
                Some(_) => explain_ours(path, "reading unfinished jobs", error),
            },
            _ => damaged(),
        }
    })
}

/// Settings of the connection and migrations. A new file gets its tables while it still has a
/// rollback journal, so that its header tells from the first moment on whose it is.
fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // What a savepoint may have to put back is small, and would go through a file otherwise.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(0);
    if done < MIGRATIONS.len() {
        let migration = Transaction::new(db, TransactionBehavior::Immediate)?;
        for step in &MIGRATIONS[done..] {
            migration.execute_batch(step)?;
        }
        migration.pragma_update(None, "application_id", APPLICATION_ID)?;
        migration.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        migration.commit()?;
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    db.pragma_update(None, "journal_size_limit", LOG_PAGES * PAGE_BYTES)
}

/// What an error means, of a file whose beginning says that it is ours.
fn explain_ours(path: &Path, operation: &'static str, error: &rusqlite::Error) -> OpenError {
    match explain(path, operation, error) {
        OpenError::Foreign { path } => OpenError::Damaged {
            path,
            detail: error.to_string(),
        },
        known => known,
    }
}

pub(crate) fn explain(path: &Path, operation: &'static str, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_path_buf(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, detail },
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::DiskFull,
        ) => OpenError::NotWritable { path, detail },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        _ => OpenError::Failed {
            path,
            operation,
            detail,
        },
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests prepare files")]
#[path = "open_tests.rs"]
mod tests;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests spoil files")]
#[path = "damage_tests.rs"]
mod damage_tests;
