//! Clients that take their time, and many of them: the service stays small and serves the others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use offloader_system_tests::{Daemon, KEY, Setup};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::resources::memory;
use crate::world::CLIENT;

const MANY: usize = 200;
/// What each of many connections may cost: buffers of 64 kB for requests and for answers, which
/// double as they grow, and what reads and writes them.
const EACH_BYTES: u64 = 320 << 10;
/// What may come on top: the memory of a hash, and of one that is pretended.
const HASHES_BYTES: u64 = 48 << 20;

/// A daemon without a container engine, that knows the client.
async fn serving(setup: &Setup) -> Daemon {
    let daemon = setup.start().await;
    let answer = daemon.client(CLIENT, KEY).list().await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    daemon
}

fn connect(daemon: &Daemon) -> TcpStream {
    let address = daemon.url().trim_start_matches("http://");
    TcpStream::connect(address).expect("the daemon listens")
}

fn say(connection: &mut TcpStream, text: &str) {
    let said = connection.write_all(text.as_bytes());
    said.expect("it takes what is said");
}

/// The client is served as if it were alone.
async fn assert_serves(daemon: &Daemon) {
    for _ in 0..20 {
        let began = Instant::now();
        let answer = daemon.client(CLIENT, KEY).list().await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "held up");
    }
}

#[tokio::test]
async fn hundreds_that_say_little_or_nothing_cost_little_and_hold_up_nobody() {
    let daemon = serving(&Setup::new()).await;
    let before = memory(&daemon, "RssAnon");
    let silent: Vec<_> = (0..MANY).map(|_| connect(&daemon)).collect();
    let mut slow: Vec<_> = (0..2 * MANY).map(|_| connect(&daemon)).collect();
    for (number, connection) in slow.iter_mut().enumerate() {
        let head = "POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n";
        say(connection, head);
        // Half of them end their heads, and have a body to send.
        say(connection, if number < MANY { "" } else { "\r\n{" });
    }
    for _ in 0..5 {
        for connection in &mut slow {
            // On a busy machine the time for a body may be over by now.
            let _ = connection.write_all(b" ");
        }
        assert_serves(&daemon).await;
    }
    let grown = memory(&daemon, "RssAnon").saturating_sub(before);
    let most = 3 * MANY as u64 * EACH_BYTES;
    eprintln!("{grown} bytes for {} connections", 3 * MANY);
    assert!(grown < most, "{grown} bytes for {} connections", 3 * MANY);
    // Who takes too long for a body is told so.
    let late = slow.last_mut().expect("one of them");
    late.set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a time to wait");
    let mut answer = [0; 12];
    late.read_exact(&mut answer).expect("an answer");
    assert!(answer.ends_with(b" 408"), "{answer:?}");
    assert_serves(&daemon).await;
    drop(silent);
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_collected() {
    const DEAF: u64 = 50;
    let daemon = serving(&Setup::new()).await;
    let before = memory(&daemon, "RssAnon");
    // The answers to one of these would be 25 MB, more than the system keeps on their way.
    let requests = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100_000);
    let address = daemon.url().trim_start_matches("http://");
    let mut deaf = JoinSet::new();
    for _ in 0..DEAF {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let address = address.parse().expect("an address");
        let connection = socket.connect(address).await;
        let mut connection = connection.expect("the daemon listens");
        let requests = requests.clone();
        deaf.spawn(async move {
            let _ = connection.write_all(requests.as_bytes()).await;
            // Held, and never read.
            std::future::pending::<()>().await;
        });
    }
    sleep(Duration::from_secs(5)).await;
    assert_serves(&daemon).await;
    let grown = memory(&daemon, "RssAnon").saturating_sub(before);
    eprintln!("{grown} bytes for {DEAF} deaf");
    assert!(grown < DEAF * EACH_BYTES, "{grown} bytes for {DEAF}");
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_others_to_end() {
    let daemon = serving(&Setup::new().config("api.http.max_connections = 20")).await;
    let mut held: Vec<_> = (0..40).map(|_| connect(&daemon)).collect();
    let version = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    let served = |connection: &mut TcpStream| {
        let wait = Some(Duration::from_millis(500));
        connection.set_read_timeout(wait).expect("a time to wait");
        connection.read_exact(&mut [0; 12]).is_ok()
    };
    for connection in &mut held {
        say(connection, version);
    }
    sleep(Duration::from_secs(1)).await;
    let first = held.iter_mut().map(served).filter(|served| *served).count();
    assert!((15..=20).contains(&first), "{first} are served");
    // The first were first.
    held.drain(..first);
    sleep(Duration::from_secs(1)).await;
    let then = held.iter_mut().map(served).filter(|served| *served).count();
    assert_eq!(then, 20);
    drop(held);
    assert_serves(&daemon).await;
}

#[tokio::test]
async fn keys_that_are_tried_cost_the_memory_of_two() {
    let daemon = serving(&Setup::new()).await;
    let off = Setup::new().env("API_SECURITY_ALLOWSELFREGISTRATION", "false");
    let stranger = off.start().await;
    for daemon in [&daemon, &stranger] {
        let before = memory(daemon, "VmHWM");
        let mut flood = JoinSet::new();
        for number in 0..MANY {
            // As the known client with wrong keys, and as clients that nobody knows.
            let known = number % 2 == 0;
            let name = if known {
                CLIENT.to_owned()
            } else {
                format!("c{number}")
            };
            let client = daemon.client(&name, &format!("{KEY}{number}"));
            flood.spawn(async move { client.list().await.map(|answer| answer.status) });
        }
        sleep(Duration::from_secs(3)).await;
        let grown = memory(daemon, "VmHWM").saturating_sub(before);
        let most = HASHES_BYTES + MANY as u64 * EACH_BYTES;
        eprintln!("{grown} bytes for keys");
        assert!(grown < most, "{grown} bytes for {MANY} keys");
        flood.shutdown().await;
    }
    assert_serves(&daemon).await;
}
