//! `[api]`: where the service listens, and who may call.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use domain::Secret;
use ipnet::IpNet;

use super::document::{Raw, Section, UnknownKeys};
use super::environment::SECRET_VARIABLES;
use super::values::{boolean, number, number32, text, texts};

/// Where and to whom the service speaks.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) listen: ListenAddress,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) allow_self_registration: bool,
    /// Where clients have to call from to register themselves; empty is anywhere.
    pub(crate) self_registration_networks: Vec<IpNet>,
    /// At how many clients no further one registers itself; `None` is no limit.
    pub(crate) self_registration_clients: Option<NonZeroU32>,
    /// The administrator's secret, where there is to be one.
    pub(crate) admin_secret: Option<Secret>,
    pub(crate) session_lifetime: Duration,
    /// How many connections there may be at once; further ones wait.
    pub(crate) max_connections: usize,
}

/// Far more than a site needs, and far fewer than files may be open.
const MAX_CONNECTIONS: u32 = 1000;

/// `HOST:PORT`; an empty host is every interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Files in PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl ListenAddress {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None if host.contains([':', '/', '[', ']', ' ']) => return None,
            None => host.to_owned(),
        };
        Some(Self {
            host,
            port: port.parse().ok()?,
        })
    }
}

pub(super) fn read(root: &Section<'_>) -> Api {
    let api = root.section("api", UnknownKeys::Warn);
    let http = api.section("http", UnknownKeys::Warn);
    let security = api.section("security", UnknownKeys::Warn);
    let config = Api {
        listen: listen_address(&http),
        tls: tls(&http),
        allow_self_registration: security
            .get_over(
                "allow_self_registration",
                &["API_SECURITY_ALLOWSELFREGISTRATION"],
                boolean,
            )
            .unwrap_or(false),
        self_registration_networks: security
            .get("self_registration_networks", networks)
            .unwrap_or_default(),
        self_registration_clients: security
            .get("self_registration_clients", number32(0))
            .and_then(NonZeroU32::new),
        admin_secret: admin_secret(&security),
        session_lifetime: session_lifetime(&security),
        max_connections: http
            .get("max_connections", number32(1))
            .unwrap_or(MAX_CONNECTIONS) as usize,
    };
    http.finish();
    security.finish();
    api.finish();
    config
}

fn listen_address(http: &Section<'_>) -> ListenAddress {
    let address = http.get_over("listen_address", &["API_HTTP_LISTENADDRESS"], |raw| {
        let text = text(raw)?;
        ListenAddress::parse(&text)
            .ok_or_else(|| format!("expected HOST:PORT or :PORT, found {text:?}"))
    });
    address.unwrap_or(ListenAddress {
        host: String::new(),
        port: 4545,
    })
}

fn tls(http: &Section<'_>) -> Option<TlsFiles> {
    let tls = http.section("tls", UnknownKeys::Warn);
    let enabled = tls
        .get_over("enable", &["API_HTTP_TLS_ENABLE"], boolean)
        .unwrap_or(false);
    let certificate = tls
        .get_over("cert_file", &["API_HTTP_TLS_CERTFILE"], text)
        .unwrap_or_default();
    let key = tls
        .get_over("cert_key", &["API_HTTP_TLS_CERTKEY"], text)
        .unwrap_or_default();
    if enabled {
        for (name, value) in [("cert_file", &certificate), ("cert_key", &key)] {
            if value.is_empty() {
                let place = tls.reader().place(&tls.key("enable"));
                tls.reader().problem(
                    place,
                    &tls.key(name),
                    "expected the path of a PEM file, as TLS is enabled",
                );
            }
        }
    }
    tls.finish();
    enabled.then(|| TlsFiles {
        certificate: certificate.into(),
        key: key.into(),
    })
}

/// Networks and single addresses.
fn networks(raw: Raw<'_>) -> Result<Vec<IpNet>, String> {
    let network = |text: String| {
        let address = || text.parse().map(|address: IpAddr| address.into());
        text.parse()
            .or_else(|_| address())
            .map_err(|_| format!("expected networks such as \"10.0.0.0/8\", found {text:?}"))
    };
    texts(raw)?.into_iter().map(network).collect()
}

fn admin_secret(security: &Section<'_>) -> Option<Secret> {
    let enabled = security
        .get_over("enable_admin", &["API_SECURITY_ENABLEADMIN"], boolean)
        .unwrap_or(false);
    let secret = security
        .get_over("admin_secret_key", &SECRET_VARIABLES, text)
        .unwrap_or_default();
    if enabled && secret.is_empty() {
        let place = security.reader().place(&security.key("enable_admin"));
        let key = security.key("admin_secret_key");
        security.reader().problem(
            place,
            &key,
            "expected a secret that is not empty, as the administrator is enabled",
        );
    }
    let secret = Secret::new(secret);
    enabled.then_some(secret)
}

fn session_lifetime(security: &Section<'_>) -> Duration {
    let cache = security.section("session_cache", UnknownKeys::Warn);
    let variables = &["API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES"];
    let minutes = cache
        .get_over("expiration_minutes", variables, number(1))
        .unwrap_or(1440);
    cache.finish();
    Duration::from_secs(minutes.saturating_mul(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        for (text, host, port) in [
            (":4545", "", 4545),
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("localhost:0", "localhost", 0),
            ("[::1]:4545", "::1", 4545),
        ] {
            let address = ListenAddress::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "4545",
            ":",
            ":99999",
            "::1:80",
            "http://x:80",
            "[x]:80",
            ":http",
        ] {
            assert_eq!(ListenAddress::parse(text), None, "{text}");
        }
    }
}
