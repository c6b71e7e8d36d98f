//! How fast jobs come and go on this machine: `cargo test --release -p offloader-runner-wasi --test
//! speed -- --ignored --nocapture`.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment and write their fixtures"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use domain::JobId;
use engine::Runner as _;
use tokio::task::JoinSet;

#[allow(dead_code, reason = "other tests need the rest of it")]
#[path = "jobs/place.rs"]
mod place;

const JOBS: u64 = 5_000;
/// Jobs at once.
const LANES: u64 = 64;

/// Time that was spent on something, by all lanes together.
#[derive(Default)]
struct Spent(AtomicU64);

impl Spent {
    async fn on<T>(&self, work: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let done = work.await;
        let micros = begin.elapsed().as_micros();
        self.0.fetch_add(micros.try_into().unwrap(), Relaxed);
        done
    }

    fn each(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed) / JOBS)
    }
}

#[derive(Default)]
struct Times {
    prepare: Spent,
    launch: Spent,
    end: Spent,
    leftovers: Spent,
    remove: Spent,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn five_thousand_jobs_from_their_start_to_their_removal() {
    for lanes in [1, LANES] {
        let place = place::Place::new();
        let (runner, gate) = (Arc::new(place.runner()), Arc::new(place.gate()));
        // Compiled once, before.
        place::permit(&runner, &gate, "", None).await;
        let times = Arc::new(Times::default());
        let mut tasks = JoinSet::new();
        let begin = Instant::now();
        for lane in 0..lanes {
            let (runner, gate, times) =
                (Arc::clone(&runner), Arc::clone(&gate), Arc::clone(&times));
            tasks.spawn(async move {
                for number in (lane..JOBS).step_by(lanes.try_into().unwrap()) {
                    let job: JobId = format!("{number:026}").parse().unwrap();
                    let permit = place::permit_of(job, &runner, &gate, "", None);
                    let permit = times.prepare.on(permit).await;
                    let (name, ticket) = (permit.name(), place::ticket(true));
                    times
                        .launch
                        .on(runner.launch(&permit, &ticket))
                        .await
                        .unwrap();
                    times.end.on(runner.changed(name)).await.unwrap();
                    times.leftovers.on(runner.leftovers(name)).await.unwrap();
                    times.remove.on(runner.remove(name)).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{lanes} at once: {:.0} jobs/s; of each: prepare {:?}, launch {:?}, to the end {:?}, leftovers {:?}, remove {:?}",
            JOBS as f64 / seconds,
            times.prepare.each(),
            times.launch.each(),
            times.end.each(),
            times.leftovers.each(),
            times.remove.each(),
        );
    }
}
