//! A disk that is full, may only be read, or fails to sync: nothing that was answered is lost, what
//! could not be saved is told, and saving goes on by itself when it can.
//!
//! Each test runs itself again as a child whose disk is made to fail: by a small file system of its
//! own, by a limit on the size of files, by a debugger that spoils system calls. Where the system
//! does not allow the first or last, the test says so and is skipped.

#![expect(
    clippy::disallowed_methods,
    reason = "the child learns by its environment where to write"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Attempt, ClientId, Job, JobId, JobKind, RegistrationId, State, Timestamp};
use engine::{Accepted, NewJob, Slots, Store, StoreError};
use offloader_store::{OpenError, SqliteStore, StoreConfig};

const DIRECTORY: &str = "OFFLOADER_STORE_FAILING_DISK";

fn id(n: u32) -> JobId {
    format!("{n:026}").parse().unwrap()
}

async fn save(store: &SqliteStore, n: u32) -> Result<(), StoreError> {
    let image = "mattermost/calls-recorder:v0.8.13";
    let at = Timestamp::from_millis(1000);
    let job = Job {
        id: id(n),
        owner: RegistrationId(1),
        client: ClientId::new("site").unwrap(),
        kind: JobKind::Recording,
        image_asked: image.to_owned(),
        site_url_asked: String::new(),
        site_url: None,
        max_duration: Duration::from_secs(60),
        inputs: Default::default(),
        submitted_at: at,
        start_by: at,
        resends: None,
        attempts: vec![Attempt::new(1, image.parse().unwrap(), at)],
        state: State::Preparing,
    };
    let new = NewJob {
        job: Arc::new(job),
        decisions: Vec::new(),
        keys: Vec::new(),
        body_sha256: String::new(),
        slots: Slots::default(),
    };
    assert_eq!(store.accept(new).await?, Accepted::New);
    Ok(())
}

/// Saves jobs until one cannot be saved; gives the number of those that were, and the error.
async fn save_until_it_fails(store: &SqliteStore) -> (u32, StoreError) {
    for n in 0..20_000 {
        if let Err(error) = save(store, n).await {
            return (n, error);
        }
    }
    panic!("the disk takes everything");
}

async fn assert_saved(store: &SqliteStore, ids: impl Iterator<Item = u32>) {
    for n in ids {
        assert!(store.job(&id(n)).await.unwrap().is_some(), "{n} is lost");
    }
}

fn open(directory: &Path) -> Result<SqliteStore, OpenError> {
    let path = directory.join("offloader.db");
    SqliteStore::open(StoreConfig { path })
}

