//! The container engine's API, without anything between.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::task::JoinSet;

/// A connection to an engine that stays open.
pub(super) struct RawEngine {
    http: Client,
    base: String,
}

impl RawEngine {
    /// The engine at an address as DOCKER_HOST has it.
    pub(super) fn at(host: &str) -> Result<Self> {
        let client = Client::builder().no_proxy();
        let (client, base) = match host.strip_prefix("unix://") {
            Some(path) => (
                client.unix_socket(path.to_owned()),
                "http://engine".to_owned(),
            ),
            None => (client, host.replacen("tcp://", "http://", 1)),
        };
        Ok(Self {
            http: client.build()?,
            base,
        })
    }

    /// What to create for another container like `container`, as the engine describes that one.
    pub(super) async fn like(&self, container: &str) -> Result<Value> {
        let mut seen = self.get(&format!("/containers/{container}/json")).await?;
        let mut body = seen["Config"].take();
        body["HostConfig"] = seen["HostConfig"].take();
        // The engine makes one of its own up where none is given.
        body["Hostname"] = Value::Null;
        Ok(body)
    }

    /// Creates a container and the volumes that it names, and starts it. Returns how long that took.
    pub(super) async fn run(&self, name: &str, body: &Value) -> Result<Duration> {
        let create = format!("/containers/create?name={name}");
        let start = format!("/containers/{name}/start");
        let begin = Instant::now();
        self.send(Method::POST, &create, body).await?;
        self.send(Method::POST, &start, &Value::Null).await?;
        Ok(begin.elapsed())
    }

    /// Asks a container to end.
    pub(super) async fn terminate(&self, container: &str) -> Result<()> {
        let path = format!("/containers/{container}/kill?signal=TERM");
        self.send(Method::POST, &path, &Value::Null).await.map(drop)
    }

    /// Kills a container and removes it and its volume.
    pub(super) async fn remove(&self, container: &str, volume: &str) -> Result<()> {
        let container = format!("/containers/{container}?force=true");
        self.send(Method::DELETE, &container, &Value::Null).await?;
        let volume = format!("/volumes/{volume}");
        self.send(Method::DELETE, &volume, &Value::Null).await?;
        Ok(())
    }

    /// All containers that run.
    pub(super) async fn list(&self) -> Result<()> {
        self.get("/containers/json").await.map(drop)
    }

    /// Asks about many containers at once.
    pub(super) async fn inspect_all(&self, containers: impl Iterator<Item = String>) -> Result<()> {
        let mut asked = JoinSet::new();
        for container in containers {
            let url = format!("{}/containers/{container}/json", self.base);
            let request = self.http.get(url);
            asked.spawn(async move { request.send().await?.error_for_status()?.bytes().await });
        }
        while let Some(answered) = asked.join_next().await {
            answered??;
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, &Value::Null).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base));
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("{method} {path}"))?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{method} {path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
