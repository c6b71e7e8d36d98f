//! The daemon, its engine and its clients.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use offloader_system_tests::{
    Agreement, Daemon, Dockerd, KEY, Oracle, Setup, TestEngine, Told, Violations,
};
use serde_json::{Value, json};
use site::JobService;
use tokio::task::JoinHandle;

use super::happening::{Going, Habit, Which};

const CLIENT: &str = "chaos";
const INSTANCE: &str = "chaos";
/// A token that must be seen nowhere.
const TOKEN: &str = "secrettokensecrettokensecr";
const SLOTS: usize = 3;

/// What one image for all habits runs: the work's id says how it behaves.
const SCRIPT: &str = "mkdir -p /data/$RECORDING_ID
    case $RECORDING_ID in
    ends*) exit 0;;
    fails*) echo film > /data/$RECORDING_ID/call.mp4; exit 7;;
    leaves*) echo film > /data/$RECORDING_ID/call.mp4; trap 'exit 1' TERM;;
    ignores*) trap '' TERM;;
    *) trap 'exit 0' TERM;;
    esac
    while :; do sleep 0.05; done";

/// Work that was submitted, and what its client was told, as soon as it was.
struct Asked {
    work: String,
    answer: JoinHandle<Told>,
}

pub(super) struct World {
    // In the order of dropping: the daemon would start new containers.
    daemon: Option<Daemon>,
    /// Whether the daemon was told to die somewhere.
    doomed: bool,
    asked: Vec<Asked>,
    last: Option<Value>,
    number: u32,
    setup: Setup,
    oracle: Oracle,
    image: String,
    image_without_program: String,
    engine: TestEngine,
    dockerd: Dockerd,
}

impl World {
    pub(super) async fn begin() -> Result<Self> {
        let dockerd = Dockerd::temporary(None).await?;
        let mut engine = TestEngine::of(&dockerd);
        let image = engine.image("calls-recorder:v1.0.0", SCRIPT);
        let image_without_program = engine.image_without_program("calls-recorder:v1.0.1");
        let setup = Setup::new()
            .with_fault_points()
            .with_admin()
            .engine(engine.host())
            .env("JOBS_IMAGEREGISTRY", engine.registry())
            .config(&format!(
                "jobs.instance = \"{INSTANCE}\"\njobs.max_concurrent_jobs = {SLOTS}\n\
                 jobs.start_timeout = \"30s\"\njobs.stray_grace = \"1s\"\n[gate.recording]\nstop_grace = \"3s\""
            ));
        let oracle = Oracle::new(&engine, INSTANCE, SLOTS, &[TOKEN]);
        let daemon = Some(setup.start().await);
        Ok(Self {
            daemon,
            doomed: false,
            asked: Vec::new(),
            last: None,
            number: 0,
            setup,
            oracle,
            image,
            image_without_program,
            engine,
            dockerd,
        })
    }

    fn url(&self) -> String {
        let daemon = self.daemon.as_ref();
        daemon.map_or_else(
            || "http://127.0.0.1:1".to_owned(),
            |daemon| daemon.url().to_owned(),
        )
    }

    pub(super) fn submit(&mut self, habit: Habit, seconds: u64, hangs_up: Option<Duration>) {
        self.number += 1;
        let name = match habit {
            Habit::WorksOn => "works",
            Habit::Ends => "ends",
            Habit::Fails => "fails",
            Habit::Leaves => "leaves",
            Habit::Ignores => "ignores",
            Habit::CannotStart => "cannot",
        };
        let work = format!("{:0<26}", format!("{name}{}x", self.number));
        let image = match habit {
            Habit::CannotStart => &self.image_without_program,
            _ => &self.image,
        };
        let body = json!({
            "type": "recording",
            "runner": image,
            "max_duration_sec": seconds,
            "input_data": {
                "site_url": "http://site.test:8065",
                "call_id": format!("{:0<26}", "call"),
                "post_id": format!("{:0<26}", "post"),
                "recording_id": work,
                "auth_token": TOKEN,
            },
        });
        self.last = Some(body.clone());
        self.post(body, hangs_up);
    }

    pub(super) fn submit_again(&mut self) {
        if let Some(body) = self.last.clone() {
            self.post(body, None);
        }
    }

    fn post(&mut self, body: Value, hangs_up: Option<Duration>) {
        let work = body["input_data"]["recording_id"].as_str();
        let work = work.unwrap_or_default().to_owned();
        let client = JobService::new(&self.url(), CLIENT, KEY);
        let patience = hangs_up.unwrap_or(Duration::from_secs(120));
        let answer = tokio::spawn(async move {
            match tokio::time::timeout(patience, client.post(&body)).await {
                Ok(Ok(answer)) if answer.status == 200 => {
                    Told::Runs(answer.job_id().unwrap_or_default())
                }
                Ok(Ok(_)) => Told::Failed,
                Ok(Err(_)) | Err(_) => Told::Nothing,
            }
        });
        self.asked.push(Asked { work, answer });
    }

