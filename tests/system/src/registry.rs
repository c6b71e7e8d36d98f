//! A real image registry on loopback: Debian's docker-registry, with its own storage.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use rustix::process::Signal;

use crate::process::{Service, command, find, output};

const GRACE: Duration = Duration::from_secs(10);
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A registry that can be stopped and started again at the same address. Ends when dropped.
pub struct Registry {
    port: u16,
    storage: PathBuf,
    config: PathBuf,
    pid_file: PathBuf,
    log: PathBuf,
    service: Option<Service>,
}

impl Registry {
    /// Starts it with all that it keeps in a directory, on the first of `ports` that is free, or on
    /// any.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn start(dir: &Path, ports: impl IntoIterator<Item = u16>) -> Result<Self> {
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
        let mut registry = Self {
            port: free_port(ports)?,
            storage: dir.join("storage"),
            config,
            pid_file,
            log,
            service: None,
        };
        registry.resume().await?;
        Ok(registry)
    }

    /// HOST:PORT as it stands in front of an image's name.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What an image that is here under `name` (repository:tag) is pulled by.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// Ends the process: from now on connections are refused.
    pub fn stop(&mut self) {
        self.service = None;
    }

    /// Starts the process again, at the same address with the same content, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn resume(&mut self) -> Result<()> {
        self.serve(None).await
    }

    /// The same, but from now on it wants a password that nobody has.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn resume_locked(&mut self) -> Result<()> {
        let passwords = self.config.with_file_name("passwords");
        // A hash that no password has.
        fs::write(&passwords, format!("nobody:$2y$05${}\n", "x".repeat(53)))
            .with_context(|| format!("writing {}", passwords.display()))?;
        self.serve(Some(&passwords)).await
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

    async fn serve(&mut self, passwords: Option<&Path>) -> Result<()> {
        self.stop();
        self.configure(passwords)?;
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

    fn configure(&self, passwords: Option<&Path>) -> Result<()> {
        let mut text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{}\n",
            self.storage.display(),
            self.port
        );
        if let Some(passwords) = passwords {
            text += &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                passwords.display()
            );
        }
        fs::write(&self.config, text).with_context(|| format!("writing {}", self.config.display()))
    }

    /// Puts an image of the engine at `host` into the registry under `name`. The engine forgets that
    /// name again, so that it has to be pulled.
    ///
    /// # Errors
    /// When the engine cannot.
    pub async fn push(&self, host: &str, image: &str, name: &str) -> Result<()> {
        let reference = self.reference(name);
        for args in [
            &["tag", image, &reference][..],
            &["push", "--quiet", &reference],
            &["image", "rm", &reference],
        ] {
            let mut docker = command("docker");
            docker.args(["--host", host]).args(args);
            output(&mut docker).await?;
        }
        Ok(())
    }
}

/// A loopback port that nothing listens on, the first of `preferred` that is free.
///
/// # Errors
/// When there is none.
pub fn free_port(preferred: impl IntoIterator<Item = u16>) -> Result<u16> {
    let listener = preferred
        .into_iter()
        .chain([0])
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

impl Drop for Registry {
    /// One that is held could not be ended well.
    fn drop(&mut self) {
        self.thaw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need_engine;

    #[test]
    fn a_taken_port_is_stepped_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_port([port]).unwrap(), port);
    }

    #[tokio::test]
    async fn what_was_pushed_can_be_pulled_but_not_while_the_registry_is_down() {
        let test = "what_was_pushed_can_be_pulled_but_not_while_the_registry_is_down";
        let Some(engine) = need_engine(test) else {
            return;
        };
        let docker = |args: &[&str]| {
            let mut docker = command("docker");
            docker.args(["--host", &engine]).args(args);
            docker
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
        output(&mut docker(&["import", tar.to_str().unwrap(), built]))
            .await
            .unwrap();

        let mut registry = Registry::start(dir.path(), []).await.unwrap();
        registry.push(&engine, built, name).await.unwrap();
        let reference = registry.reference(name);
        let pull = async || output(&mut docker(&["pull", "--quiet", &reference])).await;
        registry.stop();
        assert!(pull().await.is_err(), "pulled from a registry that is down");
        registry.resume().await.unwrap();
        pull().await.unwrap();
        output(&mut docker(&["image", "rm", &reference, built]))
            .await
            .unwrap();
    }
}
