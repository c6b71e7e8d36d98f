//! The real daemon, started as an administrator would start it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Service;

const NAME: &str = "offloader";
const READY_WITHIN: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(20);

/// A daemon that answers. Dropping it ends it by SIGTERM.
pub(super) struct Daemon {
    service: Service,
    url: String,
}

impl Daemon {
    /// Starts it with a configuration and waits until it can start jobs. What it keeps lies in `dir`.
    pub(super) async fn start(
        binary: &Path,
        config: &Path,
        dir: &Path,
        port: u16,
        engine: &str,
    ) -> Result<Self> {
        let mut command = Command::new(binary);
        command
            .arg("--config")
            .arg(config)
            .env("API_HTTP_LISTENADDRESS", format!("127.0.0.1:{port}"))
            .env("STORE_DATASOURCE", dir.join("state"))
            .env("DOCKER_HOST", engine);
        let pid_file = dir.join("offloader.pid");
        let service = Service::spawn(NAME, command, pid_file, dir.join("offloader.log"), GRACE)?;
        let mut daemon = Self {
            service,
            url: format!("http://127.0.0.1:{port}"),
        };
        daemon.wait_until_ready().await?;
        Ok(daemon)
    }

    /// Ends the daemon that a killed run left behind in `dir`.
    pub(super) fn end_leftover(dir: &Path) {
        let (config, pid_file) = (dir.join("config.toml"), dir.join("offloader.pid"));
        drop(Service::left_behind(
            NAME,
            &config,
            pid_file,
            dir.join("offloader.log"),
            GRACE,
        ));
    }

    /// Where its API is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The file with all it says.
    pub(super) fn log(&self) -> &Path {
        self.service.log()
    }

    /// Ends it by SIGTERM, which has to be a clean end.
    pub(super) fn stop(mut self) -> Result<()> {
        self.service.check()?;
        let status = self
            .service
            .stop()
            .with_context(|| format!("SIGTERM did not end the daemon in {GRACE:?}"))?;
        ensure!(
            status.success(),
            "after SIGTERM the daemon ended with {status}"
        );
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let url = format!("{}/healthz", self.url);
        let mut said = String::from("nothing");
        while Instant::now() < until {
            self.service.check()?;
            match reqwest::get(&url).await {
                Ok(answer) => {
                    said = answer.text().await?;
                    let health: serde_json::Value = serde_json::from_str(&said)
                        .with_context(|| format!("/healthz is not JSON: {said}"))?;
                    if health["status"] == "ok" {
                        return Ok(());
                    }
                }
                Err(error) => said = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the daemon was not ready in {READY_WITHIN:?}; /healthz says: {said}")
    }
}
