//! Serving connections: how many there may be, and how long each may let the service wait.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;
use tower::Service;
use tracing::warn;

/// How long a connection may be idle, or take to say what it wants. Longer than clients keep idle
/// connections, so that they are the ones to close them.
pub(crate) const IDLE: Duration = Duration::from_secs(120);

/// How often it is said that there are too many connections.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The longest head of a request, and what is kept of an answer until the client takes it.
const BUFFER_BYTES: usize = 64 << 10;

/// What connections may take of the service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many there may be. Further ones wait until one ends.
    pub(crate) connections: usize,
    /// How long one may be idle, or take for the head of a request.
    pub(crate) idle: Duration,
}

/// Answers what comes by a listener, until the handle says to end.
///
/// # Errors
/// When accepting connections fails for good.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    router: Router,
    limits: Limits,
    handle: Handle<SocketAddr>,
) -> std::io::Result<()> {
    let server = Server::<SocketAddr>::from_listener(listener).handle(handle);
    let connections = Connections::new(router, limits.connections);
    match tls {
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new());
            let server = limited(server.acceptor(acceptor), limits);
            server.serve(connections).await
        }
        None => {
            let server = limited(server.acceptor(NoDelayAcceptor::new()), limits);
            server.serve(connections).await
        }
    }
}

/// To be asked of a server that has its acceptor: one that gets another forgets that it is for
/// HTTP/1 alone, and waits without end for the first word of a connection, to learn its version.
fn limited<A>(server: Server<SocketAddr, A>, limits: Limits) -> Server<SocketAddr, A> {
    let mut server = server.http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(BUFFER_BYTES);
    server
}

/// Gives each connection what answers on it, while there are not too many.
struct Connections {
    router: Router,
    free: PollSemaphore,
    /// A place for the next one.
    place: Option<OwnedSemaphorePermit>,
    most: usize,
    /// When it was said that there are too many.
    told: Option<Instant>,
}

impl Connections {
    fn new(router: Router, most: usize) -> Self {
        Self {
            router: router.with_state(()),
            free: PollSemaphore::new(Arc::new(Semaphore::new(most))),
            place: None,
            most,
            told: None,
        }
    }

    /// Whoever cannot get through would not know why.
    fn tell_full(&mut self) {
        if self.told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            self.told = Some(Instant::now());
            warn!(
                connections = self.most,
                "all connections are taken (api.http.max_connections); further ones wait until one ends"
            );
        }
    }
}

impl Service<SocketAddr> for Connections {
    type Response = Connection;
    type Error = Infallible;
    type Future = Ready<Result<Connection, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.place.is_none() {
            let Poll::Ready(place) = self.free.poll_acquire(context) else {
                self.tell_full();
                return Poll::Pending;
            };
            self.place = place;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        ready(Ok(Connection {
            router: self.router.clone(),
            peer,
            _place: Arc::new(self.place.take()),
        }))
    }
}

/// What answers on one connection. It has a place as long as that lives.
#[derive(Clone)]
struct Connection {
    router: Router,
    peer: SocketAddr,
    _place: Arc<Option<OwnedSemaphorePermit>>,
}

impl Service<Request<Incoming>> for Connection {
    type Response = <Router as Service<Request<Incoming>>>::Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.call(request)
    }
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
