//! Programs in the background.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{create, tail};

const POLL: Duration = Duration::from_millis(20);

/// A program in the background. It runs in a process group of its own, so that Ctrl-C in a terminal
/// reaches only us and it ends in order: dropping the guard sends SIGTERM, waits, and kills it if the
/// grace was not enough.
///
/// Its pid is kept in a file, so that the next run finds what a killed run left behind.
pub struct Service {
    name: &'static str,
    pid: Pid,
    /// None if an earlier run started it.
    child: Option<Child>,
    pid_file: PathBuf,
    log: PathBuf,
    grace: Duration,
    ended: bool,
}

impl Service {
    /// Starts a program with all its output in `log`. `grace` is the time it gets to end.
    pub fn spawn(
        name: &'static str,
        command: std::process::Command,
        pid_file: PathBuf,
        log: PathBuf,
        grace: Duration,
    ) -> Result<Self> {
        let service = Self::spawn_with_own_pid_file(name, command, pid_file, log, grace)?;
        fs::write(&service.pid_file, service.pid.to_string())
            .with_context(|| format!("writing {}", service.pid_file.display()))?;
        Ok(service)
    }

    /// The same for a program that writes its pid file itself.
    pub fn spawn_with_own_pid_file(
        name: &'static str,
        mut command: std::process::Command,
        pid_file: PathBuf,
        log: PathBuf,
        grace: Duration,
    ) -> Result<Self> {
        let file = create(&log)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name} ({:?})", command.get_program()))?;
        let pid = Pid::from_child(&child);
        Ok(Self {
            name,
            pid,
            child: Some(child),
            pid_file,
            log,
            grace,
            ended: false,
        })
    }

    /// The program of an earlier run that `pid_file` names, if it still runs. A pid may have been
    /// given to a stranger since, so it counts only if its command line has `marker`.
    pub fn left_behind(
        name: &'static str,
        marker: &Path,
        pid_file: PathBuf,
        log: PathBuf,
        grace: Duration,
    ) -> Option<Self> {
        let number = fs::read_to_string(&pid_file).ok()?.trim().parse().ok()?;
        let pid = Pid::from_raw(number)?;
        let line = fs::read(format!("/proc/{number}/cmdline")).ok()?;
        let ours = String::from_utf8_lossy(&line).contains(&*marker.to_string_lossy());
        ours.then(|| Self {
            name,
            pid,
            child: None,
            pid_file,
            log,
            grace,
            ended: false,
        })
    }

    /// Whether it still runs; how it ended if we started it and it has.
    pub fn check(&mut self) -> Result<()> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?.map(|status| status.to_string()),
            None => (!alive(self.pid)).then(|| "gone".to_owned()),
        };
        match ended {
            None => Ok(()),
            Some(how) => {
                self.ended = true;
                bail!(
                    "{} ended by itself: {how}; the end of {}:\n{}",
                    self.name,
                    self.log.display(),
                    tail(&self.log, 30)
                )
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if !self.ended {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Ends it at once, by SIGKILL.
    pub fn kill(mut self) {
        // Its number may be another's by now.
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let _ = kill_process(self.pid, Signal::KILL);
        match &mut self.child {
            Some(child) => drop(child.wait()),
            None => {
                while alive(self.pid) {
                    thread::sleep(POLL);
                }
            }
        }
        let _ = fs::remove_file(&self.pid_file);
    }

    /// The file that its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Lets it run on after this program.
    pub fn leave_running(mut self) {
        self.ended = true;
    }

    /// Ends it: SIGTERM, and SIGKILL when its grace is over. Returns how it ended, None if an earlier
    /// run started it or it had to be killed.
    pub fn stop(mut self) -> Option<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Option<ExitStatus> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        // A failed kill means that it is gone already, which the waiting finds out too.
        let _ = kill_process(self.pid, Signal::TERM);
        let waited = self.wait();
        if waited.is_none() {
            eprintln!(
                "{} (pid {}) did not end in {:?}: killing it",
                self.name,
                self.pid(),
                self.grace
            );
            let _ = kill_process(self.pid, Signal::KILL);
            if let Some(child) = &mut self.child {
                let _ = child.wait();
            }
        }
        let _ = fs::remove_file(&self.pid_file);
        waited.flatten()
    }

    /// None: it still runs at the end of its grace.
    fn wait(&mut self) -> Option<Option<ExitStatus>> {
        let until = Instant::now() + self.grace;
        while Instant::now() < until {
            match &mut self.child {
                Some(child) => match child.try_wait() {
                    Ok(Some(status)) => return Some(Some(status)),
                    Ok(None) => {}
                    Err(_) => return Some(None),
                },
                None if !alive(self.pid) => return Some(None),
                None => {}
            }
            thread::sleep(POLL);
        }
        None
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a process exists and is more than a zombie waiting for its parent.
pub(crate) fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "PID (NAME) STATE …", where the name may itself hold parentheses.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path, script: &str) -> Service {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(dir);
        let grace = Duration::from_millis(1500);
        Service::spawn("sleeper", command, dir.join("pid"), dir.join("log"), grace).unwrap()
    }

    #[test]
    fn a_dropped_service_is_gone_with_its_pid_file() {
        let dir = tempfile::tempdir().unwrap();
        let service = sleeper(dir.path(), "exec sleep 60");
        let pid = service.pid;
        assert!(alive(pid));
        drop(service);
        assert!(!alive(pid));
        assert!(!dir.path().join("pid").exists());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let service = sleeper(
            dir.path(),
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        );
        while tail(&dir.path().join("log"), 1) != "ready" {
            thread::sleep(POLL);
        }
        let pid = service.pid;
        assert!(service.stop().is_none());
        assert!(!alive(pid));
    }

    #[test]
    fn one_that_ended_by_itself_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = sleeper(dir.path(), "echo no room >&2; exit 3");
        let error = loop {
            match service.check() {
                Ok(()) => thread::sleep(POLL),
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.contains("exit status: 3") && error.contains("no room"),
            "{error}"
        );
    }

    #[test]
    fn a_leftover_is_found_by_pid_and_marker() {
        let dir = tempfile::tempdir().unwrap();
        // The shell stays the parent of sleep, so that the marker stays on its command line.
        let mut service = sleeper(dir.path(), "sleep 60; true");
        let find = |marker: &Path| {
            let grace = Duration::from_secs(5);
            Service::left_behind(
                "sleeper",
                marker,
                dir.path().join("pid"),
                dir.path().join("log"),
                grace,
            )
        };
        assert!(find(Path::new("/no/such/marker")).is_none());
        // A process that is only just being made has no command line yet.
        let until = Instant::now() + Duration::from_secs(5);
        let mut found = loop {
            match find(dir.path()) {
                Some(found) => break found,
                None => assert!(Instant::now() < until, "not found by its command line"),
            }
        };
        found.check().unwrap();
        // Reap the child as init would, so that it is no zombie when the guard looks for it.
        let child = service.child.take().unwrap();
        service.leave_running();
        let reaper = thread::spawn(move || { child }.wait());
        drop(found);
        reaper.join().unwrap().unwrap();
    }
}
