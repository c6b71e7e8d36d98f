//! A daemon with work: a recorder that does nothing until it is asked to end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use offloader_system_tests::{KEY, TestEngine};
use serde_json::{Value, json};
use site::JobService;

use super::Bench;
use super::daemon::{Daemon, INSTANCE, Server};
use super::raw::RawEngine;
use crate::engine::Engine;

/// The client that submits.
pub(super) const CLIENT: &str = "the-site";
/// What the plugin asks for.
pub(super) const RUNNER: &str = "mattermost/calls-recorder:v0.8.13";
/// Ends when asked to, as a job does that has delivered.
const RECORDER: &str = "trap 'exit 0' TERM; sleep 3600 & wait";
const TIDIED_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A daemon with the four stock policies, and containers that it can run.
pub(super) struct Work {
    // Dropped first: the daemon would see its containers vanish. There is always one, but while
    // another is started.
    server: Option<Server>,
    daemon: Daemon,
    /// Removes the image and whatever came from it.
    _images: TestEngine,
    pub(super) raw: RawEngine,
    service: JobService,
    submitted: u32,
}

impl Work {
    /// Starts the daemon.
    pub(super) async fn begin(bench: &Bench, name: &str, engine: &Engine) -> Result<Self> {
        let mut images = TestEngine::at(engine.host().to_owned());
        images.image("calls-recorder:v0.8.13", RECORDER);
        let daemon = Daemon::with_policies(bench, name, engine.host(), images.registry())?;
        let mut server = daemon.start()?;
        server.first_answer("/healthz")?;
        let mut work = Self {
            service: service_of(&server),
            server: Some(server),
            daemon,
            _images: images,
            raw: RawEngine::at(engine.host())?,
            submitted: 0,
        };
        // The first call of a client registers it.
        let (job, _) = work.submit().await?;
        work.finish(&job).await?;
        Ok(work)
    }

    /// HOST:PORT of the daemon.
    pub(super) fn address(&self) -> String {
        let server = self.server.as_ref().map(Server::address);
        server
            .map(|address| address.to_string())
            .unwrap_or_default()
    }

    /// Ends the daemon, by SIGKILL if it is to notice nothing, and gives what it can be started with.
    pub(super) fn end(&mut self, at_once: bool) -> &Daemon {
        match self.server.take() {
            Some(server) if at_once => server.kill(),
            server => drop(server),
        }
        &self.daemon
    }

    /// Goes on with a daemon that was started after [`Self::end`].
    pub(super) fn go_on(&mut self, server: Server) {
        self.service = service_of(&server);
        self.server = Some(server);
    }

    /// How many jobs are shown as running, or are on the first page of them.
    pub(super) async fn shown_running(&self) -> Result<usize> {
        let answer = self.service.list_in("running").await?;
        ensure!(answer.status == 200, "GET /jobs: {}", answer.body);
        let page = answer.json();
        let jobs = page["jobs"].as_array().context("a page without jobs")?;
        Ok(jobs.len())
    }

    /// CLIENT:KEY of the one who submits.
    pub(super) fn user() -> String {
        format!("{CLIENT}:{KEY}")
    }

    /// Submits a recording. Returns its id and how long it took until it ran.
    pub(super) async fn submit(&mut self) -> Result<(String, Duration)> {
        self.submitted += 1;
        let job = recording(&format!("{:06}", self.submitted));
        let begin = Instant::now();
        let answer = self.service.post(&job).await?;
        let took = begin.elapsed();
        ensure!(answer.status == 200, "POST /jobs: {}", answer.body);
        Ok((answer.job_id().context("a job without id")?, took))
    }

    /// What GET /jobs/{id} answers.
    pub(super) async fn show(&self, job: &str) -> Result<String> {
        let answer = self.service.job(job).await?;
        ensure!(answer.status == 200, "GET /jobs/{job}: {}", answer.body);
        Ok(answer.body)
    }

    /// Lets a job end, and waits until nothing is left of it but its record.
    pub(super) async fn finish(&self, job: &str) -> Result<()> {
        let container = container_of(job);
        let until = Instant::now() + TIDIED_WITHIN;
        loop {
            let shown = self.show(job).await?;
            let state: Value = serde_json::from_str(&shown)?;
            match state["state"].as_str() {
                Some("removed") => return Ok(()),
                // One that has only just begun does not listen yet, one that has ended never will.
                Some("running") => drop(self.raw.terminate(&container).await),
                _ => {}
            }
            if Instant::now() > until {
                bail!("a job that was to end is not tidied up in {TIDIED_WITHIN:?}: {shown}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn service_of(server: &Server) -> JobService {
    JobService::new(&format!("http://{}", server.address()), CLIENT, KEY)
}

/// The container of a job's first attempt.
pub(super) fn container_of(job: &str) -> String {
    format!("offloader-{INSTANCE}-{job}-1")
}

/// What the plugin sends, with ids of the right form if `number` has six digits.
pub(super) fn recording(number: &str) -> Value {
    let id = |kind: &str| format!("{kind:x<20}{number}");
    json!({
        "type": "recording",
        "runner": RUNNER,
        "max_duration_sec": 3600,
        "input_data": {
            "site_url": "https://mattermost.example.com",
            "call_id": id("call"),
            "post_id": id("post"),
            "recording_id": id("recording"),
            "auth_token": id("token"),
            "output_format": "mp4",
            "width": 1280,
            "height": 720,
            "video_rate": 1500,
            "audio_rate": 64,
            "frame_rate": 15,
            "video_preset": "fast",
        },
    })
}
