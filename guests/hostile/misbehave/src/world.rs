//! What the world looks like from inside: each look answers with what it saw.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, io, thread};

/// `yes` where the sandbox let it through.
pub(crate) fn went<T>(result: io::Result<T>) -> String {
    if result.is_ok() { "yes" } else { "no" }.to_owned()
}

pub(crate) fn read_absolute() -> String {
    went(fs::read("/etc/passwd"))
}

pub(crate) fn read_upwards() -> String {
    went(fs::read("../../../../../../etc/passwd"))
}

pub(crate) fn write_file() -> String {
    went(fs::write("/tmp/misbehave", "x"))
}

pub(crate) fn follow_link() -> String {
    went(fs::hard_link("/etc/passwd", "link").and_then(|()| fs::read("link")))
}

pub(crate) fn list_directory() -> String {
    format!("{} {}", went(fs::read_dir(".")), went(fs::read_dir("/")))
}

pub(crate) fn read_environment() -> String {
    let vars: Vec<_> = env::vars().collect();
    format!("{vars:?} {}", env::args().count())
}

pub(crate) fn read_stdin() -> String {
    io::read_to_string(io::stdin()).map_or("no".to_owned(), |text| format!("{text:?}"))
}

/// Milliseconds since 1970, and nanoseconds that a wait of some milliseconds took.
pub(crate) fn probe_clocks() -> String {
    let begin = Instant::now();
    thread::sleep(Duration::from_millis(5));
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    format!("{unix} {}", begin.elapsed().as_nanos())
}

pub(crate) fn probe_entropy() -> String {
    format!("{:x}", RandomState::new().hash_one("seed"))
}

pub(crate) fn start_thread() -> String {
    went(thread::Builder::new().spawn(|| ()))
}
