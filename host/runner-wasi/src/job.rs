//! One job that runs, or ran, in this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Exit, Timestamp};
use engine::{Clock, Sighting};
use tokio::io::DuplexStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::disk::Home;
use crate::output::Output;
use crate::sandbox::{Ended, Given, KILLED, Program, Sandbox};

/// The pause between two looks at how much a job has on `/data`, from the first to the second: ten
/// times as long as a look takes.
const LOOK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How many looks in a row may fail. Files come and go while they are counted, but not always.
const FAILED_LOOKS: u32 = 10;

/// A job with a program. Killed when dropped.
pub(crate) struct Job {
    plan: String,
    home: Home,
    started_at: Timestamp,
    sighting: watch::Receiver<Sighting>,
    /// Its standard input ends when this is taken.
    stdin: Mutex<Option<DuplexStream>>,
    kill: CancellationToken,
    task: AbortHandle,
    output: watch::Receiver<u64>,
}

/// What a run is bounded by, beside what its sandbox does.
pub(crate) struct Bounds {
    pub(crate) home: Home,
    /// Bytes; 0 is no limit.
    pub(crate) data_max: u64,
}

impl Job {
    /// Starts a program. `stdin` is the end that the job's own is connected to.
    pub(crate) fn start(
        threads: &Handle,
        run: (Arc<Sandbox>, Arc<Program>, Given),
        bounds: Bounds,
        stdin: DuplexStream,
        clock: Arc<dyn Clock>,
        plan: String,
    ) -> Self {
        let started_at = clock.now();
        let (sender, sighting) = watch::channel(Sighting::Running { since: started_at });
        let kill = CancellationToken::new();
        let killed = kill.clone();
        let (sandbox, program, given) = run;
        let output = given.output.clone();
        let written = output.written();
        let home = bounds.home.clone();
        let task = threads.spawn(async move {
            let ended = tokio::select! {
                ended = program.run(&sandbox, given) => ended,
                () = too_much(bounds, &output) => Ended { code: KILLED, out_of_memory: false },
                () = killed.cancelled() => Ended { code: KILLED, out_of_memory: false },
            };
            let exit = Exit {
                code: ended.code,
                out_of_memory: ended.out_of_memory,
                started_at,
                ended_at: clock.now().max(started_at),
            };
            sender.send_replace(Sighting::Ended(exit));
        });
        Self {
            plan,
            home,
            started_at,
            sighting,
            stdin: Mutex::new(Some(stdin)),
            kill,
            task: task.abort_handle(),
            output: written,
        }
    }

    pub(crate) fn plan(&self) -> &str {
        &self.plan
    }

    /// Whether it may have written data.
    pub(crate) fn data_given(&self) -> bool {
        self.home.data_given()
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    pub(crate) fn sighting(&self) -> Sighting {
        // Looked at before the value, which is the last one then.
        let over = self.sighting.has_changed().is_err();
        match *self.sighting.borrow() {
            // Its task is gone without having told how the job ended.
            Sighting::Running { .. } if over => Sighting::Lost,
            sighting => sighting,
        }
    }

    pub(crate) async fn ended(&self) {
        let over = |sighting: &Sighting| matches!(sighting, Sighting::Ended(_));
        // Without its sender there is no news to wait for.
        let _ = self.sighting.clone().wait_for(over).await;
    }

    /// Waits until it has ended and all who wait for that have been told, each in its turn.
    pub(crate) async fn told(&self) {
        let mut sighting = self.sighting.clone();
        while sighting.changed().await.is_ok() {}
    }

    pub(crate) fn terminate(&self) {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        drop(stdin.take());
    }

    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Ends it without an exit; false when it has one.
    pub(crate) fn lose(&self) -> bool {
        self.task.abort();
        !matches!(self.sighting(), Sighting::Ended(_))
    }

    pub(crate) fn runs(&self) -> bool {
        matches!(self.sighting(), Sighting::Running { .. })
    }

    pub(crate) fn output(&self) -> watch::Receiver<u64> {
        self.output.clone()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// Returns when a job has more data than it may, or never lets anybody look at all of it.
async fn too_much(bounds: Bounds, output: &Output) {
    let Bounds { home, data_max } = bounds;
    if data_max == 0 {
        return std::future::pending().await;
    }
    let (mut pause, mut failed) = (LOOK.0, 0);
    let why = loop {
        sleep(pause).await;
        let begun = Instant::now();
        let looked = spawn_blocking({
            let home = home.clone();
            move || home.size(data_max)
        });
        match looked.await {
            Ok(Ok(size)) if size.on_disk > data_max => {
                break format!("more than {data_max} bytes on /data");
            }
            Ok(Ok(_)) => failed = 0,
            Ok(Err(error)) if failed == FAILED_LOOKS => {
                break format!("what is on /data cannot be counted: {error}");
            }
            _ => failed += 1,
        }
        pause = (begun.elapsed() * 10).clamp(LOOK.0, LOOK.1);
    };
    output.say(&format!("killed: {why}\n"));
}
