//! A dockerd of this checkout's own.
//!
//! It shares nothing with another engine on the machine: own data (kept between runs, for the images),
//! own sockets, own bridge and addresses, own configuration file, own containerd namespace.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::ping;
use crate::host::{find, has_cgroups};
use crate::layout::{Layout, make_dir};
use crate::process::{Service, command, output};

/// Long enough for dockerd's own 15 seconds of stopping containers.
const GRACE: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A private engine that runs. Dropping it stops it, unless it was started to stay.
pub(super) struct PrivateEngine {
    service: Option<Service>,
    place: Place,
    stays: bool,
}

/// The names and directories of this checkout's engine.
struct Place {
    sockets: PathBuf,
    data: PathBuf,
    log: PathBuf,
    bridge: String,
    namespace: String,
}

impl Place {
    fn of(layout: &Layout) -> Self {
        let key = layout.key();
        Self {
            sockets: layout.sockets(),
            data: layout.target("engine/data"),
            log: layout.target("engine/dockerd.log"),
            // An interface name has at most 15 bytes.
            bridge: format!("ofld{key}"),
            namespace: format!("offloader-{key}"),
        }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.sockets.join("docker.sock").display())
    }

    fn pid_file(&self) -> PathBuf {
        self.sockets.join("dockerd.pid")
    }

    /// Says that the engine was started to stay, by `cargo xtask engine start`.
    fn stays_mark(&self) -> PathBuf {
        self.sockets.join("stays")
    }

    fn running(&self) -> Option<Service> {
        let marker = self.sockets.join("docker.sock");
        Service::left_behind("dockerd", &marker, self.pid_file(), self.log.clone(), GRACE)
    }

    /// Removes what outlives dockerd: mounts of containers it could not end, its bridge, its sockets.
    fn clear(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = |point: &&str| {
            let point = std::path::Path::new(point);
            point.starts_with(&self.sockets) || point.starts_with(&self.data)
        };
        // The innermost are mounted last.
        for point in mounts
            .lines()
            .rev()
            .filter_map(|l| l.split(' ').nth(1))
            .filter(ours)
        {
            let _ = std::process::Command::new("umount").arg(point).status();
        }
        let _ = std::process::Command::new("ip")
            .args(["link", "delete", &self.bridge])
            .stderr(std::process::Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

/// Where this checkout's engine would listen.
pub(super) fn host(layout: &Layout) -> String {
    Place::of(layout).host()
}

impl PrivateEngine {
    /// This checkout's engine if it runs, left behind by a killed run or started to stay.
    pub(super) fn running(layout: &Layout) -> Option<Self> {
        let place = Place::of(layout);
        let service = place.running()?;
        let stays = place.stays_mark().exists();
        Some(Self {
            service: Some(service),
            place,
            stays,
        })
    }

    /// Starts it and waits until it answers. Containers of a run that was killed are ended by dockerd
    /// itself when it finds them in its data.
    pub(super) async fn start(layout: &Layout) -> Result<Self> {
        let place = Place::of(layout);
        if !has_cgroups(&fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?) {
            bail!(
                "no control groups are mounted, and containers need them; as root: \
                 mount -t cgroup2 none /sys/fs/cgroup"
            );
        }
        place.clear();
        layout.target_dir("engine/data")?;
        make_dir(place.sockets.clone())?;
        // From here on dropping the engine removes what was made.
        let mut engine = Self {
            service: None,
            place,
            stays: false,
        };
        engine.make_bridge(layout).await?;
        engine.service = Some(engine.spawn()?);
        engine.wait_until_ready().await?;
        Ok(engine)
    }

    pub(super) fn host(&self) -> String {
        self.place.host()
    }

    /// Takes over one that was started to stay.
    pub(super) fn own(&mut self) {
        self.stays = false;
    }

    /// Lets it run on after this program.
    pub(super) fn leave_running(mut self) -> Result<()> {
        fs::write(self.place.stays_mark(), "").context("marking the engine as started to stay")?;
        self.stays = true;
        Ok(())
    }

    async fn make_bridge(&self, layout: &Layout) -> Result<()> {
        let taken = output(command("ip").args(["-4", "-oneline", "address"])).await?
            + &output(command("ip").args(["-4", "route"])).await?;
        let address = free_subnet(layout.key_bytes(), &taken)?;
        let bridge = self.place.bridge.as_str();
        // A bridge without a hardware address of its own takes one of its ports', another one whenever
        // a container goes: the others then talk to nobody until they ask again, half a minute later.
        let hardware = format!(
            "02:42:{}",
            layout
                .key_bytes()
                .map(|byte| format!("{byte:02x}"))
                .join(":")
        );
        let mut add = command("ip");
        add.args([
            "link", "add", bridge, "address", &hardware, "type", "bridge",
        ]);
        output(&mut add).await?;
        output(command("ip").args(["address", "add", &address, "dev", bridge])).await?;
        output(command("ip").args(["link", "set", bridge, "up"])).await?;
        Ok(())
    }

    fn spawn(&self) -> Result<Service> {
        let place = &self.place;
        // Without it dockerd would read /etc/docker/daemon.json, which is another engine's.
        let config = place.sockets.join("daemon.json");
        fs::write(&config, "{}\n").with_context(|| format!("writing {}", config.display()))?;
        let mut dockerd = std::process::Command::new(find("dockerd").context("dockerd is gone")?);
        dockerd
            .arg("--config-file")
            .arg(config)
            .arg("--data-root")
            .arg(&place.data)
            .arg("--exec-root")
            .arg(place.sockets.join("exec"))
            .arg("--pidfile")
            .arg(place.pid_file())
            .args(["--host", &place.host(), "--bridge", &place.bridge])
            .args(["--containerd-namespace", &place.namespace])
            .args([
                "--containerd-plugins-namespace",
                &format!("{}-plugins", place.namespace),
            ]);
        // dockerd writes its pid file itself and refuses to start over another's.
        Service::spawn_with_own_pid_file(
            "dockerd",
            dockerd,
            place.pid_file(),
            place.log.clone(),
            GRACE,
        )
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let service = self.service.as_mut().context("dockerd was not started")?;
        loop {
            service.check()?;
            let error = match ping(&self.place.host()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(error.context(format!(
                    "dockerd did not become ready in {READY_WITHIN:?}; see {}",
                    service.log().display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        match self.service.take() {
            Some(service) if self.stays => service.leave_running(),
            service => {
                drop(service);
                self.place.clear();
            }
        }
    }
}

/// The first address of a /24 that nothing on this machine uses, the same in every run if possible.
/// `taken` is what `ip` says about addresses and routes.
fn free_subnet(key: [u8; 4], taken: &str) -> Result<String> {
    let start = u32::from_be_bytes(key);
    (0..1000)
        .map(|step| start.wrapping_add(step))
        .map(|number| format!("10.{}.{}.", 200 + number / 256 % 50, number % 256))
        .find(|prefix| !taken.contains(prefix))
        .map(|prefix| format!("{prefix}1/24"))
        .context("no /24 from 10.200.0.0 to 10.249.255.0 is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_in_use_is_stepped_over() {
        let first = free_subnet([0; 4], "").unwrap();
        assert_eq!(first, "10.200.0.1/24");
        let second = free_subnet([0; 4], "10.200.0.0/24 dev eth0").unwrap();
        assert_eq!(second, "10.200.1.1/24");
    }
}
