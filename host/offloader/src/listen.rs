//! The socket and its encryption.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use crate::ambient;
use crate::config::{ListenAddress, TlsFiles};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// After this long without a word it is asked whether the other side is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long a client may leave unread, or unacknowledged, what it was sent. Whoever pages through a
/// log reads on before that.
const STALLED: Duration = Duration::from_secs(10 * 60);

/// Listens on an address; an empty host is every interface, by IPv6 and IPv4.
///
/// # Errors
/// When the address is taken, not this machine's, or not allowed.
pub(crate) async fn listen(address: &ListenAddress) -> anyhow::Result<TcpListener> {
    let candidates: Vec<SocketAddr> = if address.host.is_empty() {
        vec![
            ([0_u16; 8], address.port).into(),
            ([0_u8; 4], address.port).into(),
        ]
    } else {
        let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
        found
            .with_context(|| format!("cannot listen on {address}: no such host"))?
            .collect()
    };
    let mut failure = None;
    for candidate in candidates {
        match bind(candidate, STALLED) {
            Ok(listener) => return Ok(listener),
            // A machine without IPv6 is served by IPv4; a taken port is taken.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(error)
                    .with_context(|| format!("cannot listen on {address}: another program does"));
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
        None => bail!("cannot listen on {address}: no such host"),
    }
}

/// Listens on an address. Connections that come by it are broken off when they leave unread for
/// `stalled` what they were sent, or when the other side has gone without a word.
pub(crate) fn bind(address: SocketAddr, stalled: Duration) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Whatever the machine's default: an unspecified address is both protocols'.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections have these from the socket that they come by.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    socket.set_tcp_user_timeout(Some(stalled))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What TLS needs, from files in PEM format. TLS 1.2 at least.
///
/// # Errors
/// When a file cannot be read, holds something else, or the two do not belong together.
pub(crate) fn tls(files: &TlsFiles) -> anyhow::Result<Arc<ServerConfig>> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&read("certificate", &files.certificate)?)
            .collect::<Result<_, _>>()
            .with_context(|| {
                format!(
                    "{} is no certificate in PEM format",
                    files.certificate.display()
                )
            })?;
    if certificates.is_empty() {
        bail!("there is no certificate in {}", files.certificate.display());
    }
    let key =
        PrivateKeyDer::from_pem_slice(&read("private key", &files.key)?).with_context(|| {
            format!(
                "there is no private key in PEM format in {}",
                files.key.display()
            )
        })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .context("TLS")?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| {
            format!(
                "{} and {} do not belong together",
                files.certificate.display(),
                files.key.display()
            )
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(what: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    ambient::read(path).with_context(|| format!("cannot read the {what} {}", path.display()))
}
