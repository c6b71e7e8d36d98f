//! A store with a long history: starting, listing and pruning stay quick.
//!
//! `OFFLOADER_STORE_JOBS` sets how long the history is; by default it is one that a test can wait
//! for. To measure: `OFFLOADER_STORE_JOBS=100000 cargo test --release -p offloader-store --test
//! large -- --nocapture`.
#![expect(
    clippy::disallowed_methods,
    reason = "the length of the history comes from the environment"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{
    Attempt, ClientId, Decision, DecisionOutcome, Delivery, End, EndReason, Hook, InputValue, Job,
    JobId, JobKind, Lifecycle, Outcome, RegistrationId, State, Timestamp,
};
use engine::{JobQuery, NewJob, Slots, Store};
use offloader_store::{SqliteStore, StoreConfig};

const RUNNING: u32 = 200;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn job(n: u32) -> Job {
    let image = "mattermost/calls-recorder:v0.8.13";
    let inputs = ["site_url", "call_id", "post_id", "recording_id", "width"];
    let text = || InputValue::Text("abcdefghijklmnopqrstuvwxyz".into());
    let mut attempt = Attempt::new(1, image.parse().unwrap(), at(1000));
    attempt.running_at = Some(at(2000));
    Job {
        id: format!("{n:026}").parse().unwrap(),
        owner: RegistrationId(i64::from(n % 3) + 1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: image.to_owned(),
        site_url_asked: "https://mattermost.example.com".to_owned(),
        site_url: Some("https://mattermost.example.com".parse().unwrap()),
        max_duration: Duration::from_secs(60),
        inputs: inputs.map(|name| (name.to_owned(), text())).into(),
        submitted_at: at(1000),
        start_by: at(2000),
        resends: None,
        attempts: vec![attempt],
        state: State::Running {
            since: at(2000),
            deadline: at(62_000),
        },
    }
}

fn decision(n: u32) -> Decision {
    Decision {
        at: at(1000),
        hook: Hook::ImageSelection,
        attempt: Some(1),
        policy: "pin".into(),
        component_sha256: "0".repeat(64),
        settings_sha256: "0".repeat(64),
        read: Vec::new(),
        outcome: DecisionOutcome::Answered,
        enforced: true,
        verdict: "use".into(),
        value: Some("mattermost/calls-recorder:v0.8.13".into()),
        reason: None,
        micros: n.into(),
    }
}

async fn fill(store: &Arc<SqliteStore>, finished: u32) {
    const LANES: u32 = 200;
    let lane = |lane: u32| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            for n in (lane..finished + RUNNING).step_by(LANES as usize) {
                let job = job(n);
                let new = NewJob {
                    job: Arc::new(job.clone()),
                    decisions: vec![decision(n)],
                    keys: Vec::new(),
                    body_sha256: String::new(),
                    slots: Slots::default(),
                };
                store.accept(new).await.unwrap();
                if n < finished {
                    let end = End {
                        at: at(9000),
                        reason: EndReason::Completed,
                        outcome: Outcome::Succeeded,
                        delivery: Delivery::Delivered,
                    };
                    let state = State::Removed { end };
                    let removed = Arc::new(Job { state, ..job });
                    store.commit(removed, vec![decision(2 * n)]).await.unwrap();
                }
            }
        })
    };
    for lane in (0..LANES).map(lane).collect::<Vec<_>>() {
        lane.await.unwrap();
    }
}

/// The 99th of a hundred, and the middle one.
fn p99_and_p50(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() * 99 / 100], times[times.len() / 2])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_history_slows_neither_the_start_nor_lists() {
    let finished =
        std::env::var("OFFLOADER_STORE_JOBS").map_or(10_000, |text| text.parse().unwrap());
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("offloader.db");
    let open = || Arc::new(SqliteStore::open(StoreConfig { path: path.clone() }).unwrap());
    fill(&open(), finished).await;
    println!(
        "{finished} finished jobs: {} kB",
        path.metadata().unwrap().len() / 1000
    );

    let begin = Instant::now();
    let store = open();
    let opened = begin.elapsed();
    let begin = Instant::now();
    let mut unfinished: Vec<Job> = Vec::new();
    loop {
        let after = unfinished.last().map(|job| &job.id);
        let some = store.unfinished(after).await.unwrap();
        if some.is_empty() {
            break;
        }
        unfinished.extend(some);
    }
    assert_eq!(unfinished.len(), RUNNING as usize);
    for job in &unfinished {
        assert_eq!(store.decisions(&job.id).await.unwrap().len(), 1);
    }
    let taken_up = begin.elapsed();
    println!("open {opened:?}, read {RUNNING} unfinished jobs and their decisions {taken_up:?}");
    assert!(
        opened + taken_up < Duration::from_secs(5),
        "{opened:?} {taken_up:?}"
    );

    for (name, owner, states) in [
        ("a page of 100", None, vec![]),
        ("of one owner", Some(RegistrationId(1)), vec![]),
        ("of one state", None, vec![Lifecycle::Removed]),
        (
            "of one owner and state",
            Some(RegistrationId(1)),
            vec![Lifecycle::Removed],
        ),
        ("of all states", None, Lifecycle::ALL.to_vec()),
    ] {
        let mut times = Vec::new();
        for n in 1..200 {
            let before: JobId = format!("{:026}", (finished / 200) * n).parse().unwrap();
            let query = JobQuery {
                owner,
                states: states.clone(),
                before: owner.is_none().then_some(before),
                limit: 100,
            };
            let begin = Instant::now();
            let page = store.page(&query).await.unwrap();
            times.push(begin.elapsed());
            if n % 50 == 0 {
                for (job, decisions) in page {
                    assert_eq!(store.decisions(&job.id).await.unwrap(), decisions);
                }
            }
        }
        let (p99, p50) = p99_and_p50(times);
        println!("{name}: p50 {p50:?}, p99 {p99:?}");
        assert!(p99 < Duration::from_millis(200), "{name}: {p99:?}");
    }

    // While everything is pruned, what is saved meanwhile does not wait for all of it.
    let pruned = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let begin = Instant::now();
            store.prune(at(0), at(10_000)).await.unwrap();
            (
                store.prune(at(20_000), at(30_000)).await.unwrap(),
                begin.elapsed(),
            )
        }
    });
    let mut times = Vec::new();
    while !pruned.is_finished() {
        let begin = Instant::now();
        store
            .commit(Arc::new(job(finished)), Vec::new())
            .await
            .unwrap();
        times.push(begin.elapsed());
    }
    let (pruned, took) = pruned.await.unwrap();
    assert_eq!(pruned, u64::from(finished));
    let longest = times.iter().max().copied().unwrap_or_default();
    println!(
        "pruned all in {took:?}; {} saves meanwhile, the longest {longest:?}",
        times.len()
    );
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}
