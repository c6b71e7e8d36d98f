//! A process that is killed while it writes loses nothing that it was told is saved.

#![expect(
    clippy::disallowed_methods,
    reason = "the child learns by its environment where to write"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use domain::{Attempt, ClientId, Job, JobId, JobKind, RegistrationId, State, Timestamp};
use engine::{Accepted, JobQuery, NewJob, Store};
use offloader_store::{SqliteStore, StoreConfig};

const DIRECTORY: &str = "OFFLOADER_STORE_CRASH_TEST";

fn job(n: u32) -> Job {
    let image = "mattermost/calls-recorder:v0.8.13";
    Job {
        id: format!("{n:026}").parse().unwrap(),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: image.to_owned(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: Duration::from_secs(60),
        inputs: Default::default(),
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

/// The child: saves jobs, several at once, and says which are saved, until it is killed.
#[tokio::test]
#[ignore = "runs as the child of the other test"]
async fn write_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let path = PathBuf::from(directory).join("offloader.db");
    let store = Arc::new(SqliteStore::open(StoreConfig { path }).unwrap());
    let all = JobQuery {
        limit: u32::MAX,
        ..JobQuery::default()
    };
    let first = store.page(&all).await.unwrap().len() as u32;
    let tasks: Vec<_> = (0..4)
        .map(|lane| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in (first + lane..).step_by(4) {
                    let new = NewJob {
                        job: Arc::new(job(n * 1000 + first % 1000)),
                        decisions: Vec::new(),
                        keys: Vec::new(),
                        body_sha256: String::new(),
                        slots: engine::Slots::default(),
                    };
                    let id = new.job.id.clone();
                    assert_eq!(store.accept(new).await.unwrap(), Accepted::New);
                    writeln!(std::io::stdout(), "saved {id}").unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_when_the_process_is_killed() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut saved: Vec<JobId> = Vec::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let ids = |line: String| {
            line.strip_prefix("saved ")
                .and_then(|id| id.parse::<JobId>().ok())
        };
        saved.extend(lines.by_ref().filter_map(ids).take(50 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it died counts too.
        saved.extend(lines.filter_map(ids));

        let path = directory.path().join("offloader.db");
        let store = SqliteStore::open(StoreConfig { path }).unwrap();
        for id in &saved {
            assert!(store.job(id).await.unwrap().is_some(), "{id} is lost");
        }
    }
    assert!(saved.len() >= 750);
}
