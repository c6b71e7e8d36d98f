//! Real components in the embedded runner: what they get, what they do not, and how they end.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment and write their fixtures"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use domain::{ClientId, EndReason, Exit, ImageRef, JobId, JobKind, Leftovers, Secret, Timestamp};
use engine::{Clock, LaunchError, LogsUntil, PrepareError, Runner, Sighting, StartTicket};
use futures_util::StreamExt as _;
use gate::{ContainerName, Gate, Grants, LaunchPermit, LaunchPlan, Origin};
use offloader_runner_wasi::{WasiConfig, WasiRunner};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const IMAGE: &str = "mattermost/calls-recorder:v0.8.13";

/// The component, built once.
fn probe() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("target/tmp");
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", target)
            .args(["build", "--quiet", "--profile", "guest"])
            .args(["--target", "wasm32-wasip2", "--package", "job-probe"])
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the probe does not build");
        target.join("wasm32-wasip2/guest/job-probe.wasm")
    })
}

struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::from_millis(i64::try_from(since.unwrap().as_millis()).unwrap())
    }
}

/// A place for components and jobs, and a gate that lets probes be told what to do.
struct Place {
    dir: TempDir,
    memory: u64,
    output_max: u64,
    data_max: u64,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["components", "jobs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::copy(probe(), dir.path().join("components/probe.wasm")).unwrap();
        Self {
            dir,
            memory: 64 << 20,
            output_max: 1 << 20,
            data_max: 0,
        }
    }

    fn open(&self, name: &str) -> Dir {
        Dir::open_ambient_dir(self.dir.path().join(name), ambient_authority()).unwrap()
    }

    fn runner(&self) -> WasiRunner {
        WasiRunner::new(WasiConfig {
            components: self.open("components"),
            images: BTreeMap::from([(IMAGE.to_owned(), "probe.wasm".to_owned())]),
            jobs: self.open("jobs"),
            output_max: self.output_max,
            data_max: self.data_max,
            threads: 2,
            clock: Arc::new(TestClock),
        })
        .unwrap()
    }

    fn gate(&self) -> Gate {
        let mut grants = Grants::standard("mattermost");
        grants.recording.memory_bytes = self.memory;
        grants
            .recording
            .inputs
            .insert("ACT".to_owned(), ".*".to_owned());
        Gate::new(grants, "main".parse().unwrap()).unwrap()
    }
}

/// A runner, and a job that it was asked to start.
struct Started {
    runner: WasiRunner,
    name: ContainerName,
}

fn ticket(yes: bool) -> StartTicket {
    StartTicket::new(move || yes)
}

async fn permit(runner: &WasiRunner, gate: &Gate, act: &str, site: Option<&str>) -> LaunchPermit {
    let image: ImageRef = IMAGE.parse().unwrap();
    let permit = gate
        .image(JobKind::Recording, IMAGE, &Origin::Client)
        .unwrap();
    let image_id = runner.prepare(&permit).await.unwrap();
    gate.authorize(LaunchPlan {
        job: JobId::from_random([3; JobId::LEN]),
        attempt: 1,
        kind: JobKind::Recording,
        client: ClientId::new("site").unwrap(),
        submitted_at: Timestamp::from_millis(0),
        max_duration: Duration::from_secs(60),
        image: (image, Origin::Client),
        image_id,
        site_url: site.map(|url| (url.parse().unwrap(), Origin::Client)),
        inputs: BTreeMap::from([("ACT".to_owned(), Secret::new(act))]),
    })
    .unwrap()
}

async fn start(place: &Place, act: &str) -> Started {
    start_with_site(place, act, None).await
}

async fn start_with_site(place: &Place, act: &str, site: Option<&str>) -> Started {
    let runner = place.runner();
    let permit = permit(&runner, &place.gate(), act, site).await;
    runner.launch(&permit, &ticket(true)).await.unwrap();
    Started {
        runner,
        name: permit.name().clone(),
    }
}

