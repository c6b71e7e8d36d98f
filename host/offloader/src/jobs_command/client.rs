//! The API of a running service, as a client or the administrator.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use domain::Secret;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;

use crate::ambient;
use crate::config::Environment;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a deletion may take: the service waits half a minute each for the kill and the removal.
const REMOVAL: Duration = Duration::from_secs(90);
/// How long a job may take to run; the service answers in the time that it is configured with.
const START: Duration = Duration::from_secs(15 * 60);
/// How long a connection may be idle until it is looked whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Jobs on a page of the service.
const PAGE: usize = 100;

/// Which service, and as whom.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Where the service is. With http:// credentials go there in clear: only on this machine, or
    /// through a tunnel.
    #[arg(
        long,
        global = true,
        env = "OFFLOADER_URL",
        default_value = "http://127.0.0.1:4545"
    )]
    url: String,
    /// Trust the authorities in this PEM file, and not those of the system.
    #[arg(long, global = true, env = "OFFLOADER_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
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
    /// It was done, and did not come to a good end.
    #[error("{0}")]
    Undelivered(String),
    /// What was answered cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A file cannot be written, or not to its end.
    #[error("cannot write {file}: {error}")]
    Unwritten {
        /// Which.
        file: String,
        /// Why.
        error: io::Error,
    },
}

impl Failure {
    /// The program's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            _ if self.is_not_found() => 4,
            Self::Refused { .. }
            | Self::Undelivered(_)
            | Self::Output(_)
            | Self::Unwritten { .. } => 1,
            Self::Unusable(_) => 2,
            Self::Unreached(_) => 3,
        }
    }

    /// Whether what was asked for is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    fn unreached(url: &str, error: impl Error + Send + Sync + 'static) -> Self {
        // The reason is behind several layers of "could not".
        Self::Unreached(format!("{url}: {:#}", anyhow::Error::from(error)))
    }

    fn silent(url: &str, limit: Duration) -> Self {
        let limit = limit.as_secs();
        Self::Unreached(format!("{url}: nothing came for {limit} seconds"))
    }
}

/// The service.
pub(crate) struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: String,
    credentials: HeaderValue,
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
        let scheme = url
            .parse()
            .ok()
            .and_then(|url: Uri| url.into_parts().scheme);
        let scheme = scheme.as_ref().map(|scheme| scheme.as_str());
        let trusted = match (scheme, &connection.ca_file) {
            (Some("https"), Some(file)) => authorities(file)?,
            (Some("https"), None) => system_authorities()?,
            (Some("http"), None) => RootCertStore::empty(),
            (Some("http"), Some(_)) => {
                let why = format!("{url}: --ca-file is for https://…");
                return Err(Failure::Unusable(why));
            }
            _ => {
                let why = format!("{url}: expected http://… or https://…");
                return Err(Failure::Unusable(why));
            }
        };
        let mut credentials = basic(user, &secret)?;
        credentials.set_sensitive(true);
        Ok(Self {
            http: hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .build(connector(trusted)?),
            url,
            credentials,
        })
    }

    /// Jobs, newest first: at most `limit`, and whether more follow.
    pub(crate) async fn list(
        &self,
        states: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Value>, bool), Failure> {
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
                None => return Ok((jobs, false)),
            }
        }
        Ok((jobs, true))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.read(self.ask(Method::GET, path).await?).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value, Failure> {
        self.read(self.ask(Method::POST, path).await?).await
    }

    /// The same of a job that is to be started, which is answered once it runs.
    pub(crate) async fn start(&self, path: &str) -> Result<Value, Failure> {
        self.read(self.ask_within(START, Method::POST, path).await?)
            .await
    }

    /// What the service says about what is gone, if anything.
    pub(crate) async fn delete(&self, path: &str) -> Result<Option<Value>, Failure> {
        let answer = self.ask_within(REMOVAL, Method::DELETE, path).await?;
        Ok(serde_json::from_slice(&self.whole(answer).await?).ok())
    }

    /// An answer as it comes. `silence` is how long nothing may come of it; `None` is for ever.
    async fn stream(&self, path: &str, silence: Option<Duration>) -> Result<Output, Failure> {
        Ok(Output {
            body: self.ask(Method::GET, path).await?.into_body(),
            url: self.url.clone(),
            silence,
        })
    }

    /// What a job writes, which may be nothing for long.
    pub(crate) async fn follow(&self, path: &str) -> Result<Output, Failure> {
        self.stream(path, None).await
    }

    /// What there is already.
    pub(crate) async fn download(&self, path: &str) -> Result<Output, Failure> {
        self.stream(path, Some(SILENCE)).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Response<Incoming>, Failure> {
        self.ask_within(SILENCE, method, path).await
    }

    async fn ask_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
    ) -> Result<Response<Incoming>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(AUTHORIZATION, &self.credentials)
            .body(Empty::new());
        let request = request.map_err(|error| Failure::Unusable(error.to_string()))?;
        let answer = timeout(limit, self.http.request(request)).await;
        let answer = answer.map_err(|_| Failure::silent(&self.url, limit))?;
        let answer = answer.map_err(|error| Failure::unreached(&self.url, error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body: Value = match self.whole(answer).await {
            Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let text = match body["error"].as_str() {
            Some(text) => text.to_owned(),
            None => format!("the service answered {status}"),
        };
        Err(Failure::Refused { status, text })
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = timeout(SILENCE, answer.into_body().collect()).await;
        let body = body.map_err(|_| Failure::silent(&self.url, SILENCE))?;
        let body = body.map_err(|error| Failure::unreached(&self.url, error))?;
        Ok(body.to_bytes())
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Value, Failure> {
        serde_json::from_slice(&self.whole(answer).await?)
            .map_err(|error| Failure::Unreached(format!("this is no job service: {error}")))
    }
}

/// Bytes as they come.
pub(crate) struct Output {
    body: Incoming,
    url: String,
    silence: Option<Duration>,
}

impl Output {
    /// The next ones; `None` at the end. An answer that breaks off is an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match self.silence {
                Some(silence) => timeout(silence, self.body.frame()).await,
                None => Ok(self.body.frame().await),
            };
            let frame = frame.map_err(|_| Failure::silent(&self.url, SILENCE))?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| Failure::unreached(&self.url, error))?;
            // The other kind of frames are trailers.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// Connects with TLS where the address says so, to whom `trusted` vouches for.
fn connector(trusted: RootCertStore) -> Result<HttpsConnector<HttpConnector>, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|error| Failure::Unusable(error.to_string()))?;
    let tls = tls.with_root_certificates(trusted).with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp))
}

/// The authorities in a file.
fn authorities(file: &Path) -> Result<RootCertStore, Failure> {
    let unusable = |why: String| Failure::Unusable(format!("{}: {why}", file.display()));
    let text = ambient::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        let added = trusted.add(certificate);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    if trusted.is_empty() {
        return Err(unusable("there is no certificate in PEM format".to_owned()));
    }
    Ok(trusted)
}

/// The authorities that this machine trusts.
fn system_authorities() -> Result<RootCertStore, Failure> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if trusted.is_empty() {
        let why = "this machine trusts no authority: install its CA certificates, or name a file \
                   with --ca-file";
        return Err(Failure::Unusable(why.to_owned()));
    }
    Ok(trusted)
}

fn basic(user: &str, secret: &Secret) -> Result<HeaderValue, Failure> {
    let credentials = STANDARD.encode(format!("{user}:{}", secret.reveal()));
    HeaderValue::try_from(format!("Basic {credentials}"))
        .map_err(|error| Failure::Unusable(error.to_string()))
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
