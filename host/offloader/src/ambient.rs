//! The one place that reaches the machine by itself: paths, environment, the clock on the wall.
//!
//! Everything else is handed what was opened here.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the place that owns ambient authority"
)]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use domain::{ClockReading, Timestamp, Uptime};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Environment;

/// The environment as it is now.
pub(crate) fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The text of a file.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// The directory that a file is in, and its name there; links on the way are followed.
pub(crate) fn open_beside(path: &Path) -> io::Result<(Dir, String)> {
    let path = std::fs::canonicalize(path)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(dir), Some(name)) = (path.parent(), name) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    Ok((open_dir(dir)?, name.to_owned()))
}

/// The path of something that is there, without links.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

/// Lets this process open as many files as the machine allows it: each connection, each job that is
/// watched and each file of a policy takes one, and the usual limit is meant for programs of old.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// A directory that is there.
pub(crate) fn open_dir(path: &Path) -> io::Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority())
}

/// A directory, made with what is missing above it; what is made is for this user alone.
pub(crate) fn make_dir(path: &Path) -> io::Result<Dir> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    open_dir(path)
}

/// A file to write on at its end, made if it is missing, for this user and group to read.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// A new file to write, for this user alone to read. One that is there goes if it is to be replaced,
/// and else is an error.
pub(crate) fn create_private(path: &Path, replace: bool) -> io::Result<File> {
    if replace
        && let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Whether a path leads to anything.
pub(crate) fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Gives a file another name, also one that another file has.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// What the process uses of the machine.
pub(crate) struct Process {
    /// Bytes of its memory that are in RAM.
    pub(crate) resident_bytes: u64,
    /// Its open files and sockets.
    pub(crate) open_files: u32,
}

/// What this process uses; `None` where the system does not tell.
pub(crate) fn process() -> Option<Process> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?;
        value.trim().parse::<u64>().ok()
    })?;
    // The directory itself is open while it is read.
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() - 1;
    Some(Process {
        resident_bytes: kilobytes * 1024,
        open_files: u32::try_from(open).unwrap_or(u32::MAX),
    })
}

/// Bytes that are free, for this user, on the disk of a path.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// What the machine's clocks say now.
pub(crate) fn clocks() -> ClockReading {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(uptime.tv_nsec).unwrap_or(0);
    ClockReading {
        wall: wall_clock(),
        uptime: boot.ok().map(|boot| Uptime {
            boot: boot.trim().to_owned(),
            elapsed: Duration::new(seconds, nanos),
        }),
    }
}

/// The time on the wall.
pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(0).plus(since)
}
