//! A dockerd of this checkout's own. Its data is kept between runs, for the images.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use offloader_system_tests::{Dockerd, Place};

use crate::layout::Layout;

/// A private engine that runs. Dropping it stops it, unless it was started to stay.
pub(super) struct PrivateEngine {
    /// Taken where it is left to run.
    dockerd: Option<Dockerd>,
    host: String,
    /// Says that the engine was started to stay, by `cargo xtask engine start`.
    stays_mark: PathBuf,
    stays: bool,
}

fn place(layout: &Layout) -> Place {
    let key = layout.key();
    Place {
        sockets: layout.sockets(),
        data: layout.target("engine/data"),
        log: layout.target("engine/dockerd.log"),
        // An interface name has at most 15 bytes.
        bridge: format!("ofld{key}"),
        namespace: format!("offloader-{key}"),
        key: layout.key_bytes(),
        firewall: true,
    }
}

/// Where this checkout's engine would listen.
pub(super) fn host(layout: &Layout) -> String {
    place(layout).host()
}

impl PrivateEngine {
    fn of(layout: &Layout, dockerd: Dockerd) -> Self {
        let stays_mark = layout.sockets().join("stays");
        Self {
            host: dockerd.host(),
            dockerd: Some(dockerd),
            stays: stays_mark.exists(),
            stays_mark,
        }
    }

    /// This checkout's engine if it runs, left behind by a killed run or started to stay.
    pub(super) fn running(layout: &Layout) -> Option<Self> {
        Some(Self::of(layout, Dockerd::left_behind(place(layout))?))
    }

    /// Starts it and waits until it answers.
    pub(super) async fn start(layout: &Layout) -> Result<Self> {
        layout.target_dir("engine/data")?;
        Ok(Self::of(layout, Dockerd::start(place(layout)).await?))
    }

    pub(super) fn host(&self) -> String {
        self.host.clone()
    }

    /// Takes over one that was started to stay.
    pub(super) fn own(&mut self) {
        self.stays = false;
    }

    /// Lets it run on after this program.
    pub(super) fn leave_running(mut self) -> Result<()> {
        fs::write(&self.stays_mark, "").context("marking the engine as started to stay")?;
        self.stays = true;
        Ok(())
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if self.stays
            && let Some(dockerd) = self.dockerd.take()
        {
            dockerd.leave_running();
        }
    }
}
