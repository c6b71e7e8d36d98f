//! What is on disk of jobs: a directory each, with `created`, which tells of the job and is called
//! `started` once it ran, and with `data/` and `output` from when the job first needs them. Of what a
//! small job costs, making and removing files is the most: that is also why the directory of a job
//! that left nothing is put by, as `spare-NUMBER`, for one to come.
//!
//! None of it is synced: a job costs no wait for the disk. What a crash of the machine may take, of
//! jobs of its last seconds alone, is never more than it leaves. Without `started` a job that left
//! data still ran; one whose directory does not tell of it is not taken up when the store is lost
//! too, and is left alone.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::{Dir, File, OpenOptions};
use domain::Leftovers;
use gate::ContainerName;
use rustix::fs::fstatvfs;

use crate::about::About;
use crate::tree::{self, Size};

const DATA: &str = "data";
const OUTPUT: &str = "output";
const CREATED: &str = "created";
const STARTED: &str = "started";

/// What the directories that are put by are called, before their numbers.
const SPARE: &str = "spare-";
/// As many directories are put by at most.
const SPARES: usize = 256;

/// The directories of jobs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk {
    jobs: Arc<Dir>,
    spares: Arc<Mutex<Spares>>,
}

/// The numbers of the directories that are put by.
struct Spares {
    free: Vec<u64>,
    last: u64,
}

impl Disk {
    /// Looks for directories that were put by earlier; without those it makes new ones.
    pub(crate) fn new(jobs: Dir) -> Self {
        let entries = jobs.entries().into_iter().flatten().flatten();
        let number = |name: &str| name.strip_prefix(SPARE)?.parse().ok();
        let free: Vec<u64> = entries
            .filter_map(|entry| number(entry.file_name().to_str()?))
            .collect();
        let last = free.iter().max().copied().unwrap_or_default();
        Self {
            jobs: Arc::new(jobs),
            spares: Arc::new(Mutex::new(Spares { free, last })),
        }
    }

    /// Makes the directory of a job; one of a job that never ran is taken. `None` when it ran.
    pub(crate) fn make(&self, name: &ContainerName, about: &About) -> io::Result<Option<Home>> {
        let (path, about) = (name.to_string(), about.to_json());
        let dir = match unless_missing(self.jobs.open_dir(&path))? {
            Some(dir) if ran(&dir)? => return Ok(None),
            Some(dir) => dir,
            None => match self.take_spare(&path, &about) {
                Some(dir) => return Ok(Some(Home::of(dir))),
                None => {
                    self.jobs.create_dir(&path)?;
                    self.jobs.open_dir(&path)?
                }
            },
        };
        tell(&dir, &about)?;
        Ok(Some(Home::of(dir)))
    }

    /// Gives a job a directory that was put by; `None` when there is none that will do.
    fn take_spare(&self, path: &str, about: &[u8]) -> Option<Dir> {
        let number = self.spares().free.pop()?;
        let spare = format!("{SPARE}{number}");
        let take = || {
            let dir = self.jobs.open_dir(&spare)?;
            unless_missing(dir.rename(STARTED, &dir, CREATED))?;
            tell(&dir, about)?;
            self.jobs.rename(&spare, &self.jobs, path)?;
            Ok::<_, io::Error>(dir)
        };
        take().ok()
    }

    /// Puts by the directory of a job, which is gone with that; false when there is something in it
    /// but what tells of the job.
    fn put_by(&self, path: &str, dir: &Dir) -> io::Result<bool> {
        let mut spares = self.spares();
        if spares.free.len() >= SPARES {
            return Ok(false);
        }
        for entry in dir.entries()? {
            let name = entry?.file_name();
            if name != CREATED && name != STARTED {
                return Ok(false);
            }
        }
        let number = spares.last + 1;
        self.jobs
            .rename(path, &self.jobs, format!("{SPARE}{number}"))?;
        spares.last = number;
        spares.free.push(number);
        Ok(true)
    }

