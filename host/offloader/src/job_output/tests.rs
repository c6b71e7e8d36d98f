use std::collections::VecDeque;
use std::io;

use domain::{Exit, Timestamp};
use futures_util::stream;
use tokio::time::{Instant, timeout};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

type Part = Result<&'static str, ()>;

/// One container, which is as it is told to be and writes what it is told to, in parts.
#[derive(Default)]
struct Play {
    sighting: Mutex<Option<Sighting>>,
    /// What each asking for its output gets, and whether the stream goes on after that for ever.
    outputs: Mutex<VecDeque<(Vec<Part>, bool)>>,
}

fn failed() -> RunnerError {
    RunnerError {
        operation: "logs",
        detail: "as the play wants it".to_owned(),
        unreachable: true,
    }
}

#[async_trait]
impl Runner for Play {
    async fn prepare(&self, _: &ImagePermit) -> Result<ImageId, PrepareError> {
        unreachable!("no image is asked for")
    }

    async fn launch(&self, _: &LaunchPermit, _: &StartTicket) -> Result<Launched, LaunchError> {
        unreachable!("nothing is launched")
    }

    async fn inspect(&self, _: &ContainerName) -> Result<Sighting, RunnerError> {
        let sighting = *self.sighting.lock().unwrap();
        Ok(sighting.unwrap_or(Sighting::Absent))
    }

    async fn changed(&self, _: &ContainerName) -> Result<(), RunnerError> {
        Ok(())
    }

    async fn terminate(&self, _: &ContainerName) -> Result<(), RunnerError> {
        Ok(())
    }

    async fn kill(&self, _: &ContainerName) -> Result<(), RunnerError> {
        Ok(())
    }

    async fn leftovers(&self, _: &ContainerName) -> Result<Option<Leftovers>, RunnerError> {
        Ok(None)
    }

    async fn remove(&self, _: &ContainerName) -> Result<(), RunnerError> {
        Ok(())
    }

    async fn logs(
        &self,
        _: &ContainerName,
        until: LogsUntil,
    ) -> Result<Option<LogStream>, RunnerError> {
        assert_eq!(until, LogsUntil::End);
        let Some((parts, endless)) = self.outputs.lock().unwrap().pop_front() else {
            return Ok(None);
        };
        let parts = stream::iter(parts).map(|part| part.map(Into::into).map_err(|()| failed()));
        Ok(Some(if endless {
            parts.chain(stream::pending()).boxed()
        } else {
            parts.boxed()
        }))
    }

    async fn list(&self) -> Result<Vec<ContainerName>, RunnerError> {
        Ok(Vec::new())
    }

    async fn files(&self, _: &ContainerName) -> Result<Option<FileStream>, FilesError> {
        Ok(None)
    }

    async fn remains(&self, _: &ContainerName) -> Result<Option<Remains>, RunnerError> {
        Ok(None)
    }

    async fn describe(&self, _: &ContainerName) -> Result<Option<Described>, RunnerError> {
        Ok(None)
    }

    async fn free_bytes(&self) -> Result<Option<u64>, RunnerError> {
        Ok(None)
    }

    async fn ping(&self) -> Result<(), RunnerError> {
        Ok(())
    }
}

/// The log of a test, on the test's thread.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl io::Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Pages {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Pages {
    fn open() -> (Self, tracing::subscriber::DefaultGuard) {
        let pages = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(pages.clone())
            .with_ansi(false)
            .without_time()
            .finish();
        (pages, tracing::subscriber::set_default(subscriber))
    }

    /// What jobs wrote, without what says which job it was.
    fn job_lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once("job: ")?;
            let (text, job) = rest.rsplit_once(" job=")?;
            assert!(job.ends_with(" attempt=2"), "{line}");
            Some(text.to_owned())
        });
        lines.collect()
    }

    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
    }
}

fn running() -> Sighting {
    Sighting::Running {
        since: Timestamp::from_millis(1),
    }
}

fn ended() -> Sighting {
    Sighting::Ended(Exit {
        code: 0,
        out_of_memory: false,
        started_at: Timestamp::from_millis(1),
        ended_at: Timestamp::from_millis(2),
    })
}

fn name() -> ContainerName {
    let job = domain::JobId::from_random([7; domain::JobId::LEN]);
    ContainerName::new("main".parse().unwrap(), job, 2)
}

fn play(outputs: Vec<(Vec<Part>, bool)>) -> (Arc<Play>, LoggingRunner) {
    let play = Arc::new(Play {
        outputs: Mutex::new(outputs.into()),
        ..Play::default()
    });
    (Arc::clone(&play), LoggingRunner::new(play))
}

async fn see(play: &Play, runner: &LoggingRunner, sighting: Sighting) {
    *play.sighting.lock().unwrap() = Some(sighting);
    let look = timeout(Duration::from_millis(1), runner.inspect(&name())).await;
    let seen = look.expect("a look waits for no log").unwrap();
    assert_eq!(seen, sighting);
}

#[tokio::test(start_paused = true)]
async fn lines_are_logged_while_the_container_runs() {
    let (pages, _guard) = Pages::open();
    let parts = vec![Ok("one\r\ntw"), Ok("o\n\nthr"), Ok("ee")];
    let (play, runner) = play(vec![(parts, true)]);
    see(&play, &runner, running()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pages.job_lines(), ["one", "two"]);
    see(&play, &runner, running()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pages.job_lines(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_ended_before_anybody_looked_is_logged_once() {
    let (pages, _guard) = Pages::open();
    let once = (vec![Ok("one\ntwo")], false);
    let (play, runner) = play(vec![once.clone(), once]);
    for _ in 0..3 {
        see(&play, &runner, ended()).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(pages.job_lines(), ["one", "two"]);
    runner.remove(&name()).await.unwrap();
    assert!(runner.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn output_that_stalls_holds_nobody_up_and_is_given_up_after_the_end() {
    let (pages, _guard) = Pages::open();
    let (play, runner) = play(vec![(vec![Ok("one\n")], true)]);
    see(&play, &runner, running()).await;
    sleep(REST * 10).await;
    assert!(!pages.has("takes too long"));
    let end = Instant::now();
    see(&play, &runner, ended()).await;
    runner.changed(&name()).await.unwrap();
    runner.remove(&name()).await.unwrap();
    assert_eq!(end.elapsed(), Duration::ZERO);
    sleep(REST + Duration::from_secs(1)).await;
    assert!(pages.has("takes too long"));
    assert_eq!(Arc::strong_count(&runner.runner), 2, "its task has ended");
}

#[tokio::test(start_paused = true)]
async fn output_that_broke_off_goes_on_where_it_was() {
    let (pages, _guard) = Pages::open();
    let (play, runner) = play(vec![
        (vec![Ok("one\ntw"), Err(())], false),
        (vec![Ok("one"), Ok("\ntwo\nthr")], false),
        (vec![Ok("one\ntwo\nthree\nfour")], false),
    ]);
    see(&play, &runner, running()).await;
    sleep(AGAIN * 4).await;
    assert_eq!(pages.job_lines(), ["one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn long_lines_are_logged_in_pieces() {
    let (pages, _guard) = Pages::open();
    let long: &str = Box::leak("x".repeat(LONGEST_LINE + 5).into_boxed_str());
    let (play, runner) = play(vec![(vec![Ok(long)], false)]);
    see(&play, &runner, ended()).await;
    sleep(Duration::from_secs(1)).await;
    let lengths: Vec<_> = pages.job_lines().iter().map(String::len).collect();
    assert_eq!(lengths, [LONGEST_LINE, 5]);
}
