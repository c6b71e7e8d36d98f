//! A container engine of one's own, to be restarted, killed, paused and filled.
//!
//! It shares nothing with another engine on the machine: own data, own sockets, own bridge and
//! addresses, own configuration file, own containerd namespace. Needs root.

mod place;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command as Blocking;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

pub use self::place::Place;
use crate::engine::skipped;
use crate::process::{Service, command, find, output};

/// Long enough for dockerd's own 15 seconds of stopping containers.
const GRACE: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A dockerd that was started. Dropping it ends it, unless it was left to run.
pub struct Dockerd {
    place: Place,
    service: Option<Service>,
    live_restore: bool,
    /// What a test's own engine keeps is thrown away with it.
    temporary: Option<TempDir>,
}

impl Dockerd {
    /// The engine that an earlier run left at this place, if it still runs.
    pub fn left_behind(place: Place) -> Option<Self> {
        let marker = place.sockets.join("docker.sock");
        let (pid_file, log) = (place.pid_file(), place.log.clone());
        let service = Service::left_behind("dockerd", &marker, pid_file, log, GRACE)?;
        Some(Self {
            place,
            service: Some(service),
            live_restore: false,
            temporary: None,
        })
    }

    /// Starts one and waits until it answers. Containers of a run that was killed are ended by
    /// dockerd itself when it finds them in its data.
    ///
    /// # Errors
    /// When the machine lacks something, or it ends or does not answer.
    pub async fn start(place: Place) -> Result<Self> {
        Self::start_in(place, None).await
    }

    async fn start_in(place: Place, temporary: Option<TempDir>) -> Result<Self> {
        if !has_cgroups(&fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?) {
            bail!(
                "no control groups are mounted, and containers need them; as root: \
                 mount -t cgroup2 none /sys/fs/cgroup"
            );
        }
        if temporary.is_none() {
            place.clear();
        }
        for dir in [&place.sockets, &place.data] {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        // From here on dropping the engine removes what was made.
        let mut engine = Self {
            place,
            service: None,
            live_restore: false,
            temporary,
        };
        engine.make_bridge().await?;
        engine.resume().await?;
        Ok(engine)
    }

    /// An engine of the test `name`'s own. None: there is no root or no dockerd here, and the test is
    /// to be skipped, as with [`need_engine`](crate::need_engine).
    pub async fn for_test(name: &str) -> Option<Self> {
        if !(geteuid().is_root() && find("dockerd").is_some()) {
            skipped(name, "a container engine of its own (root, and dockerd)");
            return None;
        }
        Some(Self::temporary(None).await.expect("an engine starts"))
    }

    /// The same with so many bytes of disk.
    pub async fn small_for_test(name: &str, bytes: u64) -> Option<Self> {
        if !(geteuid().is_root() && find("dockerd").is_some()) {
            skipped(name, "a container engine of its own (root, and dockerd)");
            return None;
        }
        Some(
            Self::temporary(Some(bytes))
                .await
                .expect("an engine starts"),
        )
    }

    /// An engine that is thrown away with all that it holds when it is dropped; `bytes` limits its
    /// disk.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn temporary(bytes: Option<u64>) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let key = std::process::id() << 8 | number & 0xff;
        let dir = tempfile::Builder::new()
            .prefix("ofld")
            .tempdir_in(env::temp_dir())
            .context("making a directory for the engine")?;
        let data = dir.path().join("data");
        fs::create_dir(&data).context("making a directory for the engine's data")?;
        if let Some(bytes) = bytes {
            mount_small(&data, bytes).await?;
        }
        let place = Place {
            sockets: dir.path().join("run"),
            data,
            log: dir.path().join("dockerd.log"),
            bridge: format!("ofld{key:x}"),
            namespace: format!("offloader-test-{key:x}"),
            key: key.to_be_bytes(),
            firewall: false,
        };
        Self::start_in(place, Some(dir)).await
    }

    /// Its address, as DOCKER_HOST wants it.
    pub fn host(&self) -> String {
        self.place.host()
    }

    /// Where it keeps what it has.
    pub fn data(&self) -> &Path {
        &self.place.data
    }