    /// Nobody who holds this sees a job's directory put by.
    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self, name: &ContainerName) -> io::Result<Option<Home>> {
        let dir = unless_missing(self.jobs.open_dir(name.to_string()))?;
        Ok(dir.map(Home::of))
    }

    /// What there is of a job.
    pub(crate) fn trace(&self, name: &ContainerName) -> io::Result<Trace> {
        Ok(
            match unless_missing(self.jobs.open_dir(name.to_string()))? {
                None => Trace::Nothing,
                Some(dir) if ran(&dir)? => Trace::Ran,
                Some(_) => Trace::Created,
            },
        )
    }

    /// What a job's directory tells of it, and whether it ran; `None` when it does not tell.
    pub(crate) fn about(&self, name: &ContainerName) -> io::Result<Option<(About, bool)>> {
        let Some(dir) = unless_missing(self.jobs.open_dir(name.to_string()))? else {
            return Ok(None);
        };
        for file in [STARTED, CREATED] {
            if let Some(json) = unless_missing(dir.read(file))? {
                let ran = ran(&dir)?;
                return Ok(About::from_json(&json).map(|about| (about, ran)));
            }
        }
        Ok(None)
    }

    /// A job's output, to read.
    pub(crate) fn output(&self, name: &ContainerName) -> io::Result<Option<File>> {
        let _held = self.spares();
        self.home(name)?.map(|home| home.output()).transpose()
    }

    /// A job's data, to read; `None` when there is no such job.
    pub(crate) fn data(&self, name: &ContainerName) -> io::Result<Option<Dir>> {
        let _held = self.spares();
        self.home(name)?.map(|home| home.data()).transpose()
    }

    /// What is in a job's data; `None` when there is no such job.
    pub(crate) fn leftovers(&self, name: &ContainerName) -> io::Result<Option<Leftovers>> {
        let home = self.home(name)?;
        home.map(|home| home.size(u64::MAX).map(|size| size.files))
            .transpose()
    }

    /// Removes all of a job: last what tells that there was one.
    pub(crate) fn remove(&self, name: &ContainerName) -> io::Result<()> {
        let path = name.to_string();
        let Some(dir) = unless_missing(self.jobs.open_dir(&path))? else {
            return Ok(());
        };
        if let Some(data) = unless_missing(dir.open_dir(DATA))? {
            tree::clear(&data)?;
        } else if self.put_by(&path, &dir)? {
            return Ok(());
        }
        tree::clear(&dir)?;
        unless_missing(self.jobs.remove_dir(&path)).map(drop)
    }

    /// Bytes that jobs can still write.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let disk = fstatvfs(&*self.jobs)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Every job that there is anything of.
    pub(crate) fn list(&self) -> io::Result<Vec<ContainerName>> {
        let mut names = Vec::new();
        for entry in self.jobs.entries()? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(ContainerName::parse));
        }
        Ok(names)
    }
}

/// A job's directory. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Home(Arc<Opened>);

struct Opened {
    dir: Dir,
    /// Whether the job was given its data by this.
    data_given: AtomicBool,
}

impl Home {
    fn of(dir: Dir) -> Self {
        Self(Arc::new(Opened {
            dir,
            data_given: AtomicBool::new(false),
        }))
    }

    /// Whether the job may have written data since this was made for it.
    pub(crate) fn data_given(&self) -> bool {
        self.0.data_given.load(Relaxed)
    }

    /// Notes that the job runs from now on.
    pub(crate) fn mark_started(&self) -> io::Result<()> {
        self.0.dir.rename(CREATED, &self.0.dir, STARTED)
    }

    /// Where the job has its data.
    pub(crate) fn data(&self) -> io::Result<Dir> {
        self.0.data_given.store(true, Relaxed);
        made(self.0.dir.create_dir(DATA))?;
        self.0.dir.open_dir(DATA)
    }

    /// Where the job's output goes, to read it and to write on.
    pub(crate) fn output(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true);
        self.0.dir.open_with(OUTPUT, &options)
    }

    /// What is in the job's data. Stops counting once more than `enough` bytes are on disk.
    pub(crate) fn size(&self, enough: u64) -> io::Result<Size> {
        match unless_missing(self.0.dir.open_dir(DATA))? {
            Some(data) => tree::size(data, enough),
            None => Ok(Size::default()),
        }
    }
}

/// How far a job came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Nothing,
    Created,
    Ran,
}

/// Writes what tells of a job, over what told of another. A file that is made empty first is
/// written to the disk as soon as it is closed, for which a start would wait.
fn tell(dir: &Dir, about: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    let mut file = dir.open_with(CREATED, &options)?;
    file.write_all(about)?;
    let bytes = about.len() as u64;
    match file.metadata()?.len() {
        len if len == bytes => Ok(()),
        _ => file.set_len(bytes),
    }
}

/// Whether the job of a directory ran: it was noted, or it left something.
fn ran(dir: &Dir) -> io::Result<bool> {
    if dir.try_exists(STARTED)? {
        return Ok(true);
    }
    let data = unless_missing(dir.read_dir(DATA))?;
    Ok(data.is_some_and(|mut data| data.next().is_some()))
}

/// Also what was there before is made.
fn made(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
