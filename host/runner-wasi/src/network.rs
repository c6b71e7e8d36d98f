//! The one place that a job can reach: its site, by the name that it knows it by.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::SiteUrl;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView as _};

use crate::sandbox::Guest;

/// Look-ups that a job can have at once, and how often it gets a further one. Each takes a thread
/// until the name server has answered, whether the job still waits for it or not.
const LOOK_UPS: (u32, Duration) = (16, Duration::from_millis(500));

/// The host and port of a site.
#[derive(Debug)]
pub(crate) struct Site {
    host: String,
    port: u16,
    /// Addresses that the job was given for the host. A name server may give others to whoever
    /// asks next.
    given: Mutex<BTreeSet<IpAddr>>,
    look_ups: Mutex<LookUps>,
}

/// How many look-ups a job has left, and since when.
#[derive(Debug)]
struct LookUps {
    left: u32,
    since: Instant,
}

impl LookUps {
    fn take(&mut self, now: Instant) -> bool {
        let (most, each) = LOOK_UPS;
        let further = now.duration_since(self.since).as_nanos() / each.as_nanos();
        let further = u32::try_from(further).unwrap_or(u32::MAX);
        self.since += each.saturating_mul(further);
        self.left = self.left.saturating_add(further).min(most);
        let has = self.left > 0;
        self.left -= u32::from(has);
        has
    }
}

impl Site {
    pub(crate) fn new(url: &SiteUrl) -> Self {
        let text = url.as_str();
        let port = text
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let usual = if text.starts_with("https:") { 443 } else { 80 };
        Self {
            host: url.host(),
            port: port.unwrap_or(usual),
            given: Mutex::default(),
            look_ups: Mutex::new(LookUps {
                left: LOOK_UPS.0,
                since: Instant::now(),
            }),
        }
    }

    /// Whether the job may look the name up once more now.
    fn may_look_up(&self) -> bool {
        let mut look_ups = self.look_ups.lock().unwrap_or_else(PoisonError::into_inner);
        look_ups.take(Instant::now())
    }

    /// Whether an address may be used so.
    pub(crate) async fn permits(
        self: Arc<Self>,
        address: SocketAddr,
        wanted: SocketAddrUse,
    ) -> bool {
        match wanted {
            SocketAddrUse::TcpConnect => self.is_at(address).await,
            // A socket is bound to any port of its own before it connects.
            SocketAddrUse::TcpBind => address.port() == 0,
            _ => false,
        }
    }

    /// Where the host is by its name is found out each time: a call takes hours, in which a site
    /// may move.
    async fn is_at(self: Arc<Self>, address: SocketAddr) -> bool {
        if address.port() != self.port {
            return false;
        }
        if self.given().contains(&address.ip()) {
            return true;
        }
        let found = spawn_blocking(move || (self.host.as_str(), self.port).to_socket_addrs()).await;
        found.is_ok_and(|found| {
            found.is_ok_and(|mut found| found.any(|found| found.ip() == address.ip()))
        })
    }

    fn is_called(&self, name: &str) -> bool {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case(&self.host)
    }

    /// A panic while the set is locked cannot leave it half changed.
    fn given(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Look-ups of names: a name is a message to whoever answers for it, so only the site's is asked.
impl Host for Guest {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        let Some(site) = self.site().filter(|site| site.is_called(&name)) else {
            return Err(ErrorCode::PermanentResolverFailure.into());
        };
        if !site.may_look_up() {
            return Err(ErrorCode::TemporaryResolverFailure.into());
        }
        self.sockets().resolve_addresses(network, name)
    }
}

impl HostResolveAddressStream for Guest {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        let address = self.sockets().resolve_next_address(stream)?;
        if let (Some(site), Some(address)) = (self.site(), &address) {
            site.given().insert(plain(address));
        }
        Ok(address)
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.sockets().subscribe(stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        HostResolveAddressStream::drop(&mut self.sockets(), stream)
    }
}

/// Asked for by the bindings of look-ups; not otherwise linked.
impl network::Host for Guest {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.sockets().convert_error_code(error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.sockets().network_error_code(error)
    }
}

impl network::HostNetwork for Guest {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), network)
    }
}

fn plain(address: &IpAddress) -> IpAddr {
    match *address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(url: &str) -> Arc<Site> {
        Arc::new(Site::new(&url.parse().unwrap()))
    }

    #[test]
    fn a_site_has_the_host_and_port_of_its_url() {
        for (url, host, port) in [
            ("http://localhost", "localhost", 80),
            (
                "https://Mattermost.example.com",
                "mattermost.example.com",
                443,
            ),
            (
                "https://mattermost.example.com:8065",
                "mattermost.example.com",
                8065,
            ),
            ("http://[::1]", "::1", 80),
            ("https://[::1]:8443", "::1", 8443),
        ] {
            let site = site(url);
            assert_eq!((site.host.as_str(), site.port), (host, port), "{url}");
        }
    }

    #[test]
    fn only_its_own_name_is_looked_up() {
        let named = site("https://mattermost.example.com");
        assert!(named.is_called("Mattermost.example.com"));
        for other in [
            "example.com",
            "secret.mattermost.example.com",
            "10.0.0.1",
            "",
        ] {
            assert!(!named.is_called(other), "{other}");
        }
        assert!(site("http://[::1]:80").is_called("[::1]"));
    }

    #[test]
    fn look_ups_are_had_in_bounds() {
        let since = Instant::now();
        let mut look_ups = LookUps { left: 16, since };
        for (after_millis, had) in [(0, 16), (1700, 3), (2000, 1), (3_600_000, 16)] {
            let now = since + Duration::from_millis(after_millis);
            let asked = (0..1000).filter(|_| look_ups.take(now)).count();
            assert_eq!(asked, had, "{after_millis}");
        }
    }

    #[tokio::test]
    async fn it_is_where_its_name_leads_or_led_the_job_to() {
        let site = site("http://localhost:8065");
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let is_at = |at: &str| Arc::clone(&site).is_at(address(at));
        assert!(is_at("127.0.0.1:8065").await);
        assert!(!is_at("127.0.0.1:8066").await);
        assert!(!is_at("10.0.0.7:8065").await);
        assert!(!is_at("[::ffff:10.0.0.7]:8065").await);
        site.given().insert(address("10.0.0.7:1").ip());
        assert!(is_at("10.0.0.7:8065").await);
        assert!(!is_at("10.0.0.7:80").await);
    }

    #[tokio::test]
    async fn nothing_but_connecting_is_permitted() {
        use SocketAddrUse::{
            TcpAccept, TcpBind, TcpConnect, TcpListen, UdpBind, UdpReceive, UdpSend,
        };
        let site = site("http://127.0.0.1:8065");
        let (here, any) = (
            "127.0.0.1:8065".parse().unwrap(),
            "0.0.0.0:0".parse().unwrap(),
        );
        let permits = |address, wanted| Arc::clone(&site).permits(address, wanted);
        assert!(permits(here, TcpConnect).await && permits(any, TcpBind).await);
        assert!(!permits(here, TcpBind).await, "a port of its choice");
        for wanted in [TcpListen, TcpAccept, UdpBind, UdpSend, UdpReceive] {
            assert!(
                !permits(here, wanted).await && !permits(any, wanted).await,
                "{wanted:?}"
            );
        }
    }
}
