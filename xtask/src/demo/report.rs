//! What came of the demo, for people as a table and for tools as JSON.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use site::JobType;

use super::sweep::Leftovers;
use super::watch::{self, Decision};

/// The hooks that have to have decided something.
const HOOKS: [&str; 4] = ["image-selection", "site-url", "retry", "retention"];

/// target/demo/report.json.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    jobs: Vec<Job>,
    leftovers: Leftovers,
}

#[derive(Debug, Serialize)]
struct Job {
    id: String,
    #[serde(rename = "type")]
    kind: JobType,
    /// Its outcome.
    state: String,
    attempts: Vec<Attempt>,
    decisions: Vec<Decision>,
    artifacts: Vec<Artifact>,
}

#[derive(Debug, Serialize)]
struct Attempt {
    number: u32,
    image: String,
    outcome: String,
}

/// A file that arrived at the site.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Artifact {
    /// The job that made it.
    #[serde(skip)]
    pub(super) job: JobType,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Length of the recording; end of the last caption.
    pub(super) seconds: f64,
    /// What a transcript says.
    pub(super) text: Option<String>,
}

impl Artifact {
    /// What arrived, of that length; `text` is what a transcript says.
    pub(super) fn of(arrived: &site::Artifact, seconds: f64, text: Option<String>) -> Self {
        Self {
            job: arrived.job,
            path: arrived.path.clone(),
            bytes: arrived.bytes,
            seconds,
            text,
        }
    }
}

impl Report {
    /// Puts together what the daemon told and what arrived at the site.
    pub(super) fn new(jobs: Vec<watch::Job>, artifacts: &[Artifact], leftovers: Leftovers) -> Self {
        let job = |job: watch::Job| Job {
            artifacts: artifacts
                .iter()
                .filter(|artifact| artifact.job == job.kind)
                .cloned()
                .collect(),
            id: job.id,
            kind: job.kind,
            state: job.outcome.unwrap_or(job.state),
            attempts: job.attempts.into_iter().map(Attempt::from).collect(),
            decisions: job.decisions,
        };
        Self {
            jobs: jobs.into_iter().map(job).collect(),
            leftovers,
        }
    }

    /// Writes report.json and returns its path.
    pub(super) fn write(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("report.json");
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Whether it shows what the demo is to show; everything it does not, at once.
    pub(super) fn check(&self) -> Result<()> {
        let mut missing = Vec::new();
        for kind in [JobType::Recording, JobType::Transcribing] {
            let succeeded = |job: &&Job| job.kind == kind && job.state == "succeeded";
            if self.jobs.iter().filter(succeeded).count() != 1 || self.jobs.len() != 2 {
                missing.push(format!("one {kind} job that succeeded"));
            }
        }
        for hook in HOOKS {
            if !self
                .jobs
                .iter()
                .flat_map(|job| &job.decisions)
                .any(|decision| decision.hook == hook)
            {
                missing.push(format!("a decision of hook {hook}"));
            }
        }
        let retried = |job: &Job| {
            matches!(&job.attempts[..], [first, second]
                if first.outcome == "image-unreachable" && second.outcome == "completed")
        };
        if !self.jobs.iter().any(retried) {
            missing.push(
                "an attempt that failed for want of the registry, and one after it that did not"
                    .into(),
            );
        }
        if self.leftovers != Leftovers::default() {
            missing.push(format!(
                "an engine without leftovers ({:?})",
                self.leftovers
            ));
        }
        if !missing.is_empty() {
            bail!(
                "the demo was to show, and did not show: {}",
                missing.join("; ")
            );
        }
        Ok(())
    }
}

impl From<watch::Attempt> for Attempt {
    fn from(attempt: watch::Attempt) -> Self {
        let outcome = attempt.reason.unwrap_or_else(|| "running".to_owned());
        Self {
            number: attempt.number,
            image: attempt.image,
            outcome,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut decisions = Table::new(["job", "hook", "policy", "verdict", "reason", "µs"]);
        for job in &self.jobs {
            writeln!(f, "{} {}: {}", job.kind, job.id, job.state)?;
            for Attempt {
                number,
                image,
                outcome,
            } in &job.attempts
            {
                writeln!(f, "  attempt {number}  {outcome:<18} {image}")?;
            }
            for artifact in &job.artifacts {
                writeln!(
                    f,
                    "  {} ({} bytes)",
                    artifact.path.display(),
                    artifact.bytes
                )?;
            }
            for decision in &job.decisions {
                decisions.row([
                    job.kind.to_string(),
                    decision.hook.clone(),
                    decision.policy.clone(),
                    decision.verdict_in_full(),
                    decision.reason.clone().unwrap_or_default(),
                    decision.micros.to_string(),
                ]);
            }
        }
        write!(f, "\n{decisions}")?;
        write!(
            f,
            "leftovers: {} containers, {} volumes",
            self.leftovers.containers, self.leftovers.volumes
        )
    }
}

/// Columns as wide as their widest cell.
struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                write!(line, "{cell:<width$}  ", width = width(column))?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Report);

    fn good() -> Report {
        let attempt = |number, outcome: &str| Attempt {
            number,
            image: "i:1".into(),
            outcome: outcome.into(),
        };
        let decision = |hook: &str| Decision {
            hook: hook.into(),
            policy: "p".into(),
            verdict: "pass".into(),
            value: None,
            reason: None,
            micros: 7,
        };
        let job = |kind, attempts| Job {
            id: "a".into(),
            kind,
            state: "succeeded".into(),
            attempts,
            decisions: HOOKS.map(decision).into(),
            artifacts: vec![],
        };
        Report {
            jobs: vec![
                job(JobType::Recording, vec![attempt(1, "completed")]),
                job(
                    JobType::Transcribing,
                    vec![attempt(1, "image-unreachable"), attempt(2, "completed")],
                ),
            ],
            leftovers: Leftovers::default(),
        }
    }

    #[test]
    fn the_demo_is_good_only_if_everything_was_seen() {
        good().check().unwrap();
        let spoil: [(Spoil, &str); 5] = [
            (
                |r| r.jobs[0].state = "failed".into(),
                "recording job that succeeded",
            ),
            (|r| drop(r.jobs.pop()), "transcribing job that succeeded"),
            (
                |r| r.jobs[1].attempts.truncate(1),
                "for want of the registry",
            ),
            (|r| r.leftovers.volumes = 1, "leftovers"),
            (
                |r| r.jobs.iter_mut().for_each(|j| j.decisions.truncate(2)),
                "hook retry",
            ),
        ];
        for (spoil, said) in spoil {
            let mut report = good();
            spoil(&mut report);
            let error = report.check().unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn the_json_has_the_promised_shape() {
        let json = serde_json::to_value(good()).unwrap();
        assert_eq!(
            json["jobs"][1]["attempts"][0]["outcome"],
            "image-unreachable"
        );
        assert_eq!(json["jobs"][0]["type"], "recording");
        assert_eq!(json["jobs"][0]["decisions"][0]["micros"], 7);
        assert_eq!(
            json["leftovers"],
            serde_json::json!({"containers": 0, "volumes": 0})
        );
    }

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(["a", "long head"]);
        table.row(["wide cell".into(), "x".into()]);
        assert_eq!(table.to_string(), "a          long head\nwide cell  x\n");
    }
}
