//! A daemon, its engine, and the oracle that looks at both: what every scenario plays in.

use std::panic::Location;
use std::time::{Duration, Instant};

use offloader_system_tests::{
    Agreement, Daemon, Dockerd, KEY, Line, Oracle, Setup, TestEngine, Told,
};
use serde_json::{Value, json};
use site::Answer;

/// The client that submits.
pub(crate) const CLIENT: &str = "the-site";
/// A token that must be seen nowhere.
pub(crate) const TOKEN: &str = "secrettokensecrettokensecr";
/// Runs until it is asked to stop, then ends as a job does that has delivered.
pub(crate) const WORKS_ON: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// The longest that anything here takes, unless it says otherwise.
const LONG: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(50);

/// A daemon that runs, or is to run again.
pub(crate) struct World {
    // Dropped first: a daemon that lives would clean up after its containers, or start new ones.
    pub(crate) daemon: Option<Daemon>,
    pub(crate) setup: Setup,
    pub(crate) oracle: Oracle,
    pub(crate) line: Option<Line>,
    pub(crate) engine: TestEngine,
    pub(crate) dockerd: Option<Dockerd>,
    pub(crate) instance: String,
    pub(crate) image: String,
    pub(crate) slots: usize,
}

impl World {
    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// Its own engine, which can be restarted.
    pub(crate) fn dockerd(&mut self) -> &mut Dockerd {
        self.dockerd.as_mut().expect("it has an engine of its own")
    }

    /// Starts the daemon on what it left and waits until it can run jobs.
    pub(crate) async fn start(&mut self) {
        self.start_blind().await;
        self.until_healthy().await;
    }

    /// Starts the daemon and waits until it answers, with or without an engine.
    pub(crate) async fn start_blind(&mut self) {
        self.daemon = Some(self.setup.start().await);
    }

    /// Starts a daemon that will die at a fault point, some time after it serves.
    pub(crate) async fn start_dying_at(&mut self, point: &str) {
        self.daemon = Some(self.setup.clone().dies_at(point).start().await);
        self.until_healthy().await;
    }

    /// Waits for the death that was announced.
    pub(crate) fn until_dead(&mut self) {
        self.daemon.take().expect("the daemon runs").died();
    }

    /// SIGKILL.
    pub(crate) fn crash(&mut self) {
        self.daemon.take().expect("the daemon runs").crash();
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self) {
        let ended = self.daemon.take().expect("the daemon runs").stop();
        assert!(ended.success(), "{ended}");
    }

    /// Starts the daemon again after two more crashes: before the first job is taken up, and when all
    /// are.
    pub(crate) async fn recover(&mut self, unfinished: u32) {
        for pass in [1, unfinished + 1] {
            let point = format!("recovery:{pass}");
            self.setup.clone().dies_at(&point).start_and_die();
        }
        self.start().await;
    }

    /// Asks the oracle; what it finds wrong fails the test.
    pub(crate) async fn agrees(&self) -> Agreement {
        let asked = self
            .oracle
            .consult(self.daemon(), &self.setup, &self.engine);
        match asked.await {
            Ok(agreement) => agreement,
            Err(violations) => panic!(
                "{}\nthe daemon says:\n{}",
                violations.join("\n"),
                self.daemon().log()
            ),
        }
    }

    /// Asks the oracle, kills the daemon, kills it twice more while it recovers, and asks again.
    /// Slots that are free then can be used.
    pub(crate) async fn agrees_after_crashes(&mut self, unfinished: u32) -> Agreement {
        let before = self.agrees().await;
        self.crash();
        self.recover(unfinished).await;
        assert_eq!(self.agrees().await, before, "before and after crashes");
        for number in before.running..self.slots {
            self.start_job(&format!("free{number}")).await;
        }
        self.agrees().await;
        before
    }

    /// The body of a submission; `id` makes it a piece of work of its own.
    pub(crate) fn recording(&self, id: &str) -> Value {
        json!({
            "type": "recording",
            "runner": self.image,
            "max_duration_sec": 600,
            "input_data": {
                "site_url": "http://site.test:8065",
                "call_id": work_id("call"),
                "post_id": work_id("post"),
                "recording_id": work_id(id),
                "auth_token": TOKEN,
            },
        })
    }

    /// Submits a recording, which has to begin; returns the job's id.
    #[track_caller]
    pub(crate) fn start_job(&mut self, id: &str) -> impl Future<Output = String> {
        self.start_body(self.recording(id))
    }

