//! The container engine that everything else uses: one that is there, or a private one.

mod private;

use std::env;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use offloader_system_tests::ping;
use tokio::process::Command;

use self::private::PrivateEngine;
use crate::host;
use crate::layout::{Layout, host_is_root};
use crate::process::{command, output};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// A container engine that answers. Dropping it stops it if this run started it.
pub(crate) struct Engine {
    host: String,
    version: String,
    /// Held so that it ends with this, where this run is the one that ends it.
    private: Option<PrivateEngine>,
}

impl Engine {
    /// The engine of DOCKER_HOST, else of the default socket, else a private one of this checkout,
    /// which is installed and started where that is possible.
    pub(crate) async fn find_or_start(layout: &Layout) -> Result<Self> {
        if let Some(engine) = Self::find(layout).await? {
            return Ok(engine);
        }
        if !(host_is_root() && host::has_apt()) {
            bail!(
                "no container engine answers at {DEFAULT_SOCKET}, and a private one needs root on Debian.\n\
                 Either start Docker (on Debian: `apt-get install docker.io`, and be a member of group \
                 docker), or name an engine with DOCKER_HOST, or run this as root."
            );
        }
        host::ensure(layout, host::ENGINE).await?;
        // Installing the package may have started the system's own engine.
        if let Some(engine) = Self::find(layout).await? {
            return Ok(engine);
        }
        let private = PrivateEngine::start(layout).await?;
        let host = private.host();
        let version = ping(&host)
            .await
            .context("the private engine stopped answering")?;
        Ok(Self {
            host,
            version,
            private: Some(private),
        })
    }

    /// The engine that is there already, if any. A private one that a killed run left behind is taken
    /// over: it ends with this run.
    pub(crate) async fn find(layout: &Layout) -> Result<Option<Self>> {
        if let Some(host) = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
            host::ensure(layout, host::CLIENT).await?;
            let version = ping(&host)
                .await
                .with_context(|| format!("no container engine answers at DOCKER_HOST={host}"))?;
            return Ok(Some(Self {
                host,
                version,
                private: None,
            }));
        }
        if Path::new(DEFAULT_SOCKET).exists() {
            host::ensure(layout, host::CLIENT).await?;
            let host = format!("unix://{DEFAULT_SOCKET}");
            if let Ok(version) = ping(&host).await {
                return Ok(Some(Self {
                    host,
                    version,
                    private: None,
                }));
            }
        }
        let Some(private) = PrivateEngine::running(layout) else {
            return Ok(None);
        };
        let host = private.host();
        Ok(match ping(&host).await {
            Ok(version) => Some(Self {
                host,
                version,
                private: Some(private),
            }),
            // Dropping it ends what does not answer.
            Err(_) => None,
        })
    }

    /// Its address, as DOCKER_HOST wants it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is this checkout's own, where everything is ours.
    pub(crate) fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// The docker command line, talking to this engine.
    pub(crate) fn docker<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut docker = docker(&self.host);
        docker.args(args);
        docker
    }

    /// The host's address as a container on the default bridge reaches it.
    pub(crate) async fn gateway(&self) -> Result<IpAddr> {
        let format = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";
        let shown =
            output(&mut self.docker(["network", "inspect", "bridge", "--format", format])).await?;
        shown
            .split_whitespace()
            .find_map(|word| word.parse().ok())
            .with_context(|| format!("the bridge network of {} names no gateway", self.host))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.is_private() {
            "a private engine"
        } else {
            "the engine"
        };
        write!(f, "{whose} at {} (version {})", self.host, self.version)
    }
}

/// `cargo xtask engine start`.
pub(crate) async fn start(layout: &Layout) -> Result<()> {
    host::ensure(layout, host::ENGINE).await?;
    let private = match PrivateEngine::running(layout) {
        Some(running) if ping(&running.host()).await.is_ok() => running,
        unusable => {
            drop(unusable);
            PrivateEngine::start(layout).await?
        }
    };
    println!("export DOCKER_HOST={}", private.host());
    private.leave_running()
}

/// `cargo xtask engine stop`.
pub(crate) async fn stop(layout: &Layout) -> Result<()> {
    match PrivateEngine::running(layout) {
        Some(mut private) => {
            private.own();
            drop(private);
            println!("stopped");
        }
        None => println!("no private engine was running"),
    }
    Ok(())
}

/// `cargo xtask engine status`.
pub(crate) async fn status(layout: &Layout) -> Result<()> {
    match Engine::find(layout).await? {
        Some(engine) => println!("{engine}"),
        None => println!("none; one would be started at {}", private::host(layout)),
    }
    Ok(())
}

fn docker(host: &str) -> Command {
    let mut docker = command("docker");
    docker.env_remove("DOCKER_CONTEXT").args(["--host", host]);
    docker
}
