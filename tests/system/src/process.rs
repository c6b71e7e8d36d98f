//! Running programs: commands that end by themselves here, services that end with their guard in
//! [`Service`].

mod service;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStdout, Command};

pub use self::service::Service;
pub(crate) use self::service::alive;

/// A command that reads nothing.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// The path of a program: PATH first, then where Debian keeps the administrator's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(admin)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs a command to its end with its output on ours; anything but success is an error.
pub async fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = Job::start(command)?.wait().await?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// A command under way, in a process group of its own: dropping it before its end sends SIGTERM to the
/// command and all that it started.
pub struct Job {
    child: tokio::process::Child,
    group: Option<Pid>,
}

impl Job {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let spawned = command.process_group(0).spawn();
        let child = spawned.with_context(|| format!("starting `{}`", shown(command)))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, group })
    }

    /// Its standard output, if that was piped and not yet taken.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end.
    pub async fn wait(mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await.context("waiting for a command")?;
        self.group = None;
        Ok(status)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// Runs a command and returns what it wrote to standard output, trimmed. When it fails, the error
/// carries the end of what it wrote to standard error.
pub async fn output(command: &mut Command) -> Result<String> {
    Ok(outputs(command).await?.0.trim().to_owned())
}

/// The same with both outputs: standard output and standard error.
pub async fn outputs(command: &mut Command) -> Result<(String, String)> {
    let shown = shown(command);
    let output = command
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .await
        .with_context(|| format!("starting `{shown}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "`{shown}` failed: {}\n{}",
            output.status,
            last_lines(&said, 20)
        );
    }
    Ok((
        String::from_utf8_lossy(&output.stdout).into_owned(),
        said.into_owned(),
    ))
}

/// Runs a command with all its output in a file; when it fails, the error carries the file's end.
pub async fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let shown = shown(command);
    let file = create(log)?;
    let status = Job::start(command.stdout(file.try_clone()?).stderr(file))?
        .wait()
        .await?;
    if !status.success() {
        bail!(
            "`{shown}` failed: {status}; the end of {}:\n{}",
            log.display(),
            tail(log, 30)
        );
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn create(log: &Path) -> Result<File> {
    File::create(log).with_context(|| format!("creating {}", log.display()))
}

/// The last lines of a file; what went wrong instead, if it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    match fs::read(file) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), lines),
        Err(error) => format!("({}: {error})", file.display()),
    }
}

fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const POLL: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn an_interrupted_command_ends_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let mut shell = command("sh");
        shell
            .args(["-c", "sleep 60 & echo $! > $0; wait"])
            .arg(&file);
        let job = Job::start(&mut shell).unwrap();
        let inner = loop {
            let written = fs::read_to_string(&file).unwrap_or_default();
            match written.trim().parse().ok().and_then(Pid::from_raw) {
                Some(pid) => break pid,
                None => tokio::time::sleep(POLL).await,
            }
        };
        assert!(alive(inner));
        drop(job);
        let until = Instant::now() + Duration::from_secs(5);
        while alive(inner) && Instant::now() < until {
            tokio::time::sleep(POLL).await;
        }
        assert!(!alive(inner));
    }
}