    /// What it wrote since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.place.log).unwrap_or_default()
    }

    /// Lets containers run on when it is stopped from its next start on, or ends them.
    pub fn set_live_restore(&mut self, live_restore: bool) {
        self.live_restore = live_restore;
    }

    /// Ends it as an administrator does, by SIGTERM. Without live-restore its containers end first.
    pub fn stop(&mut self) {
        drop(self.service.take());
    }

    /// Ends it as a crash does. Its containers' processes go on.
    pub fn kill(&mut self) {
        if let Some(service) = self.service.take() {
            service.kill();
        }
        self.place.kill_containerd();
    }

    /// Ends it by SIGKILL together with all processes of its containers, as a power failure does.
    pub fn lose_everything(&mut self) {
        self.kill();
        self.place.kill_containers();
    }

    /// Holds it, so that it accepts connections and answers nothing, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(service) = &self.service {
            service.signal(signal);
        }
    }

    /// Starts it on what it left, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn resume(&mut self) -> Result<()> {
        let place = &self.place;
        // Without it dockerd would read /etc/docker/daemon.json, which is another engine's.
        let config = place.sockets.join("daemon.json");
        fs::write(&config, "{}\n").with_context(|| format!("writing {}", config.display()))?;
        let mut dockerd = Blocking::new(find("dockerd").context("dockerd is gone")?);
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
        if self.live_restore {
            dockerd.arg("--live-restore");
        }
        if !place.firewall {
            dockerd.args(["--iptables=false", "--ip-masq=false"]);
        }
        // dockerd writes its pid file itself and refuses to start over another's; what a killed one
        // left may name a process that has its number by now.
        let _ = fs::remove_file(place.pid_file());
        let service = Service::spawn_with_own_pid_file(
            "dockerd",
            dockerd,
            place.pid_file(),
            place.log.clone(),
            GRACE,
        )?;
        self.service = Some(service);
        self.wait_until_ready().await
    }

    /// Lets it run on after this program.
    pub fn leave_running(mut self) {
        if let Some(service) = self.service.take() {
            service.leave_running();
        }
        // Dropping it now would clear its place.
        std::mem::forget(self);
    }

    async fn make_bridge(&self) -> Result<()> {
        let (bridge, key) = (self.place.bridge.as_str(), self.place.key);
        // A bridge without a hardware address of its own takes one of its ports', another one whenever
        // a container goes: the others then talk to nobody until they ask again, half a minute later.
        let hardware = format!("02:42:{}", key.map(|byte| format!("{byte:02x}")).join(":"));
        let mut add = command("ip");
        add.args([
            "link", "add", bridge, "address", &hardware, "type", "bridge",
        ]);
        output(&mut add).await?;
        let taken = output(command("ip").args(["-4", "-oneline", "address"])).await?
            + &output(command("ip").args(["-4", "route"])).await?;
        let address = free_subnet(key, &taken)?;
        output(command("ip").args(["address", "add", &address, "dev", bridge])).await?;
        output(command("ip").args(["link", "set", bridge, "up"])).await?;
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let host = self.host();
        let service = self.service.as_mut().context("dockerd was not started")?;
        loop {
            service.check()?;
            let error = match ping(&host).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(error.context(format!(
                    "dockerd did not become ready in {READY_WITHIN:?}; see {}",
                    service.log().display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.thaw();
        if self.temporary.is_some() {
            // It is thrown away: nothing in it has to end well.
            self.lose_everything();
        } else {
            self.stop();
        }
        self.place.clear();
    }
}

/// The engine's version, if it answers in a few seconds.
///
/// # Errors
/// When it does not.
pub async fn ping(host: &str) -> Result<String> {
    let mut docker = command("docker");
    docker.env_remove("DOCKER_CONTEXT").args([
        "--host",
        host,
        "version",
        "--format",
        "{{.Server.Version}}",
    ]);
    tokio::time::timeout(Duration::from_secs(5), output(&mut docker))
        .await
        .with_context(|| format!("{host} did not answer in 5 seconds"))?
}

/// A file system of so many bytes on a directory.
///
/// # Errors
/// When mounting it is not allowed.
pub async fn mount_small(dir: &Path, bytes: u64) -> Result<()> {
    let mut mount = command("mount");
    mount
        .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
        .arg(dir);
    output(&mut mount).await.map(drop)
}

/// Whether the kernel's control groups are mounted, of either version.
fn has_cgroups(mounts: &str) -> bool {
    mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .any(|kind| kind == "cgroup" || kind == "cgroup2")
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

    #[test]
    fn control_groups_are_seen_in_both_versions() {
        assert!(has_cgroups("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"));
        assert!(has_cgroups("none /sys/fs/cgroup cgroup2 rw 0 0\n"));
        assert!(!has_cgroups("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"));
    }
}