/// Where the child of a test is to write; `None` in a run that is no child.
fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Runs `child` by a command line that ends in it.
fn run(program: &str, args: &[&str], child: &str, directory: &Path) -> Output {
    Command::new(program)
        .args(args)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn assert_passed(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

/// Tells that a test was skipped, and makes that a failure where nothing may be.
fn skip(name: &str, why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|value| value.is_empty()),
        "{name}: {why}"
    );
    eprintln!("SKIPPED ({why}): {name}");
    if let Some(list) = std::env::var_os("OFFLOADER_TEST_SKIPS") {
        let list = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(list);
        writeln!(list.unwrap(), "{name}").unwrap();
    }
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn on_a_small_file_system() {
    let Some(directory) = directory() else { return };
    let filler = directory.join("filler");
    std::fs::write(&filler, vec![1; 600_000]).unwrap();
    let store = open(&directory).unwrap();
    let (saved, error) = save_until_it_fails(&store).await;
    assert!(saved > 10, "{saved}");
    assert!(error.to_string().contains("full"), "{error}");
    assert!(store.trouble().is_some());
    for n in 20_000..20_003 {
        save(&store, n).await.unwrap_err();
    }
    assert_saved(&store, 0..saved).await;

    // A store cannot be begun there either, and says why.
    let error = SqliteStore::open(StoreConfig {
        path: directory.join("second.db"),
    })
    .err();
    assert!(
        matches!(error, Some(OpenError::NotWritable { .. })),
        "{error:?}"
    );

    // Nobody has to save anything for the trouble to end.
    std::fs::remove_file(&filler).unwrap();
    let freed = Instant::now();
    while store.trouble().is_some() {
        assert!(
            freed.elapsed() < Duration::from_secs(20),
            "it is not seen that there is room"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    save(&store, saved).await.unwrap();
    drop(store);
    assert_saved(&open(&directory).unwrap(), 0..=saved).await;

    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&directory)
        .status();
    assert!(remounted.unwrap().success());
    let error = open(&directory).err();
    assert!(
        matches!(error, Some(OpenError::NotWritable { .. })),
        "{error:?}"
    );
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let directory = tempfile::TempDir::new().unwrap();
    let mount = r#"mount -t tmpfs -o size=1m none "$0" && exec "$@""#;
    let place = directory.path().to_str().unwrap();
    // Mounts in a name space of its own are gone with the child.
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    let allowed = |way: &&&[&str]| {
        let tried = Command::new("unshare")
            .args(**way)
            .args(["sh", "-c", mount, place, "true"])
            .output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(allowed) else {
        return skip(
            "a_full_disk_is_told_and_got_over",
            "no file system may be mounted",
        );
    };
    let args = [*way, &["sh", "-c", mount, place]].concat();
    assert_passed(&run(
        "unshare",
        &args,
        "on_a_small_file_system",
        directory.path(),
    ));
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn with_a_limit_on_file_sizes() {
    let Some(directory) = directory() else { return };
    let store = open(&directory).unwrap();
    let (saved, error) = save_until_it_fails(&store).await;
    assert!(saved > 3, "{saved}");
    assert!(error.to_string().contains("I/O error"), "{error}");
    assert!(store.trouble().is_some());
    assert_saved(&store, 0..saved).await;
    println!("saved={saved}");
}

#[tokio::test]
async fn a_write_that_fails_loses_nothing_that_was_saved() {
    let directory = tempfile::TempDir::new().unwrap();
    // In blocks of 512 bytes; the signal that goes with it is to be an error and no more.
    let limit = r#"trap "" XFSZ; ulimit -f 1024; exec "$0" "$@""#;
    let output = run(
        "sh",
        &["-c", limit],
        "with_a_limit_on_file_sizes",
        directory.path(),
    );
    assert_passed(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let saved = said.split_once("saved=").unwrap().1.lines().next().unwrap();
    let store = open(directory.path()).unwrap();
    assert_saved(&store, 0..saved.parse().unwrap()).await;
    save(&store, 30_000).await.unwrap();
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn with_syncs_that_fail() {
    let Some(directory) = directory() else { return };
    let store = open(&directory).unwrap();
    let (mut saved, mut failed) = (Vec::new(), 0);
    for n in 0..100 {
        match save(&store, n).await {
            Ok(()) => saved.push(n),
            Err(error) => {
                assert!(error.to_string().contains("I/O error"), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 5);
    assert_eq!(store.trouble(), None, "it is over");
    assert_saved(&store, saved.iter().copied()).await;
    drop(store);
    assert_saved(&open(&directory).unwrap(), saved.into_iter()).await;
}

#[test]
fn a_sync_that_fails_is_no_answer_and_the_next_one_counts() {
    let directory = tempfile::TempDir::new().unwrap();
    let args = [
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync,fdatasync",
    ];
    let tried = Command::new("strace").args(args).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(
            "a_sync_that_fails_is_no_answer_and_the_next_one_counts",
            "strace is missing or not permitted",
        );
    }
    let spoil = ["-e", "inject=fsync,fdatasync:error=EIO:when=30..34"];
    let args = [&args[..], &spoil[..]].concat();
    assert_passed(&run(
        "strace",
        &args,
        "with_syncs_that_fail",
        directory.path(),
    ));
}