impl Started {
    async fn exit(&self) -> Exit {
        timeout(Duration::from_secs(60), self.runner.changed(&self.name))
            .await
            .expect("it ends")
            .unwrap();
        match self.runner.inspect(&self.name).await.unwrap() {
            Sighting::Ended(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    async fn output(&self) -> String {
        let logs = self.runner.logs(&self.name, LogsUntil::End).await.unwrap();
        let mut logs = logs.expect("there is output");
        let mut text = Vec::new();
        while let Some(part) = logs.next().await {
            text.extend_from_slice(&part.unwrap());
        }
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn a_job_ends_with_its_own_exit_code() {
    let place = Place::new();
    for (act, code) in [("say=hello", 0), ("exit=1", 1), ("panic", 134)] {
        let started = start(&place, act).await;
        let exit = started.exit().await;
        assert_eq!((exit.code, exit.out_of_memory), (code, false), "{act}");
        assert!(exit.ended_at >= exit.started_at);
        started.runner.remove(&started.name).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_sees_its_environment_its_data_and_nothing_else() {
    let place = Place::new();
    let act = "env,list=/,list=/data,read=/etc/passwd,read=/data/../../components/probe.wasm,\
               write=/data/a.mp4=10,write=/b=1,connect=127.0.0.1:1,say=done";
    let started = start(&place, act).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    let lines: Vec<_> = output.lines().collect();
    let env: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("ACT="))
        .collect();
    assert_eq!(env.len(), 1, "{output}");
    assert!(!output.contains("PATH="), "{output}");
    for refused in ["read failed", "write failed", "connect failed"] {
        assert!(output.contains(refused), "{refused}: {output}");
    }
    assert!(!output.contains("read worked"), "{output}");
    assert!(!output.contains("connect worked"), "{output}");
    assert!(lines.ends_with(&["done"]), "{output}");
    assert_eq!(
        started.runner.leftovers(&started.name).await.unwrap(),
        Some(Leftovers {
            media_bytes: 10,
            total_bytes: 10
        })
    );
}

#[tokio::test]
async fn a_job_reaches_its_site_alone() {
    let place = Place::new();
    let [site, other] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [site, other] = [&site, &other].map(|listener| listener.local_addr().unwrap());
    let act = format!("connect={site},connect={other}");
    let started = start_with_site(&place, &act, Some(&format!("http://{site}"))).await;
    assert_eq!(started.exit().await.code, 0);
    let output = started.output().await;
    let told: Vec<_> = output
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(told, ["connect worked", "connect failed"], "{output}");
}

#[tokio::test]
async fn asked_to_end_its_input_ends() {
    let place = Place::new();
    let started = start(&place, "say=ready,wait,say=asked,exit=1").await;
    let Sighting::Running { since } = started.runner.inspect(&started.name).await.unwrap() else {
        panic!("it runs")
    };
    started.runner.terminate(&started.name).await.unwrap();
    started.runner.terminate(&started.name).await.unwrap();
    let exit = started.exit().await;
    assert_eq!((exit.code, exit.started_at), (1, since));
    assert_eq!(started.output().await, "ready\nasked\n");
}

#[tokio::test]
async fn a_job_that_computes_for_ever_is_killed_at_once() {
    let place = Place::new();
    for act in ["spin", "sleep-ms=1000000", "wait"] {
        let started = start(&place, act).await;
        sleep(Duration::from_millis(50)).await;
        let begin = Instant::now();
        started.runner.kill(&started.name).await.unwrap();
        assert_eq!(started.exit().await.code, 137, "{act}");
        // Generous: the machine may be busy.
        assert!(begin.elapsed() < Duration::from_secs(5), "{act}");
        started.runner.remove(&started.name).await.unwrap();
    }
}

#[tokio::test]
async fn memory_is_what_the_permit_says() {
    let mut place = Place::new();
    place.memory = 32 << 20;
    for (bytes, code) in [(8 << 20, 0), (48 << 20, 137)] {
        let started = start(&place, &format!("grow={bytes}")).await;
        let exit = started.exit().await;
        assert_eq!(
            (exit.code, exit.out_of_memory),
            (code, code == 137),
            "{bytes}"
        );
        started.runner.remove(&started.name).await.unwrap();
    }
}

#[tokio::test]
async fn output_is_kept_up_to_its_limit() {
    let mut place = Place::new();
    place.output_max = 10_000;
    let started = start(&place, "print-bytes=1000000").await;
    assert_eq!(started.exit().await.code, 0);
    assert_eq!(started.output().await.len(), 10_000);
}

#[tokio::test]
async fn too_much_data_ends_a_job_and_is_kept() {
    let mut place = Place::new();
    place.data_max = 100_000;
    let started = start(&place, "write=/data/big.mp4=200000,wait").await;
    assert_eq!(started.exit().await.code, 137);
    assert!(started.output().await.contains("more than 100000 bytes"));
    let left = started.runner.leftovers(&started.name).await.unwrap();
    assert_eq!(left.unwrap().media_bytes, 200_000);
}

#[tokio::test]
async fn logs_are_followed_while_it_runs() {
    let place = Place::new();
    let started = start(&place, "say=first,wait,complain=last").await;
    let logs = started.runner.logs(&started.name, LogsUntil::End).await;
    let mut logs = logs.unwrap().unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap(), "first\n");
    let now = started.runner.logs(&started.name, LogsUntil::Now).await;
    let mut now = now.unwrap().unwrap();
    assert_eq!(now.next().await.unwrap().unwrap(), "first\n");
    assert!(now.next().await.is_none());
    started.runner.terminate(&started.name).await.unwrap();
    assert_eq!(logs.next().await.unwrap().unwrap(), "last\n");
    assert!(logs.next().await.is_none());
}

#[tokio::test]
async fn a_job_is_started_once() {
    let place = Place::new();
    let runner = place.runner();
    let gate = place.gate();
    let permit = permit(&runner, &gate, "wait", None).await;
    let first = runner.launch(&permit, &ticket(true)).await.unwrap();
    assert_eq!(runner.launch(&permit, &ticket(false)).await.unwrap(), first);
    let other = self::permit(&runner, &gate, "exit=1", None).await;
    let taken = runner.launch(&other, &ticket(true)).await.unwrap_err();
    assert!(matches!(taken, LaunchError::NameTaken { .. }), "{taken}");
}

#[tokio::test]
async fn nothing_is_left_of_a_withdrawn_start_or_a_removed_job() {
    let place = Place::new();
    let runner = place.runner();
    let permit = permit(&runner, &place.gate(), "wait", None).await;
    let withdrawn = runner.launch(&permit, &ticket(false)).await.unwrap_err();
    assert!(matches!(withdrawn, LaunchError::Withdrawn));
    assert_eq!(
        runner.inspect(permit.name()).await.unwrap(),
        Sighting::Absent
    );
    assert_eq!(runner.list().await.unwrap(), []);

    runner.launch(&permit, &ticket(true)).await.unwrap();
    assert_eq!(runner.list().await.unwrap(), [permit.name().clone()]);
    runner.remove(permit.name()).await.unwrap();
    runner.remove(permit.name()).await.unwrap();
    assert_eq!(
        runner.inspect(permit.name()).await.unwrap(),
        Sighting::Absent
    );
    assert_eq!(runner.list().await.unwrap(), []);
    assert!(runner.leftovers(permit.name()).await.unwrap().is_none());
    let logs = runner.logs(permit.name(), LogsUntil::Now).await.unwrap();
    assert!(logs.is_none());
}

#[tokio::test]
async fn jobs_of_a_process_that_is_gone_are_lost_and_their_data_kept() {
    let place = Place::new();
    let started = start(&place, "say=before,write=/data/call.mp4=5,say=written,wait").await;
    let mut logs = started
        .runner
        .logs(&started.name, LogsUntil::End)
        .await
        .unwrap()
        .unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("written") {
        seen.extend_from_slice(&logs.next().await.unwrap().unwrap());
    }
    drop(logs);
    let Started { runner, name } = started;
    drop(runner);

    let runner = place.runner();
    assert_eq!(runner.inspect(&name).await.unwrap(), Sighting::Lost);
    let left = runner.leftovers(&name).await.unwrap().unwrap();
    assert_eq!(left.media_bytes, 5);
    let permit = permit(&runner, &place.gate(), "exit=0", None).await;
    let again = runner.launch(&permit, &ticket(true)).await.unwrap_err();
    assert!(matches!(again, LaunchError::Gone), "{again}");
    assert_eq!(
        runner.inspect(&name).await.unwrap(),
        Sighting::Lost,
        "it is not run again"
    );
}

#[tokio::test]
async fn the_room_on_the_disk_is_known() {
    let place = Place::new();
    let free = place.runner().free_bytes().await.unwrap();
    assert!(free.is_some_and(|bytes| bytes > 0), "{free:?}");
}

#[tokio::test]
async fn images_are_what_the_configuration_lists() {
    let place = Place::new();
    let runner = place.runner();
    let gate = place.gate();
    let reason = async |image: &str| {
        let permit = gate.image(JobKind::Recording, image, &Origin::Client);
        match runner.prepare(&permit.unwrap()).await {
            Err(PrepareError::Pull { reason, .. }) => Some(reason),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    };
    assert_eq!(reason(IMAGE).await, None);
    assert_eq!(
        reason("mattermost/calls-recorder:v9").await,
        Some(EndReason::ImageNotFound)
    );
    let component = place.dir.path().join("components/probe.wasm");
    fs::write(&component, "(module)").unwrap();
    assert_eq!(reason(IMAGE).await, Some(EndReason::ImageRefused));
    fs::remove_file(&component).unwrap();
    assert_eq!(reason(IMAGE).await, Some(EndReason::ImageUnreachable));
}
