//! Directory trees of jobs, which may be as deep and as wide as their disk allows: looked at and
//! removed with a handful of file descriptors, without recursion, without a list of what is there,
//! and without following links.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use domain::Leftovers;
use rustix::fs::{
    AtFlags, Dir, DirEntry, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// Bytes that a file or directory counts for at least against a limit: the disk has to keep it
/// even when it is empty.
const LEAST: u64 = 4 << 10;

/// What a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Regular files, by their lengths.
    pub(crate) files: Leftovers,
    /// Bytes to hold against a limit.
    pub(crate) on_disk: u64,
}

impl Default for Size {
    /// That of a tree without anything in it.
    fn default() -> Self {
        let files = Leftovers {
            media_bytes: 0,
            total_bytes: 0,
        };
        Self { files, on_disk: 0 }
    }
}

/// Sums up what is below a directory. Stops counting once more than `enough` bytes are on disk.
///
/// # Errors
/// Also when directories are moved while they are looked at.
pub(crate) fn size(dir: impl AsFd, enough: u64) -> io::Result<Size> {
    let mut size = Size::default();
    walk(
        dir,
        |Entry {
             parent, name, kind, ..
         }| {
            let bytes = match kind {
                FileType::RegularFile => match stat(parent, name)? {
                    Some(stat) => u64::try_from(stat.st_size).unwrap_or(0),
                    None => return Ok(true),
                },
                _ => 0,
            };
            size.on_disk = size.on_disk.saturating_add(bytes.max(LEAST));
            if kind == FileType::RegularFile {
                size.files.add(name.to_bytes(), bytes);
            }
            Ok(size.on_disk <= enough)
        },
    )?;
    Ok(size)
}

/// Something in a tree.
pub(crate) struct Entry<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
    pub(crate) kind: FileType,
    /// From the top on, with its name.
    pub(crate) path: &'a [u8],
}

/// A directory above the one that is being read.
struct Above {
    id: (u64, u64),
    /// Where reading it goes on.
    position: i64,
    /// Bytes of its path.
    path_len: usize,
}

/// Shows everything below a directory, each directory before what is in it, until `visit` says
/// false. Takes memory only for how deep it is, and little of it.
///
/// # Errors
/// Those of `visit`, and when directories are moved meanwhile.
pub(crate) fn walk(
    top: impl AsFd,
    mut visit: impl FnMut(Entry<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let mut here = Dir::new(open(top.as_fd(), c".")?)?;
    let mut path = Vec::new();
    let mut above: Vec<Above> = Vec::new();
    loop {
        if let Some(entry) = next(&mut here)? {
            let (parent, name) = (here.fd()?, entry.file_name());
            let Some(kind) = kind(parent, &entry)? else {
                continue;
            };
            let path_len = path.len();
            if path_len > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let shown = Entry {
                parent,
                name,
                kind,
                path: &path,
            };
            if !visit(shown)? {
                return Ok(());
            }
            if kind == FileType::Directory
                && let Some(below) = unless_gone(open(parent, name))?
            {
                above.push(Above {
                    id: id(parent)?,
                    position: entry.offset(),
                    path_len,
                });
                here = Dir::new(below)?;
            } else {
                path.truncate(path_len);
            }
        } else if let Some(up) = above.pop() {
            let parent = open(here.fd()?, c"..")?;
            // Moved elsewhere meanwhile, its parent could be anything.
            if id(parent.as_fd())? != up.id {
                let why = "a directory was moved while it was looked at";
                return Err(io::Error::other(why));
            }
            here = Dir::new(parent)?;
            here.seek(up.position)?;
            path.truncate(up.path_len);
        } else {
            return Ok(());
        }
    }
}

/// Removes everything below a directory.
///
/// A directory that is not empty gives its own directories to `top` before it goes, so that none
/// is ever more than two levels below.
pub(crate) fn clear(top: impl AsFd) -> io::Result<()> {
    let top = top.as_fd();
    let mut moved = 0;
    loop {
        let mut again = false;
        let mut entries = Dir::new(open(top, c".")?)?;
        while let Some(entry) = next(&mut entries)? {
            if !remove(top, &entry)? {
                flatten(top, entry.file_name(), &mut moved)?;
                again = true;
            }
        }
        if !again {
            return Ok(());
        }
    }
}

/// Removes a directory of `top`, whose own directories become ones of `top`.
fn flatten(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> io::Result<()> {
    let Some(dir) = unless_gone(open(top, name))? else {
        return Ok(());
    };
    let mut entries = Dir::new(dir)?;
    while let Some(entry) = next(&mut entries)? {
        let dir = entries.fd()?;
        while !remove(dir, &entry)? {
            let free = CString::new(moved.to_string()).expect("digits");
            *moved += 1;
            match renameat(dir, entry.file_name(), top, &free) {
                Ok(()) => break,
                // Something has that name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    unless_gone(unlinkat(top, name, AtFlags::REMOVEDIR))?;
    Ok(())
}

/// Removes a file or an empty directory; false when the directory is not empty.
fn remove(parent: BorrowedFd<'_>, entry: &DirEntry) -> io::Result<bool> {
    let name = entry.file_name();
    let flags = match kind(parent, entry)? {
        Some(FileType::Directory) => AtFlags::REMOVEDIR,
        Some(_) => AtFlags::empty(),
        None => return Ok(true),
    };
    match unlinkat(parent, name, flags) {
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        removed => unless_gone(removed).map(|_| true),
    }
}

/// The next entry that is neither the directory itself nor its parent.
fn next(dir: &mut Dir) -> io::Result<Option<DirEntry>> {
    for entry in dir {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// What an entry is; `None` when it is gone. Some file systems do not say it with the name.
fn kind(parent: BorrowedFd<'_>, entry: &DirEntry) -> io::Result<Option<FileType>> {
    match entry.file_type() {
        FileType::Unknown => {
            let stat = stat(parent, entry.file_name())?;
            Ok(stat.map(|stat| FileType::from_raw_mode(stat.st_mode)))
        }
        kind => Ok(Some(kind)),
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn stat(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Stat>> {
    unless_gone(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))
}

fn id(dir: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// `None` when what was asked for is not there any more.
fn unless_gone<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
