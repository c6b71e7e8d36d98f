//! What can be done in directories that were granted, and what can not.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::mem;
use std::time::SystemTime;

use crate::world::went;

const NOTE: &str = "/shown/note";

pub(crate) fn read_shown() -> String {
    fs::read_to_string(NOTE).unwrap_or_else(|_| "no".to_owned())
}

/// By paths upwards and by absolute ones, as the standard library passes them and as they are; by
/// links that are there, and by a new one.
pub(crate) fn leave_shown() -> String {
    let ways = [
        went(fs::read("/shown/../outside")),
        went(fs::read("/shown/within/../../outside")),
        went(c::open_below("/shown", c"../outside")),
        went(c::open_below("/shown", c"within/../../outside")),
        went(c::open_below("/shown", c"/etc/passwd")),
        went(c::open_below("/shown", c"/")),
        went(fs::read("/shown/link")),
        went(fs::read("/shown/absolute-link")),
        went(fs::read("/shown/up/outside")),
        went(fs::read_dir("/shown/up")),
        went(fs::metadata("/shown/link")),
        went(c::new_link(c"../outside", c"/kept/new-link")),
        went(fs::read("/kept/new-link")),
        went(fs::write("/kept/new-link", "x")),
        went(fs::rename("/kept/new-link", "/kept/../new-link")),
        went(fs::hard_link("/shown/note", "/kept/note-of-shown")),
        went(fs::rename("/shown/note", "/kept/note-of-shown")),
    ];
    ways.join(" ")
}

/// Makes a file and works on it, makes a directory, and removes both.
pub(crate) fn change(dir: &str, file: &str) -> String {
    let old = format!("{dir}/{file}");
    let new = format!("{dir}/new");
    let further = format!("{dir}/further");
    let steps = [
        went(fs::write(&old, "x")),
        went(OpenOptions::new().append(true).open(&old)),
        went(
            OpenOptions::new()
                .write(true)
                .open(&old)
                .and_then(|f| f.set_len(1 << 20)),
        ),
        went(File::open(&old).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH))),
        went(fs::write(&new, "x")),
        went(fs::rename(&new, &further)),
        went(fs::hard_link(&further, &new)),
        went(fs::remove_file(&further)),
        went(fs::remove_file(&new)),
        went(fs::create_dir(&new)),
        went(fs::remove_dir(&new)),
    ];
    steps.join(" ")
}

pub(crate) fn open_pipe() -> String {
    went(File::open("/shown/pipe"))
}

pub(crate) fn hoard_files() -> String {
    loop {
        match File::open(NOTE) {
            Ok(file) => mem::forget(file),
            Err(error) => return format!("{}", error.kind()),
        }
    }
}

pub(crate) fn read_for_ever() -> String {
    loop {
        if fs::read(NOTE).is_err() {
            return "no".to_owned();
        }
    }
}

pub(crate) fn write_for_ever() -> String {
    let Ok(mut flood) = File::create("/kept/flood") else {
        return "no".to_owned();
    };
    while flood.write_all(&[0; 4096]).is_ok() {}
    "full".to_owned()
}

/// What the standard library does not do, or only after a look at the path.
#[cfg(target_family = "wasm")]
#[allow(unsafe_code)]
mod c {
    use std::ffi::{CStr, c_char, c_int};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;

    unsafe extern "C" {
        fn __wasilibc_nocwd_openat_nomode(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        fn symlink(to: *const c_char, at: *const c_char) -> c_int;
    }
    const READ_ONLY: c_int = 0x0400_0000;

    pub(super) fn open_below(dir: &str, path: &CStr) -> io::Result<()> {
        let dir = File::open(dir)?;
        // SAFETY: the path is a text that ends with 0, and the directory is open.
        told(unsafe { __wasilibc_nocwd_openat_nomode(dir.as_raw_fd(), path.as_ptr(), READ_ONLY) })
    }

    pub(super) fn new_link(to: &CStr, at: &CStr) -> io::Result<()> {
        // SAFETY: both are texts that end with 0.
        told(unsafe { symlink(to.as_ptr(), at.as_ptr()) })
    }

    fn told(result: c_int) -> io::Result<()> {
        match result {
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Elsewhere these are no ways of the sandbox.
#[cfg(not(target_family = "wasm"))]
mod c {
    use std::ffi::CStr;
    use std::io;

    pub(super) fn open_below(_: &str, _: &CStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn new_link(_: &CStr, _: &CStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
