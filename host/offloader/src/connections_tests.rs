//! Clients that take their time.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::listen;

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const LONG: Duration = Duration::from_secs(30);

struct Served {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

async fn served(router: Router, limits: Limits) -> Served {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen::bind(any, Duration::from_secs(1)).unwrap();
    let (address, handle) = (listener.local_addr().unwrap(), Handle::new());
    tokio::spawn(serve(listener, None, router, limits, handle.clone()));
    Served { address, handle }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.address).await.unwrap()
}

/// The status that is answered to a request; `None` when the connection is closed instead.
async fn ask(connection: &mut TcpStream) -> Option<String> {
    connection.write_all(ASK).await.unwrap();
    let mut head = [0; 12];
    match timeout(LONG, connection.read_exact(&mut head)).await {
        Ok(Ok(_)) => Some(String::from_utf8_lossy(&head[9..]).into_owned()),
        _ => None,
    }
}

/// How long it takes until the other side closes the connection.
async fn closed_after(mut connection: TcpStream) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(LONG, connection.read_to_end(&mut rest)).await;
    began.elapsed()
}

#[tokio::test]
async fn no_more_connections_are_served_than_allowed_and_the_next_waits_for_one_to_end() {
    let limits = Limits {
        connections: 3,
        idle: LONG,
    };
    let served = served(hello(), limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut connection = connect(&served).await;
        assert_eq!(ask(&mut connection).await.unwrap(), "200");
        held.push(connection);
    }
    let mut fourth = connect(&served).await;
    let early = timeout(Duration::from_millis(300), ask(&mut fourth)).await;
    assert!(early.is_err(), "a fourth was served");
    drop(held.pop());
    let mut status = [0; 12];
    timeout(LONG, fourth.read_exact(&mut status))
        .await
        .unwrap()
        .unwrap();
    assert!(status.ends_with(b"200"));
}

#[tokio::test]
async fn whoever_says_nothing_or_never_ends_a_head_is_let_go() {
    let idle = Duration::from_millis(500);
    let connections = 3;
    let served = served(hello(), Limits { connections, idle }).await;
    let silent = connect(&served).await;
    let mut unfinished = connect(&served).await;
    unfinished.write_all(&ASK[..ASK.len() - 2]).await.unwrap();
    let mut asked = connect(&served).await;
    assert_eq!(ask(&mut asked).await.unwrap(), "200");
    // All places are taken, and free again soon.
    let mut next = connect(&served).await;
    assert_eq!(ask(&mut next).await.unwrap(), "200");
    for (what, connection) in [("silent", silent), ("slow", unfinished), ("idle", asked)] {
        assert!(closed_after(connection).await < LONG / 2, "{what}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused_before_it_takes_memory() {
    let limits = Limits {
        connections: 3,
        idle: LONG,
    };
    let served = served(hello(), limits).await;
    let mut connection = connect(&served).await;
    let head = [b"GET / HTTP/1.1\r\nX: ", &vec![b'x'; 4 * BUFFER_BYTES][..]].concat();
    // It may be closed before it is all sent.
    let _ = connection.write_all(&head).await;
    let mut answer = Vec::new();
    let _ = timeout(LONG, connection.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
}

/// Counts answers under way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_broken_off() {
    let answers: Arc<AtomicUsize> = Arc::default();
    let counted = Arc::clone(&answers);
    let endless = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(Arc::clone(&counted));
        let part = Bytes::from(vec![b'x'; 16 << 10]);
        let parts = stream::unfold(under_way, move |under_way| {
            let part = Ok::<_, Infallible>(part.clone());
            async { Some((part, under_way)) }
        });
        ready(Body::from_stream(parts))
    };
    let limits = Limits {
        connections: 1,
        idle: LONG,
    };
    let served = served(Router::new().route("/", get(endless)), limits).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(served.address).await.unwrap();
    stalled.write_all(ASK).await.unwrap();
    let began = Instant::now();
    while answers.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    while answers.load(Ordering::SeqCst) > 0 {
        assert!(began.elapsed() < LONG, "it is held for ever");
        sleep(Duration::from_millis(50)).await;
    }
    // Its place is free.
    let mut next = connect(&served).await;
    assert_eq!(ask(&mut next).await.unwrap(), "200");
}
