//! Answers that get lost, and an engine that goes away in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use engine::{LaunchError, Runner, Sighting, StartTicket};
use offloader_runner_docker::DockerRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::bench::{Bench, always, with_engine};

/// A way to the engine that loses an answer.
struct LossyLine {
    address: String,
    task: JoinHandle<()>,
    lost: Arc<AtomicU32>,
}

impl LossyLine {
    /// Passes everything on, but cuts the line once the engine has answered the first request whose
    /// first line ends in `request`, and, where it `goes_away`, whenever it is called afterwards.
    async fn to(bench: &Bench, request: &'static str, goes_away: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let socket = bench.host.trim_start_matches("unix://").to_owned();
        let (away, lost) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let count = Arc::clone(&lost);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let engine = UnixStream::connect(&socket).await.unwrap();
                let (away, lost) = (Arc::clone(&away), Arc::clone(&count));
                if !away.load(Ordering::Relaxed) {
                    tokio::spawn(pass(client, engine, request, goes_away, away, lost));
                }
            }
        });
        Self {
            address,
            task,
            lost,
        }
    }

    fn runner(&self, bench: &Bench) -> DockerRunner {
        bench.runner_with(|config| config.host = Some(self.address.clone()))
    }
}

impl Drop for LossyLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    mut engine: UnixStream,
    request: &str,
    goes_away: bool,
    away: Arc<AtomicBool>,
    lost: Arc<AtomicU32>,
) {
    let mut head = vec![0; 64 * 1024];
    let read = client.read(&mut head).await.unwrap();
    engine.write_all(&head[..read]).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]);
    let path = head.split([' ', '?']).nth(1).unwrap_or_default();
    if path.ends_with(request) && lost.fetch_add(1, Ordering::Relaxed) == 0 {
        let (mut from_client, _) = client.split();
        let (mut from_engine, mut to_engine) = engine.split();
        let mut answer = [0; 1024];
        tokio::select! {
            answered = from_engine.read(&mut answer) => assert!(answered.unwrap() > 0),
            _ = tokio::io::copy(&mut from_client, &mut to_engine) => panic!("the client gave up first"),
        }
        away.store(goes_away, Ordering::Relaxed);
    } else {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}

#[tokio::test]
async fn a_creation_whose_answer_is_lost_is_adopted() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/containers/create", false).await;
        line.runner(bench).launch(&permit, &always()).await.unwrap();
        assert_eq!(line.lost.load(Ordering::Relaxed), 1);
        assert!(matches!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Running { .. }
        ));
    })
    .await;
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_has_started() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/start", false).await;
        let launched = line.runner(bench).launch(&permit, &always()).await.unwrap();
        assert_eq!(line.lost.load(Ordering::Relaxed), 1);
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Running { since: launched.at }
        );
    })
    .await;
}

#[tokio::test]
async fn what_was_created_when_the_engine_went_away_can_be_withdrawn_later() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/containers/create", true).await;
        let launched = line.runner(bench).launch(&permit, &always()).await;
        assert!(
            matches!(launched, Err(LaunchError::Engine(ref error)) if error.unreachable),
            "{launched:?}"
        );
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Created
        );
        let launched = bench
            .runner
            .launch(&permit, &StartTicket::new(|| false))
            .await;
        assert!(
            matches!(launched, Err(LaunchError::Withdrawn)),
            "{launched:?}"
        );
        assert!(bench.nothing_left(&permit).await);
    })
    .await;
}

#[tokio::test]
async fn what_started_when_the_engine_went_away_is_found_later() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/start", true).await;
        let launched = line.runner(bench).launch(&permit, &always()).await;
        assert!(
            matches!(launched, Err(LaunchError::Engine(ref error)) if error.unreachable),
            "{launched:?}"
        );
        let launched = bench
            .runner
            .launch(&permit, &StartTicket::new(|| false))
            .await
            .unwrap();
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Running { since: launched.at }
        );
    })
    .await;
}

#[tokio::test]
async fn a_line_that_breaks_while_waiting_is_no_exit() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        bench.runner.launch(&permit, &always()).await.unwrap();
        let line = LossyLine::to(bench, "/wait", false).await;
        let runner = line.runner(bench);
        // The engine answers a wait at once with a head, and with the exit in the body later.
        let broken = runner.changed(permit.name()).await;
        assert!(broken.is_err_and(|error| error.unreachable));
        assert!(matches!(
            runner.inspect(permit.name()).await.unwrap(),
            Sighting::Running { .. }
        ));
    })
    .await;
}
