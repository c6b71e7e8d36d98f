//! Putting a damaged database out of the way, whole, so that it can be looked at and a new one
//! begun.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use domain::Timestamp;

/// A damaged database that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now; what SQLite kept beside it is beside it still, under its new name.
    pub path: PathBuf,
    /// What is wrong with it, for people.
    pub detail: String,
}

/// The endings of a database and of what SQLite keeps beside it. The database goes first: what is
/// left of the rest when this is interrupted is damage that the next start sees.
const ENDINGS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Renames a database, and what is beside it, to a name with the time in it. Gives the new name.
#[expect(
    clippy::disallowed_methods,
    reason = "SQLite takes a path, so the files beside go by path too"
)]
pub(crate) fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let target = free_name(path, now);
    for ending in ENDINGS {
        match std::fs::rename(with(path, ending), with(&target, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // So that after a loss of power not half of them have their old names.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(target)
}

/// A name beside `path` that nothing has, such as `offloader-damaged-20261121T131500Z.db`.
fn free_name(path: &Path, now: Timestamp) -> PathBuf {
    let time = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    let time = time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let numbers = (1..).map(|n| {
        if n == 1 {
            String::new()
        } else {
            format!("-{n}")
        }
    });
    let mut names = numbers.map(|n| path.with_file_name(format!("{stem}-damaged-{time}{n}.db")));
    let free = |name: &PathBuf| ENDINGS.iter().all(|ending| !with(name, ending).exists());
    names.find(free).unwrap_or_default()
}

pub(crate) fn with(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}
