//! Where an engine keeps things, and what it leaves there when it could not tidy up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::alive;

/// The longest that processes may take to be gone once they are killed.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The names and directories of an engine.
#[derive(Debug, Clone)]
pub struct Place {
    /// For its sockets, its pid and what it keeps while it runs. Short: a socket's path has at most
    /// 107 bytes.
    pub sockets: PathBuf,
    /// Images, containers and volumes.
    pub data: PathBuf,
    /// Where it writes its log.
    pub log: PathBuf,
    /// Its network interface; at most 15 bytes.
    pub bridge: String,
    /// Its namespace in containerd.
    pub namespace: String,
    /// Tells engines apart; its addresses are made of it.
    pub key: [u8; 4],
    /// Whether it sets up the host's packet filter, so that containers reach other machines.
    pub firewall: bool,
}

impl Place {
    /// Its address, as DOCKER_HOST wants it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.sockets.join("docker.sock").display())
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.sockets.join("dockerd.pid")
    }

    /// Removes what outlives dockerd: mounts of containers it could not end, its bridge, its sockets.
    pub(super) fn clear(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = |point: &&str| {
            let point = Path::new(point);
            point.starts_with(&self.sockets) || point.starts_with(&self.data)
        };
        // The innermost are mounted last.
        for point in mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(ours)
        {
            let _ = Command::new("umount")
                .args(["--lazy", point])
                .stderr(Stdio::null())
                .status();
        }
        let _ = Command::new("ip")
            .args(["link", "delete", &self.bridge])
            .stderr(Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.sockets);
    }

    /// Kills what containerd left running: each container's supervisor and all below it.
    pub(super) fn kill_containers(&self) {
        kill_all(&format!("-namespace\0{}\0", self.namespace));
    }

    /// Kills the containerd that dockerd started, which should have died with it.
    pub(super) fn kill_containerd(&self) {
        let config = self.sockets.join("exec/containerd/containerd.toml");
        kill_all(&config.to_string_lossy());
        // Else the next dockerd would wait for it as long as its parent has not seen its end.
        let _ = fs::remove_file(config.with_file_name("containerd.pid"));
    }
}

/// Kills every process with these words on its command line, and all below it, and waits until they
/// are gone.
fn kill_all(marker: &str) {
    let processes = processes();
    let marked = |process: &&Process| process.command.contains(marker);
    let mut doomed: Vec<i32> = processes
        .iter()
        .filter(marked)
        .map(|found| found.pid)
        .collect();
    let mut next = 0;
    while let Some(parent) = doomed.get(next).copied() {
        let children = processes.iter().filter(|process| process.parent == parent);
        doomed.extend(children.map(|process| process.pid));
        next += 1;
    }
    let doomed: Vec<_> = doomed.into_iter().filter_map(Pid::from_raw).collect();
    for pid in doomed.iter().rev() {
        let _ = kill_process(*pid, Signal::KILL);
    }
    let until = Instant::now() + GONE_WITHIN;
    while doomed.iter().any(|pid| alive(*pid)) && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
}

struct Process {
    pid: i32,
    parent: i32,
    command: String,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "PID (NAME) STATE PARENT …", where the name may itself hold parentheses.
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Process {
            pid,
            parent,
            command: String::from_utf8_lossy(&command).into_owned(),
        })
    })
    .collect()
}
