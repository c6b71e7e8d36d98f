//! Opening the database: only ours, only whole, only one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::schema::{APPLICATION_ID, MIGRATIONS};

/// Why the store could not be opened. Nothing in it was changed.
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
        /// What the integrity check found first.
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
    /// Held as long as the database is open.
    pub(crate) lock: File,
}

/// How many reads may go on at once.
const READERS: usize = 2;

/// Pages that SQLite keeps in memory per connection, in KiB; the system caches the file anyway.
const WRITER_CACHE_KIB: i64 = 2000;
const READER_CACHE_KIB: i64 = 512;

pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
    let lock = lock(path)?;
    recognize(path)?;
    let mut writer = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )
    .map_err(|error| explain(path, "opening the file", &error))?;
    if writer.is_readonly("main").unwrap_or(true) {
        return Err(OpenError::NotWritable {
            path: path.into(),
            detail: "it may only be read".into(),
        });
    }
    check(path, &writer)?;
    prepare(&mut writer)
        .map_err(|error| explain(path, "bringing the tables up to date", &error))?;
    let readers = (0..READERS)
        .map(|_| {
            let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            reader.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
            Ok(reader)
        })
        .collect::<rusqlite::Result<_>>()
        .map_err(|error| explain(path, "opening it for reading", &error))?;
    Ok(Opened {
        writer,
        readers,
        lock,
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
    let interrupted_creation = PathBuf::from(format!("{}-journal", path.display()));
    if header.is_empty() || interrupted_creation.exists() {
        return Ok(());
    }
    let ours = header.starts_with(MAGIC)
        && header.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4)
            == Some(&APPLICATION_ID.to_be_bytes());
    if ours {
        Ok(())
    } else {
        Err(OpenError::Foreign { path: path.into() })
    }
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
    let failed = |error| explain(path, "looking at it", &error);
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
    let verdict: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if verdict != "ok" {
        return Err(OpenError::Damaged {
            path: path.into(),
            detail: verdict,
        });
    }
    Ok(())
}

/// Settings of the connection and migrations. A new file gets its tables while it still has a
/// rollback journal, so that its header tells from the first moment on whose it is.
fn prepare(db: &mut Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
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
    db.pragma_update(None, "journal_size_limit", 16 << 20)
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
