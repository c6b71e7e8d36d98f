//! What runs out: memory, the engine's disk, ours, and the patience of those who read logs.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use offloader_system_tests::{Daemon, Dockerd, KEY, mount_small};
use serde_json::json;
use tokio::time::sleep;

use crate::plan::Plan;
use crate::world::CLIENT;

#[tokio::test]
async fn running_out_of_memory_is_told_as_such() {
    let test = "running_out_of_memory_is_told_as_such";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    let script = "sleep 1; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
    let config = "[gate.recording]\nmemory = \"16MiB\"";
    let mut world = plan.slots(1).script(script).config(config).begin().await;
    let id = world.start_job("rec").await;
    let job = world.until_ended(&id).await;
    assert_eq!(
        (&job["reason"], &job["outcome"]),
        (&json!("out-of-memory"), &json!("failed")),
        "{job:#}"
    );
    world.agrees_after_crashes(1).await;
}

/// Writes until there is no room left.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = File::create(&path).expect("a file can be created");
    for block in [vec![0; 1 << 20], vec![0; 512]] {
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
    path
}

#[tokio::test]
async fn an_engine_without_room_refuses_jobs_and_takes_them_again() {
    let test = "an_engine_without_room_refuses_jobs_and_takes_them_again";
    let Some(dockerd) = Dockerd::small_for_test(test, 64 << 20).await else {
        return;
    };
    // The daemon's own look for room is off: this is about an engine that fills up behind its back.
    let plan = Plan::with(dockerd)
        .slots(1)
        .config("jobs.min_free_disk = 0");
    let mut world = plan.begin().await;
    let filler = fill(world.dockerd().data());
    let body = world.recording("rec");
    let answer = world.submit(&body).await.expect("the daemon answers");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.text().contains("no space"), "{answer:?}");
    let job = world.newest().await;
    assert_eq!(job["reason"], "start-failed", "{job:#}");
    fs::remove_file(filler).expect("the filler can be removed");
    assert_eq!(world.agrees_after_crashes(0).await.starts, 0);
}

#[tokio::test]
async fn an_engine_with_too_little_room_is_asked_for_nothing() {
    let test = "an_engine_with_too_little_room_is_asked_for_nothing";
    let Some(dockerd) = Dockerd::small_for_test(test, 64 << 20).await else {
        return;
    };
    let plan = Plan::with(dockerd).slots(1);
    let mut world = plan.begin_blind().await;
    let health = world.until_health("degraded").await;
    let reasons = health["reasons"].to_string();
    assert!(reasons.contains("jobs.min_free_disk"), "{health}");
    let body = world.recording("rec");
    let answer = world.submit(&body).await.expect("the daemon answers");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("jobs.min_free_disk"), "{answer:?}");
    assert!(world.newest().await.is_null(), "a record of nothing");
    assert_eq!(world.agrees().await.starts, 0);
}

/// A small file system for the daemon's state.
struct SmallDisk(PathBuf);

impl SmallDisk {
    async fn on(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).expect("a directory can be made");
        mount_small(&dir, 4 << 20).await.expect("a disk is mounted");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_store_without_room_refuses_jobs_and_takes_them_again() {
    let test = "a_store_without_room_refuses_jobs_and_takes_them_again";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED, having no root to mount a small disk: {test}");
        return;
    }
    let disk = SmallDisk::on(plan.dir().join("state")).await;
    let mut world = plan.begin().await;
    let running = world.start_job("before").await;
    let filler = fill(&disk.0);
    let body = world.recording("rec");
    let answer = world.submit(&body).await.expect("the daemon answers");
    assert!((500..600).contains(&answer.status), "{answer:?}");
    let health = world.until_health("degraded").await;
    assert!(health["reasons"].to_string().contains("store"), "{health}");
    // A job that ends now has nowhere to be recorded, which must not end the service.
    world.ask_to_end(&running);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.engine.volumes_of(&running).len(), 1, "forgotten");
    fs::remove_file(filler).expect("the filler can be removed");
    world.until_healthy().await;
    let job = world.until_removed(&running).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert_eq!(world.agrees_after_crashes(0).await.starts, 1);
}

/// The memory of a process in bytes: `VmRSS` is what it has, `RssAnon` what of that no file
/// holds, `VmHWM` the most that it has had so far.
pub(crate) fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim_start_matches(':').trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number of kB")
        * 1024
}

#[tokio::test]
async fn log_readers_that_stall_and_many_logs_cost_no_memory_and_no_job() {
    let test = "log_readers_that_stall_and_many_logs_cost_no_memory_and_no_job";
    let Some(plan) = Plan::shared(test) else {
        return;
    };
    // Of each of two jobs no more than the engine keeps for sure, in ten files of 100 MB: more than a
    // gigabyte in all, which takes some minutes.
    let megabytes = if std::env::var_os("OFFLOADER_TEST_SLOW").is_some() {
        560
    } else {
        32
    };
    // 16 kB a line, in both streams.
    let script = format!(
        "trap 'exit 0' TERM; x=0123456789abcde,
        x=$x$x$x$x; x=$x$x$x$x; x=$x$x$x$x; x=$x$x$x$x; x=$x$x$x$x
        i=0; while [ $i -lt {} ]; do i=$((i+1)); echo \"out $i $x\"; echo \"err $i\" >&2; done
        : > /data/done; while :; do sleep 0.05; done",
        megabytes * 64
    );
    let mut world = plan.slots(2).script(&script).begin().await;
    let ids = [world.start_job("rec").await, world.start_job("more").await];
    let before = memory(world.daemon(), "VmRSS");
    // Readers that ask and then do not read.
    let address = world
        .daemon()
        .url()
        .trim_start_matches("http://")
        .to_owned();
    let credentials = reqwest::Client::new()
        .get("http://unused.test")
        .basic_auth(CLIENT, Some(KEY))
        .build()
        .expect("a request");
    let credentials = credentials.headers()["authorization"]
        .to_str()
        .expect("text");
    let stalled: Vec<_> = ids
        .iter()
        .cycle()
        .take(20)
        .map(|id| {
            let mut stream = TcpStream::connect(&address).expect("the daemon listens");
            let request = format!(
                "GET /jobs/{id}/logs HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials}\r\n\r\n"
            );
            stream
                .write_all(request.as_bytes())
                .expect("it can be asked");
            stream.read_exact(&mut [0; 12]).expect("it answers");
            stream
        })
        .collect();
    let limit = std::time::Instant::now() + Duration::from_secs(600);
    for id in &ids {
        let container = world.container(id);
        while world
            .engine
            .try_docker(&["exec", &container, "/bin/cat", "/data/done"])
            .is_err()
        {
            assert!(std::time::Instant::now() < limit, "the job was held up");
            sleep(Duration::from_millis(200)).await;
        }
        let logs = world.daemon().client(CLIENT, KEY).logs(id).await;
        let logs = logs.expect("the daemon answers").body;
        for part in ["out ", "err "] {
            assert_eq!(
                logs.matches(part).count(),
                megabytes * 64,
                "lines of {part}"
            );
        }
    }
    let grown = memory(world.daemon(), "VmHWM").saturating_sub(before);
    eprintln!("{grown} bytes more for {megabytes} MB of logs of each of two jobs");
    assert!(grown < 48 << 20, "{grown} bytes more");
    drop(stalled);
    for id in &ids {
        world.ask_to_end(id);
        let job = world.until_removed(id).await;
        assert_eq!(job["reason"], "completed", "{job:#}");
    }
    world.agrees_after_crashes(0).await;
}