    /// A container that runs.
    fn container(&self, which: Which) -> Option<String> {
        let label = format!("label=io.offloader.instance={INSTANCE}");
        let running = self
            .engine
            .try_docker(&["ps", "--format", "{{.Names}}", "--filter", &label])
            .unwrap_or_default();
        let running: Vec<_> = running.lines().collect();
        let index = which.checked_rem(running.len() as u64)?;
        Some(running[index as usize].to_owned())
    }

    pub(super) fn signal(&self, which: Which, signal: &str) {
        if let Some(container) = self.container(which) {
            let _ = self
                .engine
                .try_docker(&["kill", "--signal", signal, &container]);
        }
    }

    pub(super) fn remove_container(&mut self, which: Which) {
        if let Some(container) = self.container(which) {
            self.oracle.removed_by_hand(&container);
            let _ = self.engine.try_docker(&["rm", "--force", &container]);
        }
    }

    pub(super) fn end_daemon(&mut self, going: Going) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        if going == Going::Stopped && !self.doomed && !daemon.has_ended() {
            daemon.stop();
        } else {
            daemon.crash();
        }
    }

    pub(super) async fn start_daemon(&mut self) {
        self.doomed = false;
        self.daemon = Some(self.setup.start().await);
    }

    /// It may die before it answers, or never.
    pub(super) fn start_daemon_dying_at(&mut self, point: &str) {
        self.doomed = true;
        self.daemon = Some(self.setup.clone().dies_at(point).launch());
    }

    pub(super) fn end_engine(&mut self, going: Going) {
        match going {
            Going::Stopped => self.dockerd.stop(),
            Going::Killed => self.dockerd.kill(),
            Going::PowerFailed => self.dockerd.lose_everything(),
        }
    }

    pub(super) async fn start_engine(&mut self, live_restore: bool) -> Result<()> {
        self.dockerd.set_live_restore(live_restore);
        self.dockerd.resume().await?;
        self.oracle.engine_is_back(&self.engine);
        Ok(())
    }

    pub(super) fn freeze_engine(&self) {
        self.dockerd.freeze();
    }

    pub(super) fn thaw_engine(&self) {
        self.dockerd.thaw();
    }

    fn admin(&self) -> JobService {
        JobService::new(&self.url(), "", offloader_system_tests::ADMIN_SECRET)
    }

    /// Lets an administrator ask something of one of the newest jobs, and does not wait for it.
    pub(super) fn ask_admin<F>(
        &self,
        which: Which,
        ask: impl FnOnce(JobService, String) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let admin = self.admin();
        tokio::spawn(async move {
            let jobs = newest(&admin).await;
            if let Some(index) = which.checked_rem(jobs.len() as u64) {
                ask(admin, jobs[index as usize].clone()).await;
            }
        });
    }

    /// Brings everything back that is away, waits for every answer, and asks the oracle.
    ///
    /// # Errors
    /// When the test's own things fail.
    pub(super) async fn verdict(&mut self) -> Result<std::result::Result<Agreement, Violations>> {
        let ended = self.daemon.as_mut().is_none_or(Daemon::has_ended);
        if ended || self.doomed {
            self.end_daemon(Going::Killed);
            self.start_daemon().await;
        }
        for asked in self.asked.drain(..) {
            let told = asked.answer.await.context("a client panicked")?;
            self.oracle.told(&asked.work, told);
        }
        let daemon = self.daemon.as_ref().context("the daemon was started")?;
        Ok(self.oracle.consult(daemon, &self.setup, &self.engine).await)
    }

    /// Ends and deletes every job.
    ///
    /// # Errors
    /// When that does not come to an end.
    pub(super) async fn wind_up(&mut self) -> Result<()> {
        for _ in 0..600 {
            while let Some(container) = self.container(0) {
                let _ = self.engine.try_docker(&["kill", &container]);
            }
            let jobs = newest(&self.admin()).await;
            if jobs.is_empty() {
                return Ok(());
            }
            for id in jobs {
                let _ = self.admin().delete(&id).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the jobs do not end: {:?}", newest(&self.admin()).await)
    }

    /// Puts the daemon's log where it outlives this.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep_log(&self) -> Result<PathBuf> {
        let kept = std::env::temp_dir().join(format!("offloader-chaos-{}.log", std::process::id()));
        fs::copy(self.setup.dir().join("log"), &kept).context("keeping the daemon's log")?;
        Ok(kept)
    }
}

/// The ids of the newest jobs.
async fn newest(admin: &JobService) -> Vec<String> {
    let Ok(answer) = admin.list_before("").await else {
        return Vec::new();
    };
    let jobs = answer.json();
    let jobs = jobs["jobs"].as_array().into_iter().flatten();
    jobs.filter_map(|job| job["id"].as_str().map(str::to_owned))
        .collect()
}
