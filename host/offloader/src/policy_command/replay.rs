//! `offloader policy replay`: what another policy would have decided about the jobs on record.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use domain::{Decision, DecisionOutcome, Hook, Job, JobId, Purpose, Timestamp};
use engine::Forgotten;
use policy_host::{PolicyConfig, PolicyHost};
use serde_json::{Value, json};
use store::History;

use super::candidate::{Candidate, Question, ask};
use super::{print, text_of_duration};
use crate::cli::ConfigFile;
use crate::config::Raw;
use crate::config::values::duration;
use crate::policy_grants::{self, OwnFiles};
use crate::{ambient, config_file, state};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The policy to ask instead: a WebAssembly component.
    #[arg(long, value_name = "FILE")]
    against: PathBuf,
    /// The configured policy whose decisions are replayed, and whose settings, limits and grants
    /// hold. Needed when there are several.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// How far back, such as 12h or 7d.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = a_duration)]
    since: Duration,
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn a_duration(text: &str) -> Result<Duration, String> {
    duration(Raw::Text(text))
}

pub(super) fn run(options: &Options) -> anyhow::Result<bool> {
    let candidate = Candidate::open(&options.against)?;
    let (loaded, _) = config_file::read(&options.config.path)?;
    let own = OwnFiles {
        state: &loaded.config.store.directory,
        config: &options.config.path,
    };
    let policies = policy_grants::grant(&loaded.config.policies, own);
    let policy = configured(&policies, options.policy.as_deref())?;
    let mut config = PolicyConfig {
        component: candidate.file().to_owned(),
        sha256: None,
        signature: None,
        ..policy.clone()
    };
    // What was decided long ago changes nothing today.
    for dir in &mut config.grants.dirs {
        dir.write = false;
    }
    let host = Candidate::host()?;
    if let Err(errors) = candidate.load(&host, config) {
        print(&format!(
            "{} does not load as {:?}:\n{errors}",
            candidate.file(),
            policy.name
        ));
        return Ok(false);
    }
    let history = History::open(&state::store_in(&loaded.config.store.directory))?;
    let since = ambient::wall_clock().minus(options.since);
    let mut replay = Replay::new(&policy.name, since, &host);
    for id in history.decided_since(since)? {
        // Its record may have been pruned meanwhile.
        if let Some((job, decisions)) = history.job(&id)? {
            replay.job(&host, &job, &decisions);
        }
    }
    print(&match options.json {
        true => replay.as_json(candidate.file()).to_string(),
        false => replay.as_text(candidate.file()),
    });
    Ok(replay.changes.is_empty())
}

/// The policy of that name, or the only one there is.
fn configured<'a>(
    policies: &'a [PolicyConfig],
    name: Option<&str>,
) -> anyhow::Result<&'a PolicyConfig> {
    let names = || {
        let names: Vec<_> = policies.iter().map(|policy| policy.name.as_str()).collect();
        names.join(", ")
    };
    match (name, policies) {
        (_, []) => anyhow::bail!("the configuration has no policies"),
        (None, [only]) => Ok(only),
        (None, _) => anyhow::bail!("--policy is needed to tell which of {}", names()),
        (Some(name), policies) => policies
            .iter()
            .find(|policy| policy.name == name)
            .with_context(|| format!("no policy is called {name:?}; there are {}", names())),
    }
}

/// What a policy reads beside job and settings, of what its decision says that it read. That is on
/// record nowhere: it sees what there is now.
fn of_now(read: &[String]) -> impl Iterator<Item = &str> {
    let is_granted =
        |what: &&str| ["clock", "entropy", "env"].contains(what) || what.starts_with("dir:");
    read.iter().map(String::as_str).filter(is_granted)
}

/// What was, or would have been, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    verdict: String,
    value: Option<String>,
    outcome: DecisionOutcome,
}

impl Answer {
    fn of(decision: &Decision) -> Self {
        Self {
            verdict: decision.verdict.clone(),
            value: decision.value.clone(),
            outcome: decision.outcome,
        }
    }

