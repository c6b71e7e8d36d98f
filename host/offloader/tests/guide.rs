//! docs/policies.md, done line by line: in an empty folder, with the real binary and cargo.
//!
//! Blocks are told by what stands behind their backticks. `LANGUAGE file=PATH` is a file. `sh` are
//! commands that have to succeed. `console` are commands behind `$ ` with what they print; there `…`
//! stands for any text, and on a line of its own for any lines. All others are for reading only.
#![allow(
    clippy::disallowed_methods,
    reason = "tests reach the machine by themselves"
)]

#[path = "support/guests.rs"]
#[allow(dead_code, reason = "the guide builds its own policy")]
mod guests;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Something to do, and the line of the guide that says so.
#[derive(Debug)]
struct Step<'a> {
    line: usize,
    kind: Kind<'a>,
    text: String,
}

#[derive(Debug, PartialEq)]
enum Kind<'a> {
    File(&'a str),
    Commands,
    Console,
}

fn steps(guide: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut lines = (1..).zip(guide.lines());
    while let Some((line, opening)) = lines.next() {
        let Some(info) = opening.strip_prefix("```") else {
            continue;
        };
        let mut text = String::new();
        for (_, inside) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            text.push_str(inside);
            text.push('\n');
        }
        let kind = match (info, info.split_once(" file=")) {
            (_, Some((_, path))) => Kind::File(path),
            ("sh", _) => Kind::Commands,
            ("console", _) => Kind::Console,
            _ => continue,
        };
        steps.push(Step { line, kind, text });
    }
    steps
}

/// The folder, and what one has who follows the guide: this program and cargo on the path, and a
/// checkout of this repository.
struct Reader {
    folder: tempfile::TempDir,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // What is compiled once need not be compiled in every run.
        let kept = guests::target().join("tmp").join("guide");
        fs::create_dir_all(&kept).unwrap();
        std::os::unix::fs::symlink(kept, folder.path().join("target")).unwrap();
        Self { folder }
    }

    fn sh(&self, commands: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_offloader"));
        let cargo = Path::new(env!("CARGO"));
        let dirs = [program, cargo].map(|program| program.parent().unwrap().to_owned());
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(dirs.into_iter().chain(env::split_paths(&path))).unwrap();
        let mut sh = Command::new("sh");
        // Cargo says to programs that it starts what it is doing; this one starts anew.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG") || name == "CARGO_TARGET_DIR" || name == "RUSTFLAGS" {
                sh.env_remove(name.as_ref());
            }
        }
        sh.args(["-eu", "-c", commands])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("OFFLOADER", guests::workspace())
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            // All that the SDK needs was there when the stock policies were built.
            .env("CARGO_NET_OFFLINE", "true")
            .output()
            .unwrap()
    }

    /// The service that a step started and a later one ends.
    fn service(&self) -> Option<rustix::process::Pid> {
        let pid = fs::read_to_string(self.folder.path().join("offloader.pid")).ok()?;
        rustix::process::Pid::from_raw(pid.trim().parse().ok()?)
    }

    fn follow(&self, step: &Step<'_>) {
        let at = format!("docs/policies.md:{}", step.line);
        match step.kind {
            Kind::File(path) => {
                let path = self.folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &step.text).unwrap();
            }
            Kind::Commands => {
                let output = self.sh(&step.text);
                let told = [output.stdout, output.stderr].concat();
                let told = String::from_utf8_lossy(&told);
                assert!(output.status.success(), "{at}: {:?}\n{told}", output.status);
            }
            Kind::Console => {
                for (command, expected) in dialogue(&step.text) {
                    let output = self.sh(&command);
                    let told = String::from_utf8_lossy(&output.stdout);
                    let error = String::from_utf8_lossy(&output.stderr);
                    assert!(
                        is_as_expected(&expected, &told),
                        "{at}: {command}\n--- expected\n{expected}\n--- told\n{told}\n{error}"
                    );
                }
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let (Some(service), true) = (self.service(), std::thread::panicking()) {
            let _ = rustix::process::kill_process(service, rustix::process::Signal::KILL);
        }
    }
}

/// Commands, each with what it is to print.
fn dialogue(text: &str) -> Vec<(String, String)> {
    let mut dialogue: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), dialogue.last_mut()) {
            (Some(command), _) => dialogue.push((command.to_owned(), String::new())),
            (None, Some((_, printed))) => {
                printed.push_str(line);
                printed.push('\n');
            }
            (None, None) => panic!("output before any command: {line}"),
        }
    }
    dialogue
}

fn is_as_expected(expected: &str, found: &str) -> bool {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    fits(&expected, &found)
}

/// Whether lines are as expected, where a line `…` is any number of them.
fn fits(expected: &[&str], found: &[&str]) -> bool {
    match (expected, found) {
        ([], found) => found.is_empty(),
        (["…", rest @ ..], found) => {
            (0..=found.len()).any(|skipped| fits(rest, &found[skipped..]))
        }
        ([line, rest @ ..], [found, more @ ..]) => line_fits(line, found) && fits(rest, more),
        (_, []) => false,
    }
}

/// Whether a line is as expected, where `…` is any text.
fn line_fits(expected: &str, found: &str) -> bool {
    let mut parts = expected.trim_end().split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.trim_end().strip_prefix(first) else {
        return false;
    };
    let mut open_end = false;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        open_end = part.is_empty();
    }
    rest.is_empty() || open_end
}

#[test]
fn the_guide_leads_from_an_empty_folder_to_a_policy_in_force() {
    let reader = Reader::new();
    let guide = fs::read_to_string(guests::workspace().join("docs/policies.md")).unwrap();
    let steps = steps(&guide);
    for kind in [Kind::File("src/lib.rs"), Kind::Commands, Kind::Console] {
        assert!(steps.iter().any(|step| step.kind == kind), "no {kind:?}");
    }
    for step in &steps {
        reader.follow(step);
    }
}

#[test]
fn what_differs_from_the_guide_is_noticed() {
    for (expected, found) in [
        ("a\nb", "a\nb"),
        ("a\n…\nd", "a\nb\nc\nd"),
        ("…", ""),
        ("size … bytes", "size 12 bytes"),
        ("p50 …", "p50 1 2 3"),
    ] {
        assert!(is_as_expected(expected, found), "{expected} {found}");
    }
    for (expected, found) in [
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("a\n…\nd", "a\nb"),
        ("size … bytes", "size 12 bits"),
        ("size … bytes", "size 12 bytes or so"),
    ] {
        assert!(!is_as_expected(expected, found), "{expected} {found}");
    }
}
