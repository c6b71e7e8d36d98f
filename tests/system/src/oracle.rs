//! Whether API, store and container engine agree about an installation's jobs, and whether what was
//! promised about them holds.

mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use self::starts::Starts;
use crate::{Daemon, Setup, TestEngine};

/// The label of every job container, and the one that tells whose it is.
const INSTANCE_LABEL: &str = "io.offloader.instance";
/// The longest that anything may take to come to rest.
const SETTLES_WITHIN: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(100);

/// Looks at an installation from all sides.
pub struct Oracle {
    instance: String,
    slots: usize,
    starts: Starts,
    secrets: Vec<String>,
    submissions: Vec<Submission>,
    removed_by_hand: BTreeSet<String>,
}

/// What a client was told about a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The `recording_id` or `transcription_id`, never used twice.
    pub work: String,
    /// What came of it.
    pub told: Told,
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It runs, as this job.
    Runs(String),
    /// It does not, and will not.
    Failed,
    /// There was no answer: the client or the daemon had gone.
    Nothing,
}

/// What is wrong, in words. Empty when nothing is.
pub type Violations = Vec<String>;

impl Oracle {
    /// An oracle for the installation that calls itself `instance` in an engine, which does not know
    /// of it yet. No more jobs than `slots` may run at a time, and `secrets` must be seen nowhere.
    pub fn new(engine: &TestEngine, instance: &str, slots: usize, secrets: &[&str]) -> Self {
        Self {
            instance: instance.to_owned(),
            slots,
            starts: Starts::watch(engine.host(), instance),
            secrets: secrets.iter().map(|&secret| secret.to_owned()).collect(),
            submissions: Vec::new(),
            removed_by_hand: BTreeSet::new(),
        }
    }

    /// To be called when the engine was started again: what starts is told anew.
    pub fn engine_is_back(&mut self, engine: &TestEngine) {
        self.starts.follow(engine.host(), &self.instance);
    }

    /// Takes down what a client was told.
    pub fn told(&mut self, work: &str, told: Told) {
        let work = work.to_owned();
        self.submissions.push(Submission { work, told });
    }

    /// Takes down that somebody removed a container.
    pub fn removed_by_hand(&mut self, container: &str) {
        self.removed_by_hand.insert(container.to_owned());
    }

    /// How often containers of a job were started.
    pub fn starts_of(&self, job: &str) -> usize {
        let part = format!("-{job}-");
        let starts = self.starts.names();
        starts.iter().filter(|name| name.contains(&part)).count()
    }

    /// How often containers were started at all.
    pub fn starts(&self) -> usize {
        self.starts.names().len()
    }

