//! The API of a running service, as a client or the administrator.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use domain::Secret;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::ambient;
use crate::config::Environment;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may be silent. Deleting waits for the container engine for half a minute.
const SILENCE: Duration = Duration::from_secs(60);
/// Jobs on a page of the service.
const PAGE: usize = 100;

/// Which service, and as whom.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Where the service is. Credentials go there in clear: keep to this machine, or a tunnel.
    #[arg(
        long,
        global = true,
        env = "OFFLOADER_URL",
        default_value = "http://127.0.0.1:4545"
    )]
    url: String,
    /// Act as this client, with the key of --key-file or OFFLOADER_KEY. Otherwise as the
    /// administrator.
    #[arg(long, global = true, env = "OFFLOADER_CLIENT", value_name = "ID")]
    client: Option<String>,
    /// A file with the client's key.
    #[arg(long, global = true, value_name = "FILE", requires = "client")]
    key_file: Option<PathBuf>,
    /// A file with the administrator's secret.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "client")]
    admin_secret_file: Option<PathBuf>,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It could not even be asked.
    #[error("{0}")]
    Unusable(String),
    /// The service was not reached, or the connection broke.
    #[error("{0}")]
    Unreached(String),
    /// The service said no.
    #[error("{text}")]
    Refused {
        /// With which status.
        status: StatusCode,
        /// With what words.
        text: String,
    },
    /// What was answered cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The program's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND => 4,
            Self::Refused { .. } | Self::Output(_) => 1,
            Self::Unusable(_) => 2,
            Self::Unreached(_) => 3,
        }
    }

    fn unreached(error: &reqwest::Error) -> Self {
        let mut text = error.to_string();
        // The reason is behind several layers of "could not".
        let mut source = std::error::Error::source(error);
        while let Some(deeper) = source {
            text = format!("{text}: {deeper}");
            source = deeper.source();
        }
        Self::Unreached(text)
    }
}

/// The service.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    user: String,
    secret: Secret,
}

impl Client {
    /// Takes credentials from their places.
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        let environment = ambient::environment();
        let (user, file, variable) = match &connection.client {
            Some(client) => (client.as_str(), &connection.key_file, "OFFLOADER_KEY"),
            None => ("", &connection.admin_secret_file, "OFFLOADER_ADMIN_SECRET"),
        };
        let secret = secret(file.as_deref(), &environment, variable)?;
        let url = connection.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") {
            let why = format!("{url}: expected http://…; this command does not speak TLS");
            return Err(Failure::Unusable(why));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none());
        let http = http.build();
        Ok(Self {
            http: http.map_err(|error| Failure::Unusable(error.to_string()))?,
            url,
            user: user.to_owned(),
            secret,
        })
    }

    /// Jobs, newest first: at most `limit`.
    pub(crate) async fn list(
        &self,
        states: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut jobs = Vec::new();
        let mut before = String::new();
        while jobs.len() < limit {
            let page = PAGE.min(limit - jobs.len());
            let states = states.map(|states| format!("&state={states}"));
            let states = states.unwrap_or_default();
            let path = format!("/jobs?limit={page}{before}{states}");
            let mut answer = self.get(&path).await?;
            if let Value::Array(page) = answer["jobs"].take() {
                jobs.extend(page);
            }
            match answer["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        Ok(jobs)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        read(self.ask(Method::GET, path).await?).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value, Failure> {
        read(self.ask(Method::POST, path).await?).await
    }

    /// What the service says about what is gone, if anything.
    pub(crate) async fn delete(&self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask(Method::DELETE, path).await?;
        let text = answer.text().await;
        let text = text.map_err(|error| Failure::unreached(&error))?;
        Ok(serde_json::from_str(&text).ok())
    }

    /// An answer as it comes, however long that takes.
    pub(crate) async fn stream(&self, path: &str) -> Result<Output, Failure> {
        Ok(Output(self.ask(Method::GET, path).await?))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Response, Failure> {
        let asked = self
            .http
            .request(method, format!("{}{path}", self.url))
            .basic_auth(&self.user, Some(self.secret.reveal()));
        let answer = asked.send().await;
        let answer = answer.map_err(|error| Failure::unreached(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body: Value = answer.json().await.unwrap_or_default();
        let text = match body["error"].as_str() {
            Some(text) => text.to_owned(),
            None => format!("the service answered {status}"),
        };
        Err(Failure::Refused { status, text })
    }
}

async fn read(answer: Response) -> Result<Value, Failure> {
    let text = answer.text().await;
    let text = text.map_err(|error| Failure::unreached(&error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Unreached(format!("this is no job service: {error}")))
}

/// Bytes as they come.
pub(crate) struct Output(Response);

impl Output {
    /// The next ones; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        let chunk = self.0.chunk().await;
        chunk.map_err(|error| Failure::unreached(&error))
    }
}

/// A secret out of its file, else out of the environment.
fn secret(
    file: Option<&Path>,
    environment: &Environment,
    variable: &str,
) -> Result<Secret, Failure> {
    let Some(file) = file else {
        let value = environment.get(variable).map(Secret::new);
        return value.ok_or_else(|| {
            Failure::Unusable(format!(
                "no credentials: set {variable}, or name a file (see --help)"
            ))
        });
    };
    match ambient::read_text(file) {
        Ok(text) if text.trim().is_empty() => {
            Err(Failure::Unusable(format!("{} is empty", file.display())))
        }
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(error) => Err(Failure::Unusable(format!("{}: {error}", file.display()))),
    }
}
