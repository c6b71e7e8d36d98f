//! A daemon with work to do: what most of these tests begin with.

use std::time::{Duration, Instant};

use offloader_system_tests::{Daemon, KEY, Setup, TestEngine};
use serde_json::{Value, json};
use site::{Answer, JobService};

/// The client that submits.
pub(crate) const CLIENT: &str = "the-site";
/// Runs until it is asked to stop, then ends as a job does that has delivered.
pub(crate) const WORKS_ON: &str = "trap 'exit 0' TERM; echo working; while :; do sleep 0.05; done";
/// The longest that anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// A token that must be seen nowhere.
pub(crate) const TOKEN: &str = "tokentokentokentokentokent";

/// A daemon and the engine that it runs containers in.
pub(crate) struct Work {
    // Dropped first: a daemon that lives would clean up after its containers, or start new ones.
    pub(crate) daemon: Daemon,
    pub(crate) setup: Setup,
    pub(crate) engine: TestEngine,
    pub(crate) image: String,
}

impl Work {
    /// A daemon whose recorder is this script. None: the test is to be skipped.
    pub(crate) async fn begin(test: &str, script: &str) -> Option<Self> {
        Self::configured(test, script, "").await
    }

    /// The same with lines of configuration.
    pub(crate) async fn configured(test: &str, script: &str, config: &str) -> Option<Self> {
        let mut engine = TestEngine::find(test)?;
        let image = engine.image("calls-recorder:v1.0.0", script);
        let setup = Setup::new()
            .engine(engine.host())
            .env("JOBS_IMAGEREGISTRY", engine.registry())
            .config(config);
        let daemon = setup.start().await;
        let work = Self {
            daemon,
            setup,
            engine,
            image,
        };
        work.until_ready().await;
        Some(work)
    }

    /// The daemon's API with the credentials of [`CLIENT`].
    pub(crate) fn client(&self) -> JobService {
        self.daemon.client(CLIENT, KEY)
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
    pub(crate) async fn start(&self, id: &str) -> String {
        let answer = self.submit(&self.recording(id)).await;
        assert_eq!(answer.status, 200, "{}\n{}", answer.body, self.daemon.log());
        answer.job_id().expect("a job has an id")
    }

    pub(crate) async fn submit(&self, job: &Value) -> Answer {
        self.client().post(job).await.expect("the daemon answers")
    }

    /// The job as the daemon tells it.
    pub(crate) async fn job(&self, id: &str) -> Value {
        let answer = self.client().job(id).await.expect("the daemon answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
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
            assert!(
                Instant::now() < until,
                "not {what}: {job:#}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the job has written all of these, and returns what it wrote.
    pub(crate) async fn until_it_says(&self, id: &str, texts: &[&str]) -> String {
        let until = Instant::now() + LONG;
        loop {
            let answer = self.client().logs(id).await.expect("the daemon answers");
            assert_eq!(answer.status, 200, "{}", answer.body);
            if texts.iter().all(|text| answer.body.contains(text)) {
                return answer.body;
            }
            assert!(Instant::now() < until, "not {texts:?}: {}", answer.body);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the job has ended, and returns it.
    pub(crate) async fn until_ended(&self, id: &str) -> Value {
        self.until(id, "ended", |job| job["outcome"].is_string())
            .await
    }

    /// Waits until nothing of the job is left in the engine.
    pub(crate) async fn until_removed(&self, id: &str) {
        let until = Instant::now() + LONG;
        loop {
            let left = (self.engine.containers_of(id), self.engine.volumes_of(id));
            if left.0.is_empty() && left.1.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "left behind: {left:?}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has an ended job removed by its client, with all that was kept of it.
    pub(crate) async fn delete(&self, id: &str) {
        let answer = self.client().delete(id).await.expect("the daemon answers");
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        self.until_removed(id).await;
        let answer = self.client().job(id).await.expect("the daemon answers");
        assert_eq!(answer.status, 404, "{answer:?}");
    }

    /// The one container of a job.
    #[track_caller]
    pub(crate) fn container(&self, id: &str) -> String {
        let mut found = self.engine.containers_of(id);
        assert_eq!(found.len(), 1, "containers of job {id}: {found:?}");
        found.remove(0)
    }

    /// Ends the daemon, does something while it is away, and starts it again on what it left.
    pub(crate) async fn restart(
        self,
        end: impl FnOnce(Daemon),
        meanwhile: impl FnOnce(&TestEngine),
    ) -> Self {
        end(self.daemon);
        meanwhile(&self.engine);
        let daemon = self.setup.start().await;
        let work = Self { daemon, ..self };
        work.until_ready().await;
        work
    }

    async fn until_ready(&self) {
        let until = Instant::now() + LONG;
        loop {
            let answer = reqwest::get(format!("{}/healthz", self.daemon.url())).await;
            let body = answer
                .expect("the daemon answers")
                .text()
                .await
                .expect("an answer has a body");
            let health: Value = serde_json::from_str(&body).expect("/healthz answers JSON");
            // A test may ask for more room than there is.
            let about_room = |why: &Value| why.to_string().contains("jobs.min_free_disk");
            let reasons = health["reasons"].as_array();
            let room_alone = reasons.is_some_and(|reasons| reasons.iter().all(about_room));
            if health["status"] == "ok" || room_alone {
                return;
            }
            assert!(
                Instant::now() < until,
                "never ready: {health}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An id of a site, which has 26 characters, that begins with `begin`.
pub(crate) fn work_id(begin: &str) -> String {
    format!("{begin:0<26}")
}