    /// Looks until all sides agree or should long have done so, and tells what does not hold then.
    pub async fn consult(
        &self,
        daemon: &Daemon,
        setup: &Setup,
        engine: &TestEngine,
    ) -> Result<Agreement, Violations> {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            let (agreement, mut violations) = self.look(daemon, setup, engine).await;
            if violations.is_empty() {
                // What holds once at rest holds again a moment later.
                tokio::time::sleep(POLL).await;
                violations = self.look(daemon, setup, engine).await.1;
                if violations.is_empty() {
                    return Ok(agreement);
                }
            }
            if Instant::now() > until {
                return Err(violations);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look(
        &self,
        daemon: &Daemon,
        setup: &Setup,
        engine: &TestEngine,
    ) -> (Agreement, Violations) {
        let mut wrong = Violations::new();
        let jobs = match api_jobs(daemon).await {
            Ok(jobs) => jobs,
            Err(why) => return (Agreement::default(), vec![format!("API: {why}")]),
        };
        match store_states(&setup.dir().join("state/offloader.db")) {
            Ok(stored) => {
                let told: BTreeMap<_, _> = jobs
                    .iter()
                    .map(|(id, job)| (id.clone(), text(job, "state").to_owned()))
                    .collect();
                if stored != told {
                    wrong.push(format!("the API says {told:?} and the store {stored:?}"));
                }
            }
            Err(why) => wrong.push(format!("store: {why}")),
        }
        let (containers, volumes) = match self.in_engine(engine) {
            Ok(found) => found,
            Err(why) => {
                wrong.push(format!("engine: {why}"));
                return (Agreement::default(), wrong);
            }
        };
        compare(&jobs, &containers, &volumes, &mut wrong);
        let starts = self.starts.names();
        self.judge_starts(&jobs, &starts, &mut wrong);
        self.judge_answers(&jobs, &starts, &mut wrong);
        let running = containers.values().filter(|running| **running).count();
        let held = jobs.values().filter(|job| holds_slot(job)).count();
        if held > self.slots || running > self.slots {
            wrong.push(format!(
                "{held} jobs hold slots and {running} containers run, of {} slots",
                self.slots
            ));
        }
        self.look_for_secrets(daemon, setup, &jobs, &mut wrong);
        let agreement = Agreement {
            jobs: jobs.len(),
            running,
            containers: containers.len(),
            volumes: volumes.len(),
            starts: starts.len(),
        };
        (agreement, wrong)
    }

    /// Everything with the instance's label: containers by name and whether they run, and volumes.
    fn in_engine(
        &self,
        engine: &TestEngine,
    ) -> Result<(BTreeMap<String, bool>, BTreeSet<String>), String> {
        let label = format!("label={INSTANCE_LABEL}={}", self.instance);
        let shown = "{{.Names}} {{.State}}";
        let containers = engine.try_docker(&[
            "ps",
            "--all",
            "--no-trunc",
            "--filter",
            &label,
            "--format",
            shown,
        ])?;
        let containers = containers.lines().filter_map(|line| {
            let (name, state) = line.split_once(' ')?;
            Some((name.to_owned(), state == "running" || state == "paused"))
        });
        let volumes = engine.try_docker(&["volume", "ls", "--quiet", "--filter", &label])?;
        Ok((
            containers.collect(),
            volumes.lines().map(str::to_owned).collect(),
        ))
    }

    fn judge_starts(&self, jobs: &Jobs, starts: &[String], wrong: &mut Violations) {
        let mut seen = BTreeSet::new();
        for name in starts {
            if !seen.insert(name) {
                wrong.push(format!("{name} was started more than once"));
            }
            let Some((job, number)) = self.parse(name) else {
                wrong.push(format!("{name} was started, which is no container of ours"));
                continue;
            };
            // The record of a deleted job is gone.
            let Some(job) = jobs.get(&job) else { continue };
            // A start that was under way when its client was told of failure, because its time was over
            // or the service ended, is taken back. Nobody can know of one that the service did not
            // live to save, and whose container somebody removed before the service was back.
            let known = |attempt: &Value| match text(attempt, "reason") {
                "start-timeout" => true,
                "interrupted" => self.was_refused(job) || self.removed_by_hand.contains(name),
                _ => attempt["running_at"].is_i64(),
            };
            if !attempts(job).any(|attempt| attempt["number"] == number && known(attempt)) {
                wrong.push(format!(
                    "{name} was started, and its job does not know: {job}"
                ));
            }
        }
        for (id, job) in jobs {
            let ran = attempts(job).filter(|attempt| attempt["running_at"].is_i64());
            for attempt in ran {
                let name = format!("offloader-{}-{id}-{}", self.instance, attempt["number"]);
                if !seen.contains(&name) {
                    wrong.push(format!("{name} is said to have run, and was never started"));
                }
            }
        }
    }

    /// Whether a client was told that a job's work does not run.
    fn was_refused(&self, job: &Value) -> bool {
        let refused = |submission: &&Submission| submission.told == Told::Failed;
        let mut refused = self.submissions.iter().filter(refused);
        refused.any(|submission| is_of_work(job, &submission.work))
    }

    fn judge_answers(&self, jobs: &Jobs, starts: &[String], wrong: &mut Violations) {
        let mut by_work: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
        for Submission { work, told } in &self.submissions {
            by_work.entry(work).or_default().push(told);
        }
        for (work, told) in by_work {
            let ran: BTreeSet<&str> = jobs
                .iter()
                .filter(|(_, job)| is_of_work(job, work) && ever_ran(job))
                .map(|(id, _)| id.as_str())
                .collect();
            if ran.len() > 1 {
                wrong.push(format!("the work {work} ran as more than one job: {ran:?}"));
            }
            for id in &ran {
                let may_run = |told: &&&Told| match told {
                    Told::Runs(said) => said == id,
                    Told::Nothing => true,
                    Told::Failed => false,
                };
                if !told.iter().any(|told| may_run(&told)) {
                    let job = &jobs[*id];
                    wrong.push(format!("{id} was said not to run, and ran: {job}"));
                }
            }
            for told in told {
                if let Told::Runs(id) = told
                    && !starts.iter().any(|name| name.contains(&format!("-{id}-")))
                {
                    wrong.push(format!("{id} was said to run, and was never started"));
                }
            }
        }
    }

    fn parse(&self, name: &str) -> Option<(String, u64)> {
        let rest = name.strip_prefix(&format!("offloader-{}-", self.instance))?;
        let (job, number) = rest.split_once('-')?;
        Some((job.to_owned(), number.parse().ok()?))
    }

    fn look_for_secrets(
        &self,
        daemon: &Daemon,
        setup: &Setup,
        jobs: &Jobs,
        wrong: &mut Violations,
    ) {
        let log = daemon.log();
        for secret in &self.secrets {
            if log.contains(secret) {
                wrong.push("a secret is in the log".to_owned());
            }
            if jobs.values().any(|job| job.to_string().contains(secret)) {
                wrong.push("a secret is in an answer of the API".to_owned());
            }
            for file in setup.files_with(secret) {
                wrong.push(format!("a secret is in {}", file.display()));
            }
        }
    }
}

/// What there was when all sides agreed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Jobs with a record.
    pub jobs: usize,
    /// Containers that run.
    pub running: usize,
    /// Containers in all.
    pub containers: usize,
    /// Volumes with the instance's label.
    pub volumes: usize,
    /// Starts of containers, over the whole time.
    pub starts: usize,
}

type Jobs = BTreeMap<String, Value>;

fn compare(
    jobs: &Jobs,
    containers: &BTreeMap<String, bool>,
    volumes: &BTreeSet<String>,
    wrong: &mut Violations,
) {
    for (id, job) in jobs {
        let state = text(job, "state");
        let number = attempts(job).count();
        let of_job: Vec<_> = containers
            .iter()
            .filter(|(name, _)| name.contains(&format!("-{id}-")))
            .collect();
        let running = of_job.iter().filter(|(_, running)| **running).count();
        let expected = usize::from(["running", "stopping"].contains(&state));
        if running != expected {
            wrong.push(format!(
                "{id} is {state}, and {running} containers of it run"
            ));
        }
        if running == 1 && !of_job[0].0.ends_with(&format!("-{id}-{number}")) && of_job.len() == 1 {
            wrong.push(format!(
                "{id} runs, but not as attempt {number}: {of_job:?}"
            ));
        }
        let volume_of = |id: &str| volumes.iter().any(|name| name.contains(&format!("-{id}-")));
        let volume = volume_of(id);
        if let Some(source) = job["resends"].as_str() {
            let over = state == "removed";
            if volume || (!over && !volume_of(source)) {
                wrong.push(format!(
                    "{id} has a volume of its own, or {source} has none"
                ));
            }
        }
        match state {
            "running" | "stopping" => {}
            "retained" if !volume && job["resends"].is_null() => {
                wrong.push(format!("{id} is kept, and its volume is gone"))
            }
            "retained" => {}
            "removed" if !of_job.is_empty() || volume => {
                wrong.push(format!("{id} is removed, and left {of_job:?} or a volume"));
            }
            "removed" => {}
            state => wrong.push(format!("{id} is not at rest: {state}")),
        }
    }
    let known = |name: &String| jobs.keys().any(|id| name.contains(&format!("-{id}-")));
    for name in containers.keys().chain(volumes).filter(|name| !known(name)) {
        wrong.push(format!("{name} has our label, and no job"));
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn attempts(job: &Value) -> impl Iterator<Item = &Value> {
    job["attempts"].as_array().into_iter().flatten()
}

/// Sending it in again is no work of its own.
fn is_of_work(job: &Value, work: &str) -> bool {
    if job["resends"].is_string() {
        return false;
    }
    let inputs = &job["input_data"];
    inputs["recording_id"] == work || inputs["transcription_id"] == work
}

fn ever_ran(job: &Value) -> bool {
    attempts(job).any(|attempt| attempt["running_at"].is_i64())
}

fn holds_slot(job: &Value) -> bool {
    ["preparing", "waiting", "starting", "running", "stopping"].contains(&text(job, "state"))
}

/// All jobs as the administrator sees them.
async fn api_jobs(daemon: &Daemon) -> Result<Jobs, String> {
    let mut jobs = Jobs::new();
    let mut before = String::new();
    loop {
        let answer = daemon.admin().list_before(&before).await;
        let answer = answer.map_err(|error| error.chain())?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.body));
        }
        let page = answer.json();
        for job in page["jobs"].as_array().into_iter().flatten() {
            jobs.insert(text(job, "id").to_owned(), job.clone());
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut before),
            None => return Ok(jobs),
        }
    }
}

/// The state of each job, as the file of the store has it.
fn store_states(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let read = || {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(5))?;
        let mut select = db.prepare("SELECT id, state FROM jobs")?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
