//! Stores in a directory of their own, and values to keep in them.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    Attempt, ClientId, Decision, DecisionOutcome, Delivery, End, EndReason, Hook, InputValue, Job,
    JobId, JobKind, Outcome, RegistrationId, State, StopCause, Timestamp,
};
use engine::{Accepted, JobKey, NewJob, Store};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{SqliteStore, StoreConfig};

/// A store and its directory.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("offloader.db")
    }

    pub(crate) fn open(&self) -> SqliteStore {
        SqliteStore::open(StoreConfig { path: self.path() }).unwrap()
    }
}

/// Every job that is not removed.
pub(crate) async fn unfinished(store: &SqliteStore) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let after = jobs.last().map(|job| &job.id);
        let some = store.unfinished(after).await.unwrap();
        if some.is_empty() {
            return jobs;
        }
        jobs.extend(some);
    }
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A job that was just accepted, the `n`th of its test.
pub(crate) fn job(n: u32) -> Job {
    Job {
        id: id(n),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: "mattermost/calls-recorder:v0.8.13".to_owned(),
        site_url_asked: "https://h".to_owned(),
        site_url: Some("https://h".parse().unwrap()),
        max_duration: Duration::from_secs(60),
        inputs: [(
            "site_url".to_owned(),
            InputValue::Text("https://h".to_owned()),
        )]
        .into(),
        submitted_at: at(1000),
        start_by: at(101_000),
        resends: None,
        attempts: vec![Attempt::new(
            1,
            "mattermost/calls-recorder:v0.8.13".parse().unwrap(),
            at(1000),
        )],
        state: State::Preparing,
    }
}

/// The `n`th job's id.
pub(crate) fn id(n: u32) -> JobId {
    format!("{n:026}").parse().unwrap()
}

/// The same job, ended at `ended_at` after having run, or not.
pub(crate) fn ended(mut job: Job, ended_at: i64, ran: bool) -> Job {
    job.attempts[0].running_at = ran.then_some(at(ended_at));
    let end = End {
        at: at(ended_at),
        reason: EndReason::Completed,
        outcome: Outcome::Succeeded,
        delivery: Delivery::Delivered,
    };
    job.state = State::Removed { end };
    job
}

pub(crate) fn key(text: &str) -> JobKey {
    JobKey {
        owner: RegistrationId(1),
        digest: text.to_owned(),
    }
}

/// A submission of the job, without slots and decisions.
pub(crate) fn new(job: Job, keys: &[&str]) -> NewJob {
    NewJob {
        job: Arc::new(job),
        decisions: Vec::new(),
        keys: keys.iter().map(|text| key(text)).collect(),
        body_sha256: "body".to_owned(),
        slots: engine::Slots::default(),
    }
}

pub(crate) async fn accept(store: &SqliteStore, new: NewJob) {
    assert_eq!(store.accept(new).await.unwrap(), Accepted::New);
}

/// A store that was closed, with so many jobs.
pub(crate) async fn filled(jobs: u32) -> Place {
    let place = Place::new();
    let store = place.open();
    for n in 0..jobs {
        accept(&store, new(job(n), &[])).await;
    }
    place
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![9 => 0..4_102_444_800_000_i64, 1 => any::<i64>()].prop_map(Timestamp::from_millis)
}

fn reason() -> impl Strategy<Value = EndReason> {
    prop_oneof![
        prop::sample::select(EndReason::WITHOUT_CODE.to_vec()),
        any::<i32>().prop_map(EndReason::Exited),
    ]
}

fn end() -> impl Strategy<Value = End> {
    let delivery = prop_oneof![
        Just(Delivery::NeverRan),
        Just(Delivery::Delivered),
        Just(Delivery::Unknown),
        (0..=i64::MAX as u64).prop_map(|bytes| Delivery::Unsent { bytes }),
    ];
    let outcome = prop::sample::select(vec![Outcome::Succeeded, Outcome::Failed]);
    (time(), reason(), outcome, delivery).prop_map(|(at, reason, outcome, delivery)| End {
        at,
        reason,
        outcome,
        delivery,
    })
}

