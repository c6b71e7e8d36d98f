//! `offloader policy test`: asks a policy about the cases of a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use domain::{Decision, DecisionOutcome};
use policy_host::{LoadErrors, LoadProblem, PolicyHost};
use serde_json::{Value, json};

use super::candidate::{Candidate, ask};
use super::cases::{self, Answer, Case, Cases, Expected};
use super::print;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The policy: a WebAssembly component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The cases: TOML, or JSON in a file that ends in .json.
    #[arg(value_name = "CASES")]
    cases: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that is not as expected.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    what: &'static str,
    expected: String,
    found: String,
}

/// How a case went.
struct Tried<'a> {
    case: &'a Case,
    differences: Vec<Difference>,
    micros: Option<u64>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<bool> {
    let candidate = Candidate::open(&options.file)?;
    let cases = cases::read(&options.cases)?;
    let chosen = |case: &&Case| case.name.contains(&options.only);
    let chosen: Vec<_> = cases.cases.iter().filter(chosen).collect();
    anyhow::ensure!(!chosen.is_empty(), "no case is called {:?}", options.only);
    let mut policy = Policy {
        candidate: &candidate,
        cases: &cases,
        host: Candidate::host()?,
        loaded: None,
    };
    let mut tried = Vec::new();
    for case in chosen {
        tried.push(policy.try_case(case).context("it does not load")?);
    }
    let failed = tried.iter().filter(|t| !t.differences.is_empty()).count();
    print(&match options.json {
        true => as_json(&candidate, &tried, failed).to_string(),
        false => as_text(&options.cases.display().to_string(), &tried, failed),
    });
    Ok(failed == 0)
}

/// The policy with the settings of the case that was tried last.
struct Policy<'a> {
    candidate: &'a Candidate,
    cases: &'a Cases,
    host: PolicyHost,
    loaded: Option<(BTreeMap<String, String>, Vec<String>)>,
}

impl Policy<'_> {
    /// # Errors
    /// What keeps the policy from being loaded, if it is not its settings.
    fn try_case<'a>(&mut self, case: &'a Case) -> Result<Tried<'a>, LoadErrors> {
        let problems = self.with_settings(&case.settings)?;
        let (differences, micros) = match &case.expected {
            Expected::SettingsProblems(expected) => (settings_differ(expected, &problems), None),
            Expected::Of(..) if !problems.is_empty() => (settings_differ(&[], &problems), None),
            Expected::Of(question, answer) => match ask(&self.host, question.0, &question.1) {
                Some(decision) => (differ(answer, &decision), Some(decision.micros)),
                None => (vec![no_such_hook(question.0.hook.as_str())], None),
            },
        };
        Ok(Tried {
            case,
            differences,
            micros,
        })
    }

    /// Loads it with these settings; what it has against them, as `KEY: MESSAGE`.
    fn with_settings(
        &mut self,
        settings: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, LoadErrors> {
        if let Some((loaded, problems)) = &self.loaded
            && loaded == settings
        {
            return Ok(problems.clone());
        }
        let mut config = self.candidate.config();
        config.settings.clone_from(settings);
        config.grants = self.cases.grants.clone();
        config.limits = self.cases.limits;
        let problems = match self.candidate.load(&self.host, config) {
            Ok(()) => Vec::new(),
            Err(errors) => {
                let problem = |problem: &LoadProblem| match problem {
                    LoadProblem::Setting { key, message } => Some(format!("{key}: {message}")),
                    _ => None,
                };
                let all: Option<Vec<_>> = errors.iter().map(|e| problem(&e.problem)).collect();
                all.ok_or(errors)?
            }
        };
        self.loaded = Some((settings.clone(), problems.clone()));
        Ok(problems)
    }
}

fn no_such_hook(hook: &str) -> Difference {
    Difference {
        what: "hook",
        expected: hook.to_owned(),
        found: "the policy does not export it".to_owned(),
    }
}