    /// That of a policy that is not asked.
    fn none() -> Self {
        Self {
            verdict: "pass".to_owned(),
            value: None,
            outcome: DecisionOutcome::Answered,
        }
    }

    /// Whether the same followed from both, however they came about.
    fn is_same(&self, other: &Self) -> bool {
        (&self.verdict, &self.value) == (&other.verdict, &other.value)
    }

    fn as_json(&self) -> Value {
        json!({
            "verdict": self.verdict,
            "value": self.value,
            "outcome": self.outcome.as_str(),
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verdict)?;
        let millis = self.value.as_deref().and_then(|v| v.parse().ok());
        match (self.verdict.as_str(), millis, &self.value) {
            ("retry" | "keep-for", Some(millis), _) => {
                write!(f, " {}", text_of_duration(Duration::from_millis(millis)))?;
            }
            (_, _, Some(value)) => write!(f, " {value}")?,
            _ => {}
        }
        match self.outcome {
            DecisionOutcome::Answered => Ok(()),
            failed => write!(f, " ({})", failed.as_str()),
        }
    }
}

/// A decision that would have been another.
struct Change {
    job: JobId,
    hook: Hook,
    at: Timestamp,
    before: Answer,
    after: Answer,
    reason: Option<String>,
}

/// A decision that could not be asked for again.
struct NotReplayed {
    job: JobId,
    hook: Hook,
    at: Timestamp,
    why: Forgotten,
}

/// What a replay found.
struct Replay<'a> {
    policy: &'a str,
    since: Timestamp,
    /// Of the settings that hold now.
    settings_sha256: String,
    replayed: u64,
    with_other_settings: u64,
    changes: Vec<Change>,
    not_replayed: Vec<NotReplayed>,
    /// How many decisions read what is not on record.
    of_now: BTreeMap<String, u64>,
}

impl<'a> Replay<'a> {
    fn new(policy: &'a str, since: Timestamp, host: &PolicyHost) -> Self {
        let mut policies = host.status().policies;
        Self {
            policy,
            since,
            settings_sha256: policies.pop().map_or(String::new(), |p| p.settings_sha256),
            replayed: 0,
            with_other_settings: 0,
            changes: Vec::new(),
            not_replayed: Vec::new(),
            of_now: BTreeMap::new(),
        }
    }

    /// Asks again what was asked about one job.
    fn job(&mut self, host: &PolicyHost, job: &Job, decisions: &[Decision]) {
        for (index, decision) in decisions.iter().enumerate() {
            let &Decision { at, hook, .. } = decision;
            if decision.policy != self.policy || at < self.since {
                continue;
            }
            let job_id = job.id.clone();
            let facts = match engine::at_decision(job, decisions, index) {
                Ok(facts) => facts,
                Err(why) => {
                    self.not_replayed.push(NotReplayed {
                        job: job_id,
                        hook,
                        at,
                        why,
                    });
                    continue;
                }
            };
            self.replayed += 1;
            self.with_other_settings += u64::from(decision.settings_sha256 != self.settings_sha256);
            // Prefetches have no job.
            let purpose = Purpose::Start;
            let asked = ask(host, Question { hook, purpose }, &facts);
            for what in asked.iter().flat_map(|decision| of_now(&decision.read)) {
                *self.of_now.entry(what.to_owned()).or_default() += 1;
            }
            let before = Answer::of(decision);
            let after = asked.as_ref().map_or_else(Answer::none, Answer::of);
            if !before.is_same(&after) {
                self.changes.push(Change {
                    job: job_id,
                    hook,
                    at,
                    before,
                    after,
                    reason: asked.and_then(|decision| decision.reason),
                });
            }
        }
    }

    /// How often each verdict became which other.
    fn counts(&self) -> BTreeMap<(Hook, &str, &str), u64> {
        let mut counts = BTreeMap::new();
        for change in &self.changes {
            let (before, after) = (&change.before.verdict, &change.after.verdict);
            *counts
                .entry((change.hook, before.as_str(), after.as_str()))
                .or_default() += 1;
        }
        counts
    }

