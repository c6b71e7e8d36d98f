//! The connection to the engine: its address, the version spoken, time limits, and what its
//! errors mean.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use engine::RunnerError;
use tokio::time::{Instant, timeout};

use crate::DockerConfig;

/// Time for a request that the engine answers from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(10);

/// Where Docker's engine listens when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The library's own limit in seconds. It covers long streams too, so it is out of the way here:
/// each call has a limit of its own.
const NO_LIMIT: u64 = 100 * 365 * 24 * 3600;

/// Messages of the engine are cut after this many bytes.
const LONGEST_MESSAGE: usize = 1000;

/// The time left until `deadline`.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A client of one engine. Connects anew for each request, so an engine that comes back is found
/// again by itself.
pub(crate) struct Client {
    address: Address,
    api_version: Option<String>,
    /// The library's client once the version is settled; forgotten when the engine goes out of
    /// reach, because it may come back in another version.
    settled: Mutex<Option<Docker>>,
    /// Held while the version is asked for: after a start all jobs ask at once.
    settling: tokio::sync::Mutex<()>,
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Unix(String),
    Plain(String),
    Tls { host: String, certs: PathBuf },
}

/// Why a request to the engine came to nothing.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// It did not answer, or not in time. Whether it acted is unknown.
    Unreachable(String),
    /// It answered with an error. `status` is HTTP's, or 0 for an error inside a stream.
    Refused { status: u16, message: String },
}

impl Client {
    /// A client for the configured engine, which need not be up.
    pub(crate) fn new(config: &DockerConfig) -> Result<Self, RunnerError> {
        let invalid = |detail: String| RunnerError {
            operation: "connect",
            detail,
            unreachable: false,
        };
        let address = Address::of(config).map_err(invalid)?;
        if let Some(version) = &config.api_version {
            let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !version
                .split_once('.')
                .is_some_and(|(major, minor)| number(major) && number(minor))
            {
                return Err(invalid(format!(
                    "DOCKER_API_VERSION: {version:?} is no version like 1.41"
                )));
            }
        }
        let client = Self {
            address,
            api_version: config.api_version.clone(),
            settled: Mutex::new(None),
            settling: tokio::sync::Mutex::default(),
        };
        match client.open().map_err(Trouble::from) {
            Ok(_) | Err(Trouble::Unreachable(_)) => Ok(client),
            Err(trouble) => Err(trouble.during("connect")),
        }
    }

    /// Whether the engine is on this machine, as far as its address tells.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Sends a request and waits for its answer until `limit` has passed.
    pub(crate) async fn call<T, F>(
        &self,
        limit: Duration,
        request: impl FnOnce(Docker) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let answer = async { request(self.docker().await?).await.map_err(Trouble::from) };
        let answer = timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Trouble::Unreachable(format!(
                "no answer within {} s",
                limit.as_secs_f32()
            )))
        });
        if let Err(Trouble::Unreachable(_)) = answer {
            *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer
    }

    /// The library's client, for requests whose answer is a stream.
    pub(crate) async fn stream(&self) -> Result<Docker, Trouble> {
        self.call(QUICK, |docker| async { Ok(docker) }).await
    }

    async fn docker(&self) -> Result<Docker, Trouble> {
        if let Some(docker) = self.settled() {
            return Ok(docker);
        }
        let _turn = self.settling.lock().await;
        if let Some(docker) = self.settled() {
            return Ok(docker);
        }
        let docker = self.open()?;
        let (docker, version) = match &self.api_version {
            Some(version) => (docker, version.clone()),
            None => {
                let docker = docker.negotiate_version().await?;
                let version = docker.client_version().to_string();
                (docker, version)
            }
        };
        let docker = docker.with_request_modifier(move |request| speak(request, &version));
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = Some(docker.clone());
        Ok(docker)
    }

    fn settled(&self) -> Option<Docker> {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.clone()
    }

    fn open(&self) -> Result<Docker, Error> {
        match &self.address {
            Address::Unix(path) => Docker::connect_with_unix(path, NO_LIMIT, API_DEFAULT_VERSION),
            Address::Plain(host) => Docker::connect_with_http(host, NO_LIMIT, API_DEFAULT_VERSION),
            Address::Tls { host, certs } => {
                let pem = |name| certs.join(name);
                let (key, cert, ca) = (pem("key.pem"), pem("cert.pem"), pem("ca.pem"));
                Docker::connect_with_ssl(host, &key, &cert, &ca, NO_LIMIT, API_DEFAULT_VERSION)
            }
        }
    }
}