fn settings_differ(expected: &[String], found: &[String]) -> Vec<Difference> {
    let same = expected.len() == found.len()
        && expected
            .iter()
            .zip(found)
            .all(|(part, line)| line.contains(part.as_str()));
    if same {
        return Vec::new();
    }
    let lines = |lines: &[String]| match lines {
        [] => "no problem".to_owned(),
        _ => lines.join("\n"),
    };
    vec![Difference {
        what: "settings",
        expected: lines(expected),
        found: lines(found),
    }]
}

fn differ(expected: &Answer, found: &Decision) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut differ = |what, expected: String, found: String| {
        differences.push(Difference {
            what,
            expected,
            found,
        });
    };
    let reason = found.reason.as_deref().unwrap_or_default();
    if found.outcome != expected.outcome {
        let told = |outcome: DecisionOutcome| match outcome {
            DecisionOutcome::Answered => format!("{} {}", outcome.as_str(), found.verdict),
            _ => format!("failed: {}: {reason}", outcome.as_str()),
        };
        let wanted = match expected.verdict {
            Some(verdict) => verdict.to_owned(),
            None => format!("failed: {}", expected.outcome.as_str()),
        };
        differ("answer", wanted, told(found.outcome));
        return differences;
    }
    if let Some(verdict) = expected.verdict
        && verdict != found.verdict
    {
        differ("verdict", verdict.to_owned(), found.verdict.clone());
    }
    if let Some(value) = &expected.value
        && found.value.as_ref() != Some(value)
    {
        let what = if found.verdict == "deny" {
            "code"
        } else {
            "value"
        };
        let unit = match expected.verdict {
            Some("retry" | "keep-for") => " ms",
            _ => "",
        };
        let carried = found
            .value
            .as_ref()
            .map_or("none".to_owned(), |v| format!("{v}{unit}"));
        differ(what, format!("{value}{unit}"), carried);
    }
    if let Some(part) = &expected.reason
        && !reason.contains(part.as_str())
    {
        differ("reason", format!("… {part} …"), reason.to_owned());
    }
    if let Some(read) = &expected.read
        && *read != found.read
    {
        differ("read", read.join(", "), found.read.join(", "));
    }
    differences
}

fn as_text(cases: &str, tried: &[Tried<'_>], failed: usize) -> String {
    let mut text = String::new();
    for Tried {
        case, differences, ..
    } in tried
    {
        let name = &case.name;
        if differences.is_empty() {
            let _ = writeln!(text, "ok    {name}");
            continue;
        }
        let at = case
            .line
            .map_or(String::new(), |line| format!("  ({cases}:{line})"));
        let _ = writeln!(text, "FAIL  {name}{at}");
        for Difference {
            what,
            expected,
            found,
        } in differences
        {
            let indented = |text: &str| text.replace('\n', "\n                         ");
            let _ = writeln!(text, "      {what:<9} expected {}", indented(expected));
            let _ = writeln!(text, "      {:<9} found    {}", "", indented(found));
        }
    }
    let passed = tried.len() - failed;
    let _ = write!(
        text,
        "{} cases: {passed} passed, {failed} failed",
        tried.len()
    );
    text
}

fn as_json(candidate: &Candidate, tried: &[Tried<'_>], failed: usize) -> Value {
    let difference =
        |d: &Difference| json!({ "what": d.what, "expected": d.expected, "found": d.found });
    let cases: Vec<_> = tried
        .iter()
        .map(|t| {
            json!({
                "name": t.case.name,
                "line": t.case.line,
                "passed": t.differences.is_empty(),
                "differences": t.differences.iter().map(difference).collect::<Vec<_>>(),
                "duration_us": t.micros,
            })
        })
        .collect();
    json!({
        "file": candidate.file(),
        "cases": cases,
        "passed": tried.len() - failed,
        "failed": failed,
    })
}
