//! Whether Chromium's own sandbox is on inside the recorder's container, seen from outside.
//!
//! A recording proves nothing here: with a dead browser ffmpeg goes on recording an empty screen.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::watch::Progress;
use crate::engine::Engine;
use crate::process::output;

const FOUND_WITHIN: Duration = Duration::from_secs(30);
/// The engine's filter is one, Chromium's own the second.
const FILTERS: u32 = 2;

/// Waits for the browser's renderers in the container that runs `image`, and looks at each of them.
pub(super) async fn inspect(engine: &Engine, image: &str, progress: &Progress) -> Result<()> {
    let until = Instant::now() + FOUND_WITHIN;
    loop {
        let (first, renderers) = processes(engine, image).await?;
        let checked: Result<()> = renderers.iter().try_for_each(|&pid| {
            check(first, pid).with_context(|| format!("renderer process {pid} is not sandboxed"))
        });
        // A renderer confines itself a moment after it began, and may be gone when it is looked at.
        if checked.is_err() && Instant::now() > until {
            return checked;
        }
        if !renderers.is_empty() && checked.is_ok() {
            progress.say(
                "demo",
                format_args!(
                    "the browser's sandbox is on: {} renderers looked at",
                    renderers.len()
                ),
            );
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "the recorder had no browser renderers in {FOUND_WITHIN:?}"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The first process of the container that runs `image`, and its renderers; pids as the host sees them.
async fn processes(engine: &Engine, image: &str) -> Result<(u32, Vec<u32>)> {
    let filter = format!("ancestor={image}");
    let id = output(&mut engine.docker(["ps", "--quiet", "--filter", &filter])).await?;
    let id = id
        .lines()
        .next()
        .with_context(|| format!("no container runs {image}"))?;
    let format = "{{.State.Pid}}";
    let first = output(&mut engine.docker(["inspect", "--format", format, id])).await?;
    let first = first
        .parse()
        .with_context(|| format!("the pid of container {id} is {first:?}"))?;
    let top = output(&mut engine.docker(["top", id, "-eo", "pid,args"])).await?;
    Ok((first, renderers(&top)))
}

/// The pids of renderers in a listing of pid and command line.
fn renderers(listing: &str) -> Vec<u32> {
    listing
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .any(|word| word == "--type=renderer")
        })
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

fn check(first: u32, pid: u32) -> Result<()> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .context("the engine's processes cannot be seen from here")?;
    ensure!(
        line.contains("--type=renderer"),
        "the engine's process ids are not this machine's"
    );
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let filters = seccomp_filters(&status).context("the kernel does not tell Seccomp_filters")?;
    ensure!(
        filters >= FILTERS,
        "Seccomp_filters: {filters}, expected {FILTERS}"
    );
    if user_namespace(first)? == user_namespace(pid)? {
        bail!("it shares the user namespace of the container's first process");
    }
    Ok(())
}

fn seccomp_filters(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse().ok())
}

/// What names a process's user namespace: the link, or for who may not read it (other users' links
/// are root's alone) the ids it maps, which Chromium never leaves as they were.
fn user_namespace(pid: u32) -> Result<PathBuf> {
    match fs::read_link(format!("/proc/{pid}/ns/user")) {
        Ok(link) => Ok(link),
        Err(_) => Ok(fs::read_to_string(format!("/proc/{pid}/uid_map"))?.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renderers_are_told_from_their_zygote() {
        let top = "PID COMMAND\n10 /bin/sh /entry recorder\n\
                   20 /usr/lib/chromium/chromium --type=zygote\n\
                   30 /usr/lib/chromium/chromium --type=renderer --lang=en\n";
        assert_eq!(renderers(top), [30]);
    }

    #[test]
    fn the_number_of_filters_is_read() {
        assert_eq!(
            seccomp_filters("Seccomp:\t2\nSeccomp_filters:\t2\n"),
            Some(2)
        );
        assert_eq!(seccomp_filters("Seccomp:\t2\n"), None);
    }

    #[test]
    fn a_process_without_a_namespace_of_its_own_is_refused() {
        let own = std::process::id();
        assert_eq!(user_namespace(own).unwrap(), user_namespace(own).unwrap());
        assert!(check(own, own).is_err());
    }
}
