//! A way to the container engine that can be cut, go mute, and lose answers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{oneshot, watch};

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// All of it gets through.
    All,
    /// Every connection ends at once, those that are open too.
    Nothing,
    /// Requests whose path ends so get through, and no answer to them comes back.
    LosingAnswersTo(&'static str),
}

/// A TCP address that leads to the engine's socket. Ends when dropped.
pub struct Line {
    address: String,
    passing: watch::Sender<Passing>,
    lost: Arc<AtomicU32>,
    // Dropping it ends the thread.
    _end: oneshot::Sender<()>,
}

impl Line {
    /// A line to the engine at `host` (`unix:///…`), which everything passes.
    pub fn to(host: &str) -> Self {
        let socket = host.trim_start_matches("unix://").to_owned();
        let (passing, order) = watch::channel(Passing::All);
        let lost = Arc::new(AtomicU32::new(0));
        let (count, (tell, told), (_end, end)) =
            (Arc::clone(&lost), mpsc::channel(), oneshot::channel());
        // On a thread of its own: tests wait for programs that use it without giving way.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a port is free");
                let address = listener
                    .local_addr()
                    .expect("a bound socket has an address");
                let _ = tell.send(format!("tcp://{address}"));
                tokio::select! {
                    () = accept(listener, socket, order, count) => {}
                    _ = end => {}
                }
            });
        });
        Self {
            address: told.recv().expect("the line's thread runs"),
            passing,
            lost,
            _end,
        }
    }

    /// Its address, as DOCKER_HOST wants it.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// From now on this becomes of what is sent.
    pub fn set(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }

    /// How many answers were lost.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    socket: String,
    order: watch::Receiver<Passing>,
    lost: Arc<AtomicU32>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (socket, mut order, lost) = (socket.clone(), order.clone(), Arc::clone(&lost));
        tokio::spawn(async move {
            let mut cut = order.clone();
            tokio::select! {
                _ = cut.wait_for(|passing| *passing == Passing::Nothing) => {}
                _ = pass(client, &socket, &mut order, &lost) => {}
            }
        });
    }
}

/// Each connection carries one request: the daemon connects anew for the next.
async fn pass(
    mut client: TcpStream,
    socket: &str,
    order: &mut watch::Receiver<Passing>,
    lost: &AtomicU32,
) -> std::io::Result<()> {
    let mut engine = UnixStream::connect(socket).await?;
    let mut head = vec![0; 64 * 1024];
    let read = client.read(&mut head).await?;
    let head = &head[..read];
    let line = String::from_utf8_lossy(head);
    let path = line.split([' ', '?']).nth(1).unwrap_or_default();
    let passing = *order.borrow_and_update();
    engine.write_all(head).await?;
    match passing {
        Passing::LosingAnswersTo(request) if path.ends_with(request) => {
            lost.fetch_add(1, Ordering::Relaxed);
            let (mut from_client, _) = client.split();
            let (mut from_engine, mut to_engine) = engine.split();
            let rest = tokio::io::copy(&mut from_client, &mut to_engine);
            let mut answer = [0; 64 * 1024];
            let swallow = async {
                while from_engine.read(&mut answer).await? > 0 {}
                Ok(())
            };
            // Until the client gives up.
            tokio::select! {
                copied = rest => copied.map(drop),
                swallowed = swallow => {
                    let swallowed: std::io::Result<()> = swallowed;
                    swallowed
                }
            }
        }
        _ => copy_bidirectional(&mut client, &mut engine).await.map(drop),
    }
}
