//! What carries the daemon's label in the engine, and its removal when a demo fails halfway.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::Result;
use serde::Serialize;

use crate::engine::Engine;
use crate::process::output;

const LABEL: &str = "label=app=mattermost-calls-offloader";
const LIST_CONTAINERS: [&str; 6] = ["ps", "--all", "--quiet", "--no-trunc", "--filter", LABEL];
const LIST_VOLUMES: [&str; 5] = ["volume", "ls", "--quiet", "--filter", LABEL];

/// Containers and volumes with the daemon's label, as counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Leftovers {
    pub(super) containers: usize,
    pub(super) volumes: usize,
}

/// Knows what was labelled before the demo, which is somebody else's. When dropped it removes what
/// came since; after a demo that went well that is nothing.
pub(super) struct Sweep {
    host: String,
    containers_before: BTreeSet<String>,
    volumes_before: BTreeSet<String>,
}

impl Sweep {
    /// Remembers what is there. In an engine of our own that is what a killed run left: it goes.
    pub(super) async fn begin(engine: &Engine) -> Result<Self> {
        let mut sweep = Self {
            host: engine.host().to_owned(),
            containers_before: BTreeSet::new(),
            volumes_before: BTreeSet::new(),
        };
        if engine.is_private() {
            sweep.remove_new();
        }
        sweep.containers_before = list(engine, &LIST_CONTAINERS).await?;
        sweep.volumes_before = list(engine, &LIST_VOLUMES).await?;
        Ok(sweep)
    }

    /// What came since the beginning and is still there.
    pub(super) async fn leftovers(&self, engine: &Engine) -> Result<Leftovers> {
        Ok(Leftovers {
            containers: list(engine, &LIST_CONTAINERS)
                .await?
                .difference(&self.containers_before)
                .count(),
            volumes: list(engine, &LIST_VOLUMES)
                .await?
                .difference(&self.volumes_before)
                .count(),
        })
    }

    /// Without async, because it also runs when the demo's future is dropped.
    fn remove_new(&self) {
        let kinds = [
            (
                &LIST_CONTAINERS[..],
                ["rm", "--force", "--volumes"].as_slice(),
                &self.containers_before,
            ),
            (
                &LIST_VOLUMES[..],
                ["volume", "rm", "--force"].as_slice(),
                &self.volumes_before,
            ),
        ];
        for (list, remove, before) in kinds {
            let Ok(found) = self.docker(list).output() else {
                continue;
            };
            for id in lines(&String::from_utf8_lossy(&found.stdout)).difference(before) {
                eprintln!("removing what was left: {id}");
                let _ = self.docker(remove).arg(id).stdout(Stdio::null()).status();
            }
        }
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker
            .args(["--host", &self.host])
            .args(args)
            .stderr(Stdio::null());
        docker
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.remove_new();
    }
}

async fn list(engine: &Engine, args: &[&str]) -> Result<BTreeSet<String>> {
    Ok(lines(
        &output(&mut engine.docker(args.iter().copied())).await?,
    ))
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}