    /// Submits a job, which has to begin; returns its id.
    #[track_caller]
    pub(crate) fn start_body(&mut self, body: Value) -> impl Future<Output = String> {
        let caller = Location::caller();
        async move {
            let answer = self.submit(&body).await.expect("the daemon answers");
            let log = self.daemon().log();
            assert_eq!(answer.status, 200, "{caller}: {}\n{log}", answer.body);
            answer.job_id().expect("a job has an id")
        }
    }

    /// Submits a job and takes down for the oracle what was answered. None: nothing was.
    pub(crate) async fn submit(&mut self, body: &Value) -> Option<Answer> {
        let answer = self.daemon().client(CLIENT, KEY).post(body).await.ok();
        self.note(body, answer.as_ref());
        answer
    }

    /// Takes down for the oracle what was answered.
    pub(crate) fn note(&mut self, body: &Value, answer: Option<&Answer>) {
        let told = match answer {
            None => Told::Nothing,
            Some(answer) if answer.status == 200 => {
                Told::Runs(answer.job_id().expect("a job has an id"))
            }
            Some(_) => Told::Failed,
        };
        let inputs = &body["input_data"];
        let work = inputs["recording_id"]
            .as_str()
            .or(inputs["transcription_id"].as_str());
        self.oracle.told(work.unwrap_or_default(), told);
    }

    /// The job as the administrator sees it.
    pub(crate) async fn job(&self, id: &str) -> Value {
        let answer = self.daemon().admin().job(id).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// The newest job; null when there is none.
    pub(crate) async fn newest(&self) -> Value {
        let answer = self.daemon().admin().list().await.expect("an answer");
        answer.json()["jobs"].get(0).cloned().unwrap_or_default()
    }

    /// Waits until the job is as `wanted`, and returns it.
    pub(crate) async fn until(
        &self,
        id: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let job = self.job(id).await;
            if wanted(&job) {
                return job;
            }
            let log = self.daemon().log();
            assert!(Instant::now() < until, "not {what}: {job:#}\n{log}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the job has ended, and returns it.
    pub(crate) async fn until_ended(&self, id: &str) -> Value {
        self.until(id, "ended", |job| job["outcome"].is_string())
            .await
    }

    /// Waits until nothing of the job is left but its record, and returns that.
    pub(crate) async fn until_removed(&self, id: &str) -> Value {
        self.until(id, "removed", |job| job["state"] == "removed")
            .await
    }

    /// Waits until /healthz says so.
    pub(crate) async fn until_healthy(&self) {
        self.until_health("ok").await;
    }

    pub(crate) async fn until_health(&self, status: &str) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let answer = reqwest::get(format!("{}/healthz", self.daemon().url())).await;
            let body = answer.expect("an answer").text().await.expect("a body");
            let health: Value = serde_json::from_str(&body).expect("/healthz answers JSON");
            if health["status"] == status {
                return health;
            }
            let log = self.daemon().log();
            assert!(Instant::now() < until, "never {status}: {health}\n{log}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The one container of a job.
    #[track_caller]
    pub(crate) fn container(&self, id: &str) -> String {
        let mut found = self.engine.containers_of(id);
        assert_eq!(found.len(), 1, "containers of job {id}: {found:?}");
        found.remove(0)
    }

    /// Asks a job's container to end, as Mattermost would.
    pub(crate) fn ask_to_end(&self, id: &str) {
        let container = self.container(id);
        self.engine
            .docker(&["kill", "--signal", "TERM", &container]);
    }

    /// Everything in the engine that carries the label of this installation.
    pub(crate) fn labelled(&self) -> Vec<String> {
        let label = format!("label=io.offloader.instance={}", self.instance);
        let containers =
            self.engine
                .docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]);
        let volumes = self
            .engine
            .docker(&["volume", "ls", "--quiet", "--filter", &label]);
        let all = containers.lines().chain(volumes.lines());
        all.map(str::to_owned).collect()
    }
}

/// An id of a site, which has 26 characters, that begins with `begin`.
pub(crate) fn work_id(begin: &str) -> String {
    format!("{begin:0<26}")
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_for(what: &str, so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let until = Instant::now() + LONG;
        while !so() {
            assert!(Instant::now() < until, "{caller}: not so: {what}");
            tokio::time::sleep(POLL).await;
        }
    }
}
