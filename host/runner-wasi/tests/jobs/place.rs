//! A place for components and jobs, and the runner over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fs};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use domain::{ClientId, Exit, ImageRef, JobId, JobKind, Secret, Timestamp};
use engine::{Clock, LogsUntil, Runner, Sighting, StartTicket};
use futures_util::StreamExt as _;
use gate::{ContainerName, Gate, Grants, LaunchPermit, LaunchPlan, Origin};
use offloader_runner_wasi::{WasiConfig, WasiRunner};
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) const IMAGE: &str = "mattermost/calls-recorder:v0.8.13";

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
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) memory: u64,
    pub(crate) output_max: u64,
    pub(crate) data_max: u64,
    pub(crate) jobs_max: u32,
    pub(crate) threads: usize,
}

impl Place {
    pub(crate) fn new() -> Self {
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
            jobs_max: 64,
            threads: 2,
        }
    }

    pub(crate) fn open(&self, name: &str) -> Dir {
        Dir::open_ambient_dir(self.dir.path().join(name), ambient_authority()).unwrap()
    }

    /// Where a job has its things.
    pub(crate) fn of(&self, name: &ContainerName) -> PathBuf {
        self.dir.path().join("jobs").join(name.to_string())
    }

    pub(crate) fn runner(&self) -> WasiRunner {
        WasiRunner::new(WasiConfig {
            instance: "main".parse().unwrap(),
            components: self.open("components"),
            images: BTreeMap::from([(IMAGE.to_owned(), "probe.wasm".to_owned())]),
            jobs: self.open("jobs"),
            output_max: self.output_max,
            data_max: self.data_max,
            jobs_max: self.jobs_max,
            threads: self.threads,
            clock: Arc::new(TestClock),
        })
        .unwrap()
    }

    pub(crate) fn gate(&self) -> Gate {
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
pub(crate) struct Started {
    pub(crate) runner: WasiRunner,
    pub(crate) name: ContainerName,
}

pub(crate) fn ticket(yes: bool) -> StartTicket {
    StartTicket::new(move || yes)
}

pub(crate) async fn permit(
    runner: &WasiRunner,
    gate: &Gate,
    act: &str,
    site: Option<&str>,
) -> LaunchPermit {
    permit_of(JobId::from_random([3; JobId::LEN]), runner, gate, act, site).await
}

pub(crate) async fn permit_of(
    job: JobId,
    runner: &WasiRunner,
    gate: &Gate,
    act: &str,
    site: Option<&str>,
) -> LaunchPermit {
    let image: ImageRef = IMAGE.parse().unwrap();
    let permit = gate
        .image(JobKind::Recording, IMAGE, &Origin::Client)
        .unwrap();
    let image_id = runner.prepare(&permit).await.unwrap();
    gate.authorize(LaunchPlan {
        job,
        attempt: 1,
        kind: JobKind::Recording,
        client: ClientId::new("site").unwrap(),
        submitted_at: Timestamp::from_millis(0),
        max_duration: Duration::from_secs(60),
        image: (image, Origin::Client),
        image_id,
        site_url: site.map(|url| (url.parse().unwrap(), Origin::Client)),
        inputs: BTreeMap::from([("ACT".to_owned(), Secret::new(act))]),
        resends: None,
    })
    .unwrap()
}

pub(crate) async fn start(place: &Place, act: &str) -> Started {
    start_with_site(place, act, None).await
}

pub(crate) async fn start_with_site(place: &Place, act: &str, site: Option<&str>) -> Started {
    let runner = place.runner();
    let permit = permit(&runner, &place.gate(), act, site).await;
    runner.launch(&permit, &ticket(true)).await.unwrap();
    Started {
        runner,
        name: permit.name().clone(),
    }
}

impl Started {
    /// Waits until it has written this.
    pub(crate) async fn says(&self, text: &str) {
        let logs = self.runner.logs(&self.name, LogsUntil::End).await.unwrap();
        let (mut logs, mut seen) = (logs.expect("there is output"), Vec::new());
        while !String::from_utf8_lossy(&seen).contains(text) {
            let part = timeout(Duration::from_secs(60), logs.next()).await;
            seen.extend_from_slice(&part.expect("it says it").expect("it says it").unwrap());
        }
    }

    pub(crate) async fn exit(&self) -> Exit {
        timeout(Duration::from_secs(60), self.runner.changed(&self.name))
            .await
            .expect("it ends")
            .unwrap();
        match self.runner.inspect(&self.name).await.unwrap() {
            Sighting::Ended(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn output(&self) -> String {
        let logs = self.runner.logs(&self.name, LogsUntil::End).await.unwrap();
        let mut logs = logs.expect("there is output");
        let mut text = Vec::new();
        while let Some(part) = logs.next().await {
            text.extend_from_slice(&part.unwrap());
        }
        String::from_utf8(text).unwrap()
    }
}
