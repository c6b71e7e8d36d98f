//! What happens while it happens: the site's events and the daemon's jobs, one line each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use site::{JobService, JobType, Site};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

const EVERY: Duration = Duration::from_millis(200);

/// Prints lines with the time since its beginning.
#[derive(Clone, Copy)]
pub(super) struct Progress(Instant);

impl Progress {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(super) fn say(&self, who: &str, what: impl Display) {
        println!("{:6.1} s  {who:<9} {what}", self.0.elapsed().as_secs_f64());
    }

    /// Prints the site's events until what is returned is dropped.
    pub(super) fn follow_site(self, site: &Site) -> JoinSet<()> {
        let mut events = site.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => self.say("site", event.what),
                    Err(RecvError::Lagged(missed)) => {
                        self.say("site", format_args!("({missed} events more)"))
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
        task
    }
}

/// A job as the daemon tells it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: JobType,
    pub(super) state: String,
    pub(super) outcome: Option<String>,
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    #[serde(default)]
    pub(super) decisions: Vec<Decision>,
}

/// One attempt of a job.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) image: String,
    /// Why it ended; None while it goes on.
    pub(super) reason: Option<String>,
}

/// What one policy said when it was asked.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Decision {
    pub(super) hook: String,
    pub(super) policy: String,
    pub(super) verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) micros: u64,
}

impl Decision {
    /// The verdict with what it carries; delays and durations are milliseconds.
    pub(super) fn verdict_in_full(&self) -> String {
        match (self.verdict.as_str(), &self.value) {
            ("retry", Some(delay)) => format!("retry after {delay} ms"),
            ("keep-for", Some(duration)) => format!("keep for {duration} ms"),
            (verdict, Some(value)) => format!("{verdict} {value}"),
            (verdict, None) => verdict.to_owned(),
        }
    }
}

/// Asks the daemon for its jobs again and again, and prints what changed.
pub(super) struct Watcher<'a> {
    service: &'a JobService,
    progress: Progress,
    shown: RefCell<BTreeMap<String, Vec<String>>>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(service: &'a JobService, progress: Progress) -> Self {
        Self {
            service,
            progress,
            shown: RefCell::default(),
        }
    }

    /// Waits until the jobs are as `wanted`. `what` says in an error what did not come.
    pub(super) async fn until(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&[Job]) -> bool,
    ) -> Result<Vec<Job>> {
        let until = Instant::now() + within;
        loop {
            let jobs = self.look().await?;
            if wanted(&jobs) {
                return Ok(jobs);
            }
            ensure!(
                Instant::now() < until,
                "{what}: not in {within:?}; the jobs: {jobs:#?}"
            );
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Prints changes for as long as it is polled; ends only with an error.
    pub(super) async fn follow(&self) -> Result<std::convert::Infallible> {
        loop {
            self.look().await?;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The jobs as they are, oldest first.
    pub(super) async fn look(&self) -> Result<Vec<Job>> {
        #[derive(Deserialize)]
        struct List {
            jobs: Vec<Job>,
        }
        let answer = self.service.list().await?;
        let List { mut jobs } = serde_json::from_str(&answer.body)
            .with_context(|| format!("GET /jobs answered {}: {}", answer.status, answer.body))?;
        // Newest first in the answer.
        jobs.reverse();
        jobs.iter().for_each(|job| self.show(job));
        Ok(jobs)
    }

    fn show(&self, job: &Job) {
        let mut shown = self.shown.borrow_mut();
        let shown = shown.entry(job.id.clone()).or_default();
        for line in lines(job) {
            if !shown.contains(&line) {
                self.progress
                    .say("daemon", format_args!("{}: {line}", job.kind));
                shown.push(line);
            }
        }
    }
}

/// What is to be said about a job, each line once.
fn lines(job: &Job) -> Vec<String> {
    let mut lines = Vec::new();
    for decision in &job.decisions {
        let Decision { hook, policy, .. } = decision;
        lines.push(format!(
            "{policy} on {hook}: {}",
            decision.verdict_in_full()
        ));
    }
    for attempt in &job.attempts {
        if let Some(reason) = &attempt.reason {
            lines.push(format!("attempt {} ended: {reason}", attempt.number));
        }
    }
    let attempt = job.attempts.len();
    lines.push(match &job.outcome {
        Some(outcome) => format!("{}, {outcome}", job.state),
        None if attempt > 1 => format!("{} (attempt {attempt})", job.state),
        None => job.state.clone(),
    });
    lines
}

/// Whether an attempt of the job of this kind has ended without being the job's end.
pub(super) fn attempt_failed(jobs: &[Job], kind: JobType) -> bool {
    jobs.iter()
        .any(|job| job.kind == kind && job.attempts.iter().any(|attempt| attempt.reason.is_some()))
}

/// Whether each of the jobs has an outcome.
pub(super) fn all_ended(jobs: &[Job]) -> bool {
    jobs.iter().all(|job| job.outcome.is_some())
}