    fn notes(&self) -> Vec<String> {
        let told = |(what, count): (&String, &u64)| {
            format!("{count} of them read {what} now, which may not be as it was then")
        };
        let mut notes: Vec<_> = self.of_now.iter().map(told).collect();
        if self.with_other_settings > 0 {
            notes.push(format!(
                "{} of them were made with other settings than those of now",
                self.with_other_settings
            ));
        }
        notes
    }

    fn as_text(&self, file: &str) -> String {
        let mut text = String::new();
        for change in &self.changes {
            let _ = writeln!(
                text,
                "{}  {}  {:<15}  {} -> {}",
                change.job,
                time(change.at),
                change.hook.as_str(),
                change.before,
                change.after
            );
            if let Some(reason) = &change.reason {
                let _ = writeln!(text, "    {reason}");
            }
        }
        for lost in &self.not_replayed {
            let _ = writeln!(
                text,
                "{}  {}  {:<15}  not replayed: {}",
                lost.job,
                time(lost.at),
                lost.hook.as_str(),
                lost.why
            );
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "{} decisions of {:?} since {}, asked of {file}: {} as before, {} otherwise, {} not replayed",
            self.replayed + self.not_replayed.len() as u64,
            self.policy,
            time(self.since),
            self.replayed - self.changes.len() as u64,
            self.changes.len(),
            self.not_replayed.len()
        );
        for ((hook, before, after), count) in self.counts() {
            let _ = writeln!(text, "  {count:>6}  {hook}: {before} -> {after}");
        }
        for note in self.notes() {
            let _ = writeln!(text, "note: {note}");
        }
        text + "note: refused submissions and prefetches leave no record, so they are not replayed"
    }

    fn as_json(&self, file: &str) -> Value {
        let changes: Vec<_> = self
            .changes
            .iter()
            .map(|change| {
                json!({
                    "job": change.job.as_str(),
                    "hook": change.hook.as_str(),
                    "at": change.at.as_millis(),
                    "before": change.before.as_json(),
                    "after": change.after.as_json(),
                    "reason": change.reason,
                })
            })
            .collect();
        let not_replayed: Vec<_> = self
            .not_replayed
            .iter()
            .map(|lost| {
                json!({
                    "job": lost.job.as_str(),
                    "hook": lost.hook.as_str(),
                    "at": lost.at.as_millis(),
                    "why": lost.why.to_string(),
                })
            })
            .collect();
        let counts: Vec<_> = self
            .counts()
            .into_iter()
            .map(|((hook, before, after), count)| {
                json!({ "hook": hook.as_str(), "before": before, "after": after, "count": count })
            })
            .collect();
        json!({
            "policy": self.policy,
            "against": file,
            "since": self.since.as_millis(),
            "replayed": self.replayed,
            "changes": changes,
            "counts": counts,
            "not_replayed": not_replayed,
            "notes": self.notes(),
        })
    }
}

/// A time as people write it, in UTC and to the second.
fn time(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_record_is_told_from_what_is() {
        let read = ["attempt.failure", "clock", "dir:/maps", "env", "input:env"].map(str::to_owned);
        let told: Vec<_> = of_now(&read).collect();
        assert_eq!(told, ["clock", "dir:/maps", "env"]);
    }

    #[test]
    fn answers_are_told_as_people_write_them() {
        let told = |verdict: &str, value: Option<&str>, outcome| {
            let answer = Answer {
                verdict: verdict.to_owned(),
                value: value.map(str::to_owned),
                outcome,
            };
            answer.to_string()
        };
        use DecisionOutcome::{Answered, Timeout};
        assert_eq!(told("pass", None, Answered), "pass");
        assert_eq!(told("retry", Some("1500"), Answered), "retry 1500ms");
        assert_eq!(told("keep-for", Some("604800000"), Answered), "keep-for 7d");
        assert_eq!(told("use", Some("1500"), Answered), "use 1500");
        let failed = told("deny", Some("policy-failed"), Timeout);
        assert_eq!(failed, "deny policy-failed (timeout)");
    }
}