/// Any state.
pub(crate) fn state() -> impl Strategy<Value = State> {
    let cause = prop::sample::select(vec![StopCause::Deadline, StopCause::Admin]);
    prop_oneof![
        Just(State::Preparing),
        time().prop_map(|until| State::Waiting { until }),
        Just(State::Starting),
        (time(), time()).prop_map(|(since, deadline)| State::Running { since, deadline }),
        (time(), time(), cause).prop_map(|(since, kill_at, cause)| State::Stopping {
            since,
            kill_at,
            cause
        }),
        end().prop_map(State::Ended),
        (end(), prop::option::of(time())).prop_map(|(end, until)| State::Retained { end, until }),
        (end(), any::<bool>()).prop_map(|(end, forget)| State::Removing { end, forget }),
        end().prop_map(|end| State::Removed { end }),
    ]
}

fn digest() -> impl Strategy<Value = String> {
    "[0-9a-f]{64}".prop_map(|hex| format!("sha256:{hex}"))
}

/// One to three attempts.
pub(crate) fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let image = (digest(), any::<bool>()).prop_map(|(digest, pinned)| {
        let pin = if pinned {
            format!("@{digest}")
        } else {
            String::new()
        };
        format!("localhost:5000/mattermost/calls-recorder:v0.8.13{pin}")
            .parse()
            .unwrap()
    });
    let attempt = (
        image,
        prop::option::of(digest()),
        time(),
        prop::option::of(time()),
        prop::option::of(time()),
        prop::option::of(reason()),
    )
        .prop_map(
            |(image, image_id, started_at, running_at, ended_at, reason)| Attempt {
                number: 0,
                image,
                image_id: image_id.map(|id| id.parse().unwrap()),
                started_at,
                running_at,
                ended_at,
                reason,
            },
        );
    prop::collection::vec(attempt, 1..=3).prop_map(|mut attempts| {
        for (attempt, number) in attempts.iter_mut().zip(1..) {
            attempt.number = number;
        }
        attempts
    })
}

/// Any job of any state.
pub(crate) fn any_job() -> impl Strategy<Value = Job> {
    let value = prop_oneof![
        any::<String>().prop_map(InputValue::Text),
        any::<i32>().prop_map(|n| InputValue::Json(n.to_string())),
    ];
    let request = (
        any::<[u8; 26]>(),
        any::<i64>(),
        ".{1,20}",
        prop::sample::select(JobKind::ALL.to_vec()),
        any::<String>(),
        any::<String>(),
        prop::option::of(prop::sample::select(vec![
            "https://h.example.com:8443",
            "http://[::1]",
        ])),
        prop::collection::btree_map(any::<String>(), value, 0..5),
    );
    (
        request,
        0..=u64::from(u32::MAX),
        time(),
        time(),
        prop::option::of(any::<[u8; JobId::LEN]>().prop_map(JobId::from_random)),
        attempts(),
        state(),
    )
        .prop_map(
            |(request, max_duration, submitted_at, start_by, resends, attempts, state)| {
                let (id, owner, client, kind, image_asked, site_url_asked, site_url, inputs) =
                    request;
                Job {
                    id: JobId::from_random(id),
                    owner: RegistrationId(owner),
                    client: ClientId::new(client).unwrap(),
                    kind,
                    image_asked,
                    site_url_asked,
                    site_url: site_url.map(|url| url.parse().unwrap()),
                    max_duration: Duration::from_millis(max_duration),
                    inputs,
                    submitted_at,
                    start_by,
                    resends,
                    attempts,
                    state,
                }
            },
        )
}

/// Any decision.
pub(crate) fn any_decision() -> impl Strategy<Value = Decision> {
    let outcome = prop::sample::select(DecisionOutcome::ALL.to_vec());
    let about = (
        time(),
        prop::sample::select(Hook::ALL.to_vec()),
        prop::option::of(any::<u32>()),
    );
    let policy = (
        any::<String>(),
        "[0-9a-f]{64}",
        "[0-9a-f]{64}",
        prop::collection::vec(any::<String>(), 0..4),
    );
    let said = (
        any::<bool>(),
        any::<String>(),
        prop::option::of(any::<String>()),
        prop::option::of(any::<String>()),
    );
    (about, policy, outcome, said, 0..=i64::MAX as u64).prop_map(
        |(about, policy, outcome, said, micros)| {
            let (at, hook, attempt) = about;
            let (policy, component_sha256, settings_sha256, read) = policy;
            let (enforced, verdict, value, reason) = said;
            Decision {
                at,
                hook,
                attempt,
                policy,
                component_sha256,
                settings_sha256,
                read,
                outcome,
                enforced,
                verdict,
                value,
                reason,
                micros,
            }
        },
    )
}
