//! Answers that get lost, and an engine that goes away in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use engine::{LaunchError, Launched, Runner, Sighting, StartTicket};
use offloader_runner_docker::DockerRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, always, with_engine};

/// What befalls the first of certain requests.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The line is cut once the engine has answered.
    Cut,
    /// The same, and whoever calls afterwards is cut off at once.
    Away,
    /// It gets to the engine only after so long, whoever still waits for it.
    Late(Duration),
    /// It gets to the engine, and no answer to it or to what is asked afterwards comes back.
    Mute,
}

/// A way to the engine that loses answers.
struct LossyLine {
    address: String,
    task: JoinHandle<()>,
    lost: Arc<AtomicU32>,
}

impl LossyLine {
    /// Passes everything on but the first request whose first line ends in `request`.
    async fn to(bench: &Bench, request: &'static str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let socket = bench.host.trim_start_matches("unix://").to_owned();
        let (down, lost) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let count = Arc::clone(&lost);
        let task = tokio::spawn(async move {
            let mut unanswered = Vec::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if !down.load(Ordering::Relaxed) {
                    let engine = UnixStream::connect(&socket).await.unwrap();
                    let (down, lost) = (Arc::clone(&down), Arc::clone(&count));
                    tokio::spawn(pass(client, engine, request, fault, down, lost));
                } else if fault == Fault::Mute {
                    unanswered.push(client);
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
    fault: Fault,
    down: Arc<AtomicBool>,
    lost: Arc<AtomicU32>,
) {
    let mut head = vec![0; 64 * 1024];
    let read = client.read(&mut head).await.unwrap();
    let head = &head[..read];
    let line = String::from_utf8_lossy(head);
    let path = line.split([' ', '?']).nth(1).unwrap_or_default();
    let hit = path.ends_with(request) && lost.fetch_add(1, Ordering::Relaxed) == 0;
    if hit {
        if let Fault::Late(after) = fault {
            sleep(after).await;
        }
        down.store(fault == Fault::Mute, Ordering::Relaxed);
    }
    engine.write_all(head).await.unwrap();
    if !hit {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
        return;
    }
    let (mut from_client, _) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let mut answer = [0; 1024];
    let answered = async {
        assert!(from_engine.read(&mut answer).await.unwrap() > 0);
    };
    match fault {
        Fault::Cut | Fault::Away => {
            tokio::select! {
                () = answered => {}
                _ = tokio::io::copy(&mut from_client, &mut to_engine) => panic!("the client gave up first"),
            }
            down.store(fault == Fault::Away, Ordering::Relaxed);
        }
        Fault::Late(_) => answered.await,
        Fault::Mute => {
            answered.await;
            // Until the client gives up.
            let _ = from_client.read(&mut [0; 1024]).await;
        }
    }
}

#[tokio::test]
async fn a_creation_whose_answer_is_lost_is_adopted() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/containers/create", Fault::Cut).await;
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
        let line = LossyLine::to(bench, "/start", Fault::Cut).await;
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
        let line = LossyLine::to(bench, "/containers/create", Fault::Away).await;
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
        let line = LossyLine::to(bench, "/start", Fault::Away).await;
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

/// Whether a launch came to nothing that is certain, in the time there is for it.
fn uncertain(launched: &Result<Launched, LaunchError>, since: Instant) -> bool {
    let took = since.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    matches!(launched, Err(LaunchError::Engine(error)) if error.unreachable)
}

#[tokio::test]
async fn a_start_that_happens_after_all_is_left_to_run_and_found_later() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/start", Fault::Late(Duration::from_secs(17))).await;
        let runner = line.runner(bench);
        let begun = Instant::now();
        let launched = runner.launch(&permit, &always()).await;
        assert!(uncertain(&launched, begun), "{launched:?}");
        assert_eq!(
            runner.inspect(permit.name()).await.unwrap(),
            Sighting::Created
        );
        let since = loop {
            match runner.inspect(permit.name()).await.unwrap() {
                Sighting::Created => sleep(Duration::from_millis(100)).await,
                Sighting::Running { since } => break since,
                other => panic!("{other:?}"),
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it never started"
            );
        };
        let launched = runner.launch(&permit, &StartTicket::new(|| false)).await;
        assert_eq!(launched.unwrap().at, since);
        assert_eq!(bench.runner.list().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_falls_silent_while_it_starts_holds_nobody_up() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let line = LossyLine::to(bench, "/start", Fault::Mute).await;
        let begun = Instant::now();
        let launched = line.runner(bench).launch(&permit, &always()).await;
        assert!(uncertain(&launched, begun), "{launched:?}");
        assert!(matches!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Running { .. }
        ));
    })
    .await;
}

#[tokio::test]
async fn what_runs_already_is_not_touched_when_it_cannot_be_seen() {
    with_engine(async |bench| {
        let image = bench.image(&["hold=0"]).await;
        let permit = bench.permit(1, &image);
        let first = bench.runner.launch(&permit, &always()).await.unwrap();
        // The engine says that the name is taken, and not by what.
        let line = LossyLine::to(bench, "/json", Fault::Cut).await;
        let launched = line.runner(bench).launch(&permit, &always()).await;
        assert!(
            matches!(launched, Err(LaunchError::Engine(_))),
            "{launched:?}"
        );
        assert_eq!(
            bench.runner.inspect(permit.name()).await.unwrap(),
            Sighting::Running { since: first.at }
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
        let line = LossyLine::to(bench, "/wait", Fault::Cut).await;
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
