//! What a job left, as a tar archive with the folder `data` in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use tar::{Builder, EntryType, Header};

use crate::tree::{self, Entry};

/// What `data` is called in the archive.
const FOLDER: &str = "data";

/// Writes an archive of a directory, however deep. Links are left out: where it is unpacked they
/// would lead elsewhere.
///
/// # Errors
/// When it cannot be read, or not be written.
pub(crate) fn write(data: &Dir, out: &mut dyn Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let mut folder = header(EntryType::Directory, 0, 0);
    tar.append_data(&mut folder, format!("{FOLDER}/"), io::empty())?;
    tree::walk(data, |entry| {
        add(&mut tar, &entry)?;
        Ok(true)
    })?;
    tar.into_inner().map(drop)
}

fn add(tar: &mut Builder<&mut dyn Write>, entry: &Entry<'_>) -> io::Result<()> {
    let path = Path::new(FOLDER).join(OsStr::from_bytes(entry.path));
    match entry.kind {
        FileType::Directory => {
            let mut header = header(EntryType::Directory, 0, 0);
            // As directories are written in archives.
            tar.append_data(&mut header, path.join(""), io::empty())
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(entry.parent, entry.name, flags, Mode::empty())?;
            let stat = fstat(&file)?;
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            let modified = u64::try_from(stat.st_mtime).unwrap_or(0);
            let mut header = header(EntryType::Regular, bytes, modified);
            let mut contents = File::from(file).take(bytes);
            tar.append_data(&mut header, path, &mut contents)?;
            if contents.limit() > 0 {
                return Err(io::Error::other("a file became shorter while it was read"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn header(kind: EntryType, bytes: u64, modified_unix: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_size(bytes);
    header.set_mtime(modified_unix);
    header
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::disallowed_methods,
        reason = "tests make what they look at with plain means"
    )]

    use std::fs;

    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn everything_but_links_is_in_it_under_the_folder() {
        let temp = tempfile::tempdir().unwrap();
        let deep = "directory-with-a-long-name/".repeat(12);
        fs::create_dir_all(temp.path().join(&deep)).unwrap();
        fs::write(temp.path().join(&deep).join("call.mp4"), [7; 100_000]).unwrap();
        fs::write(temp.path().join("empty"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", temp.path().join("link")).unwrap();
        let data = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let mut archive = Vec::new();
        write(&data, &mut archive).unwrap();

        let unpacked = tempfile::tempdir().unwrap();
        tar::Archive::new(&*archive)
            .unpack(unpacked.path())
            .unwrap();
        let folder = unpacked.path().join(FOLDER);
        assert_eq!(
            fs::read(folder.join(&deep).join("call.mp4")).unwrap(),
            [7; 100_000]
        );
        assert!(fs::read(folder.join("empty")).unwrap().is_empty());
        assert!(fs::symlink_metadata(folder.join("link")).is_err());
    }
}
