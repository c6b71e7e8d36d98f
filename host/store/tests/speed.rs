//! How fast the store is on this machine: `cargo test --release -p offloader-store --test speed
//! -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{
    Attempt, ClientId, Delivery, End, EndReason, Job, JobId, JobKind, Lifecycle, Outcome,
    RegistrationId, State, Timestamp,
};
use engine::{JobKey, JobQuery, NewJob, Store};
use offloader_store::{SqliteStore, StoreConfig};

fn job(n: u32) -> Job {
    let image = "mattermost/calls-recorder:v0.8.13";
    let inputs = [
        "site_url",
        "call_id",
        "post_id",
        "recording_id",
        "video_preset",
        "output_format",
        "width",
        "height",
    ];
    Job {
        id: format!("{n:026}").parse().unwrap(),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: image.to_owned(),
        site_url_asked: "https://mattermost.example.com".to_owned(),
        site_url: Some("https://mattermost.example.com".parse().unwrap()),
        max_duration: Duration::from_secs(60),
        inputs: inputs
            .map(|name| {
                (
                    name.to_owned(),
                    domain::InputValue::Text("abcdefghijklmnopqrstuvwxyz".into()),
                )
            })
            .into(),
        submitted_at: Timestamp::from_millis(1000),
        start_by: Timestamp::from_millis(2000),
        resends: None,
        attempts: vec![Attempt::new(
            1,
            image.parse().unwrap(),
            Timestamp::from_millis(1000),
        )],
        state: State::Preparing,
    }
}

fn new(job: Job) -> NewJob {
    let key = JobKey {
        owner: job.owner,
        digest: format!("{:0>64}", job.id),
    };
    NewJob {
        job: Arc::new(job),
        decisions: Vec::new(),
        keys: vec![key],
        body_sha256: "0".repeat(64),
        slots: engine::Slots::default(),
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The commits of a whole life after acceptance.
fn life(job: Job) -> [Job; 5] {
    let running = State::Running {
        since: at(5),
        deadline: at(60_005),
    };
    let end = End {
        at: at(9),
        reason: EndReason::Completed,
        outcome: Outcome::Succeeded,
        delivery: Delivery::Delivered,
    };
    [
        State::Starting,
        running,
        State::Ended(end),
        State::Removing { end, forget: false },
        State::Removed { end },
    ]
    .map(|state| {
        let mut next = Job {
            state,
            ..job.clone()
        };
        next.attempts[0].running_at = (state != State::Starting).then_some(at(5));
        next
    })
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    println!(
        "{name}: p50 {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn measure() {
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("offloader.db");
    let store = Arc::new(SqliteStore::open(StoreConfig { path: path.clone() }).unwrap());

    let begin = Instant::now();
    for n in 0..200 {
        store.accept(new(job(n))).await.unwrap();
    }
    println!(
        "one after the other: {:.0} commits/s",
        200.0 / begin.elapsed().as_secs_f64()
    );

    const LANES: u32 = 200;
    const JOBS: u32 = 10_000;
    let begin = Instant::now();
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in (1000 + lane..1000 + JOBS).step_by(LANES as usize) {
                    let job = job(n);
                    store.accept(new(job.clone())).await.unwrap();
                    for next in life(job) {
                        store.commit(Arc::new(next), Vec::new()).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{LANES} at once: {:.0} whole jobs/s, {:.0} commits/s",
        f64::from(JOBS) / seconds,
        f64::from(JOBS * 6) / seconds
    );

    let ids: Vec<JobId> = (1000..1000 + JOBS)
        .map(|n| format!("{n:026}").parse().unwrap())
        .collect();
    let mut times = Vec::new();
    for id in &ids {
        let begin = Instant::now();
        assert!(store.job(id).await.unwrap().is_some());
        times.push(begin.elapsed());
    }
    report("read a job", times);

    for (name, states) in [
        ("a page of 100", vec![]),
        ("a page of 100 of one state", vec![Lifecycle::Removed]),
    ] {
        let mut times: Vec<Duration> = Vec::new();
        for id in ids.iter().step_by(50) {
            let query = JobQuery {
                owner: Some(RegistrationId(1)),
                states: states.clone(),
                before: Some(id.clone()),
                limit: 100,
            };
            let begin = Instant::now();
            store.page(&query).await.unwrap();
            times.push(begin.elapsed());
        }
        report(name, times);
    }

    drop(store);
    let begin = Instant::now();
    drop(SqliteStore::open(StoreConfig { path }).unwrap());
    println!(
        "open and close with {JOBS} finished jobs: {:?}",
        begin.elapsed()
    );
}