impl Address {
    fn of(config: &DockerConfig) -> Result<Self, String> {
        let host = config
            .host
            .as_deref()
            .filter(|host| !host.is_empty())
            .unwrap_or(DEFAULT_HOST);
        let (scheme, rest) = host.split_once("://").unwrap_or_default();
        if rest.is_empty() {
            return Err(format!(
                "DOCKER_HOST: {host:?} is no address like unix:///path or tcp://host:port"
            ));
        }
        let certs = config
            .cert_path
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        match scheme {
            "unix" => Ok(Self::Unix(rest.to_owned())),
            "tcp" | "http" | "https" => {
                let tls = scheme == "https"
                    || (scheme == "tcp" && (config.tls_verify || certs.is_some()));
                let host = rest.trim_end_matches('/').to_owned();
                match (tls, certs) {
                    (false, _) => Ok(Self::Plain(host)),
                    (true, Some(certs)) => Ok(Self::Tls { host, certs }),
                    (true, None) => Err("TLS to the engine needs DOCKER_CERT_PATH".to_owned()),
                }
            }
            _ => Err(format!(
                "DOCKER_HOST: the scheme of {host:?} is not supported"
            )),
        }
    }
}

/// Puts the version into the request's path. The library sends paths without one, which means
/// whatever version the engine likes best.
fn speak(mut request: BollardRequest, version: &str) -> BollardRequest {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if !path.starts_with("/v1.") {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let versioned = format!(
            "{}://{authority}/v{version}{path}",
            uri.scheme_str().unwrap_or("http")
        );
        if let Ok(versioned) = versioned.parse() {
            *request.uri_mut() = versioned;
        }
    }
    request
}

impl Trouble {
    /// The engine's HTTP status, where it answered with one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable(_) => None,
        }
    }

    /// What was said, for people.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Unreachable(message) | Self::Refused { message, .. } => message,
        }
    }

    /// The error of a named operation.
    pub(crate) fn during(self, operation: &'static str) -> RunnerError {
        let unreachable = matches!(self, Self::Unreachable(_));
        RunnerError {
            operation,
            detail: self.message(),
            unreachable,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let refused = |status, message: String| Self::Refused {
            status,
            message: cut(message),
        };
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => refused(status_code, message),
            Error::DockerStreamError { error } => refused(0, error),
            Error::HyperLegacyError { err } => Self::Unreachable(with_causes(&err)),
            Error::HyperResponseError { err } => Self::Unreachable(with_causes(&err)),
            Error::IOError { err } => Self::Unreachable(with_causes(&err)),
            error @ (Error::RequestTimeoutError | Error::SocketNotFoundError(_)) => {
                Self::Unreachable(error.to_string())
            }
            error => refused(0, error.to_string()),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn cut(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(host: &str) -> DockerConfig {
        DockerConfig {
            host: Some(host.to_owned()),
            ..DockerConfig::new("main".parse().unwrap())
        }
    }

    #[test]
    fn addresses_are_read_as_dockers_own_clients_read_them() {
        let certs = PathBuf::from("/certs");
        let with_certs = |host| DockerConfig {
            cert_path: Some(certs.clone()),
            ..config(host)
        };
        let tls = |host: &str| Address::Tls {
            host: host.to_owned(),
            certs: certs.clone(),
        };
        for (config, address) in [
            (config(""), Address::Unix("/var/run/docker.sock".into())),
            (
                config("unix:///run/d.sock"),
                Address::Unix("/run/d.sock".into()),
            ),
            (config("tcp://h:2375"), Address::Plain("h:2375".into())),
            (
                with_certs("unix:///run/d.sock"),
                Address::Unix("/run/d.sock".into()),
            ),
            (with_certs("tcp://h:2376"), tls("h:2376")),
            (with_certs("https://h:2376/"), tls("h:2376")),
        ] {
            assert_eq!(Address::of(&config), Ok(address), "{:?}", config.host);
        }
        for bad in ["h:2375", "unix://", "ssh://h", "fd://"] {
            assert!(Address::of(&config(bad)).is_err(), "{bad}");
        }
        let without_certs = DockerConfig {
            tls_verify: true,
            ..config("tcp://h:2376")
        };
        assert_eq!(
            Address::of(&without_certs),
            Err("TLS to the engine needs DOCKER_CERT_PATH".into())
        );
    }

    #[test]
    fn connecting_needs_no_engine_but_a_sound_configuration() {
        assert!(Client::new(&config("unix:///nowhere/docker.sock")).is_ok());
        assert!(
            Client::new(&DockerConfig {
                api_version: Some("1.41".into()),
                ..config("")
            })
            .is_ok()
        );
        for version in ["", "1", "1.", "1.41/../x", "latest"] {
            let config = DockerConfig {
                api_version: Some(version.into()),
                ..config("")
            };
            assert!(Client::new(&config).is_err(), "{version:?}");
        }
        let no_certs = DockerConfig {
            cert_path: Some("/nowhere".into()),
            ..config("tcp://localhost:2376")
        };
        let error = Client::new(&no_certs).err().unwrap();
        assert!(
            !error.unreachable && error.detail.contains("/nowhere/ca.pem"),
            "{error}"
        );
    }

    #[test]
    fn request_bodies_never_reach_a_log() {
        assert!(log::STATIC_MAX_LEVEL <= log::LevelFilter::Info);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let message = cut("é".repeat(800));
        assert!(message.len() < 1010 && message.ends_with('…'));
    }
}
