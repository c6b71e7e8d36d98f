//! A real image registry on loopback: Debian's docker-registry, with its own storage.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::engine::Engine;
use crate::host::{self, find};
use crate::layout::Layout;
use crate::process::{Service, output};

const GRACE: Duration = Duration::from_secs(10);
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A registry that can be stopped and started again at the same address. Ends when dropped.
pub(crate) struct Registry {
    port: u16,
    config: PathBuf,
    pid_file: PathBuf,
    log: PathBuf,
    service: Option<Service>,
}

impl Registry {
    /// Starts it on a free port, 5000 if possible: what an administrator would see in examples.
    pub(crate) async fn start(layout: &Layout) -> Result<Self> {
        host::ensure(layout, host::REGISTRY).await?;
        let dir = layout.target_dir("registry")?;
        let (config, pid_file, log) = (
            dir.join("config.yml"),
            dir.join("pid"),
            dir.join("registry.log"),
        );
        // What a killed run left behind would hold the storage and the port.
        drop(Service::left_behind(
            "docker-registry",
            &config,
            pid_file.clone(),
            log.clone(),
            GRACE,
        ));

        let port = free_port(5000..5010)?;
        let storage = layout.target_dir("registry/storage")?;
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let mut registry = Self {
            port,
            config,
            pid_file,
            log,
            service: None,
        };
        registry.resume().await?;
        Ok(registry)
    }

    /// HOST:PORT as it stands in front of an image's name.
    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What an image that is here under `name` (repository:tag) is pulled by.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// Ends the process: from now on connections are refused.
    pub(crate) fn stop(&mut self) {
        self.service = None;
    }

    /// Starts the process again, at the same address with the same content, and waits until it answers.
    pub(crate) async fn resume(&mut self) -> Result<()> {
        let program = find("docker-registry").context("docker-registry is gone")?;
        let mut command = std::process::Command::new(program);
        command.arg("serve").arg(&self.config);
        let service = Service::spawn(
            "docker-registry",
            command,
            self.pid_file.clone(),
            self.log.clone(),
            GRACE,
        )?;
        let service = self.service.insert(service);
        let url = format!("http://127.0.0.1:{}/v2/", self.port);
        let until = Instant::now() + READY_WITHIN;
        while reqwest::get(&url).await.is_err() {
            service.check()?;
            if Instant::now() > until {
                bail!(
                    "docker-registry did not answer in {READY_WITHIN:?}; see {}",
                    self.log.display()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Puts an image of the engine into the registry under `name`. The engine forgets that name again,
    /// so that it has to be pulled.
    pub(crate) async fn push(&self, engine: &Engine, image: &str, name: &str) -> Result<()> {
        let reference = self.reference(name);
        output(&mut engine.docker(["tag", image, &reference])).await?;
        output(&mut engine.docker(["push", "--quiet", &reference])).await?;
        output(&mut engine.docker(["image", "rm", &reference])).await?;
        Ok(())
    }
}

/// A loopback port that nothing listens on, the first of `preferred` that is free.
pub(crate) fn free_port(preferred: impl IntoIterator<Item = u16>) -> Result<u16> {
    let listener = preferred
        .into_iter()
        .chain([0])
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;

    #[test]
    fn a_taken_port_is_stepped_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_port([port]).unwrap(), port);
    }

    #[tokio::test]
    async fn what_was_pushed_can_be_pulled_but_not_while_the_registry_is_down() {
        let test = "what_was_pushed_can_be_pulled_but_not_while_the_registry_is_down";
        let Some(engine) = offloader_system_tests::need_engine(test).map(Engine::at) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        // An image of one small file.
        let file = dir.path().join("file");
        fs::write(&file, test).unwrap();
        let tar = dir.path().join("tar");
        output(
            command("tar")
                .arg("-cf")
                .arg(&tar)
                .arg("-C")
                .arg(dir.path())
                .arg("file"),
        )
        .await
        .unwrap();
        let (built, name) = ("offloader-xtask-test:one", "offloader/xtask-test:v1");
        output(&mut engine.docker(["import", tar.to_str().unwrap(), built]))
            .await
            .unwrap();

        let mut registry = Registry::start(&Layout::at(dir.path())).await.unwrap();
        registry.push(&engine, built, name).await.unwrap();
        let reference = registry.reference(name);
        let pull = async || output(&mut engine.docker(["pull", "--quiet", &reference])).await;
        registry.stop();
        assert!(pull().await.is_err(), "pulled from a registry that is down");
        registry.resume().await.unwrap();
        pull().await.unwrap();
        output(&mut engine.docker(["image", "rm", &reference, built]))
            .await
            .unwrap();
    }
}
