//! What is on disk of jobs: a directory each, with `data/`, `output`, and `started` once it ran.

use std::io;
use std::sync::Arc;

use cap_std::fs::{Dir, File, OpenOptions};
use domain::{Leftovers, Timestamp};
use gate::ContainerName;
use rustix::fs::fstatvfs;

const DATA: &str = "data";
const OUTPUT: &str = "output";
const STARTED: &str = "started";

/// The directories of jobs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Dir>);

impl Disk {
    pub(crate) fn new(jobs: Dir) -> Self {
        Self(Arc::new(jobs))
    }

    /// Makes a job's directory; one that is there already is taken.
    pub(crate) fn make(&self, name: &ContainerName) -> io::Result<(Dir, File)> {
        let path = name.to_string();
        let fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        fine(self.0.create_dir(&path))?;
        let dir = self.0.open_dir(&path)?;
        fine(dir.create_dir(DATA))?;
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        Ok((dir.open_dir(DATA)?, dir.open_with(OUTPUT, &options)?))
    }

    /// Notes that a job runs from now on.
    pub(crate) fn mark_started(&self, name: &ContainerName, at: Timestamp) -> io::Result<()> {
        self.0
            .write(format!("{name}/{STARTED}"), at.as_millis().to_string())
    }

    /// Whether there is anything of a job.
    pub(crate) fn has(&self, name: &ContainerName) -> bool {
        self.0.is_dir(name.to_string())
    }

    /// Since when a job ran, if it ever did.
    pub(crate) fn started(&self, name: &ContainerName) -> io::Result<Option<Timestamp>> {
        match self.0.read_to_string(format!("{name}/{STARTED}")) {
            Ok(millis) => Ok(Some(Timestamp::from_millis(millis.parse().unwrap_or(0)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A job's output, to read.
    pub(crate) fn output(&self, name: &ContainerName) -> io::Result<Option<File>> {
        match self.0.open(format!("{name}/{OUTPUT}")) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is in a job's data; `None` when there is no such job.
    pub(crate) fn leftovers(&self, name: &ContainerName) -> io::Result<Option<Leftovers>> {
        match self.0.open_dir(format!("{name}/{DATA}")) {
            Ok(data) => count(&data).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes all of a job.
    pub(crate) fn remove(&self, name: &ContainerName) -> io::Result<()> {
        match self.0.remove_dir_all(name.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Bytes that jobs can still write.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let disk = fstatvfs(&*self.0)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Every job that there is anything of.
    pub(crate) fn list(&self) -> io::Result<Vec<ContainerName>> {
        let mut names = Vec::new();
        for entry in self.0.entries()? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(ContainerName::parse));
        }
        Ok(names)
    }
}

/// How deep directories are looked into. Nobody who works goes deeper, and each level takes a
/// file descriptor of the service.
const DEPTH_MAX: usize = 64;

/// Sums up regular files; links are not followed.
///
/// # Errors
/// Also when directories are nested deeper than [`DEPTH_MAX`].
pub(crate) fn count(dir: &Dir) -> io::Result<Leftovers> {
    let mut left = Leftovers {
        media_bytes: 0,
        total_bytes: 0,
    };
    add_up(dir, 0, &mut left)?;
    Ok(left)
}

fn add_up(dir: &Dir, depth: usize, left: &mut Leftovers) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "directories are nested deeper than {DEPTH_MAX}"
        )));
    }
    for entry in dir.entries()? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            add_up(&entry.open_dir()?, depth + 1, left)?;
        } else if kind.is_file() {
            let bytes = entry.metadata()?.len();
            left.total_bytes = left.total_bytes.saturating_add(bytes);
            let name = entry.file_name();
            if name
                .to_string_lossy()
                .to_ascii_lowercase()
                .ends_with(".mp4")
            {
                left.media_bytes = left.media_bytes.saturating_add(bytes.max(1));
            }
        }
    }
    Ok(())
}
