//! `offloader policy inspect`: what is in a policy's file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use policy_host::{Inspection, LoadProblem};
use serde_json::json;

use super::candidate::Candidate;
use super::print;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The policy: a WebAssembly component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What keeps a policy from being loaded with neither settings nor grants.
struct Load {
    /// What no configuration mends.
    problems: Vec<String>,
    /// What it has against having no settings.
    settings: Vec<String>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<bool> {
    let candidate = Candidate::open(&options.file)?;
    let load = try_to_load(&candidate)?;
    let loads = load.problems.is_empty();
    let found = policy_host::inspect(&candidate.bytes).ok();
    match (&found, options.json) {
        (Some(found), true) => print(&as_json(&candidate, found, &load)),
        (Some(found), false) => print(&as_text(&candidate, found, &load)),
        (None, true) => print(
            &json!({ "file": candidate.file(), "loads": loads, "problems": load.problems })
                .to_string(),
        ),
        (None, false) => print(&format!(
            "{}\n  does not load: {}",
            candidate.file(),
            load.problems.join("\n                 ")
        )),
    }
    Ok(loads)
}

fn try_to_load(candidate: &Candidate) -> anyhow::Result<Load> {
    let result = candidate.load(&Candidate::host()?, candidate.config());
    let mut load = Load {
        problems: Vec::new(),
        settings: Vec::new(),
    };
    for error in result.err().iter().flat_map(|errors| errors.iter()) {
        match &error.problem {
            LoadProblem::Setting { key, message } => {
                load.settings.push(format!("{key}: {message}"));
            }
            other => load.problems.push(other.to_string()),
        }
    }
    Ok(load)
}

fn as_text(candidate: &Candidate, found: &Inspection, load: &Load) -> String {
    let mut text = format!("{}\n", candidate.file());
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("size", &format!("{} bytes", found.size_bytes));
    line("sha256", &found.sha256);
    line("contract", &contract(found));
    line("hooks", &or_none(found.hooks.iter().map(|h| h.as_str())));
    line("settings", settings(found));
    line("facts", &set(&found.facts));
    line("base set", &set(&found.base_imports));
    line("further", &set(&found.further_imports));
    if found.grants.is_empty() {
        line("grants", "none needed");
    }
    for need in &found.grants {
        line(
            "grants",
            &format!("{}: without, it sees {}", need.key, need.without),
        );
    }
    match &load.problems[..] {
        [] if load.settings.is_empty() => line("loads", "yes"),
        [] => line("loads", "yes, once its settings are right"),
        problems => problems
            .iter()
            .for_each(|p| line("loads", &format!("no: {p}"))),
    }
    for problem in &load.settings {
        line("", problem);
    }
    if load.problems.is_empty() {
        let _ = write!(text, "\n{}", snippet(candidate, found));
    }
    text
}

fn contract(found: &Inspection) -> String {
    let versions = found
        .contract_versions
        .iter()
        .map(|version| format!("offloader:policy@{version}"));
    let here = Inspection::contract_here();
    match found.contract_versions.iter().any(|v| v != here) {
        true => format!("{}, where this service has {here}", or_none(versions)),
        false => or_none(versions),
    }
}

fn settings(found: &Inspection) -> &'static str {
    match (found.reads_settings, found.checks_settings) {
        (true, true) => "reads them, and checks them when it is loaded",
        (true, false) => "reads them, and does not check them",
        (false, true) => "reads none, and checks them when it is loaded",
        (false, false) => "reads none",
    }
}

fn set(names: &BTreeSet<String>) -> String {
    or_none(names)
}

fn or_none<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|n| n.as_ref().to_owned()).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// What to paste into the configuration.
fn snippet(candidate: &Candidate, found: &Inspection) -> String {
    let mut text = format!(
        "[[policies.policy]]\nname = {}\ncomponent = {}\nsha256 = \"{}\"\n",
        json!(candidate.name().replace('_', "-")),
        json!(candidate.file()),
        found.sha256
    );
    if found.reads_settings {
        text.push_str("settings = {}\n");
    }
    if !found.grants.is_empty() {
        let none = |key| match key {
            "inputs" | "env" | "dirs" => format!("{key} = []"),
            _ => format!("{key} = false"),
        };
        let grants: Vec<_> = found.grants.iter().map(|need| none(need.key)).collect();
        let _ = writeln!(text, "grants = {{ {} }}", grants.join(", "));
    }
    text
}

fn as_json(candidate: &Candidate, found: &Inspection, load: &Load) -> String {
    let hooks: Vec<_> = found.hooks.iter().map(|hook| hook.as_str()).collect();
    let grants: Vec<_> = found
        .grants
        .iter()
        .map(|need| json!({ "key": need.key, "without": need.without }))
        .collect();
    json!({
        "file": candidate.file(),
        "size_bytes": found.size_bytes,
        "sha256": found.sha256,
        "contract_versions": found.contract_versions,
        "hooks": hooks,
        "reads_settings": found.reads_settings,
        "checks_settings": found.checks_settings,
        "facts": found.facts,
        "imports": { "base": found.base_imports, "further": found.further_imports },
        "grants": grants,
        "loads": load.problems.is_empty(),
        "problems": load.problems,
        "settings_problems": load.settings,
        "configuration": load.problems.is_empty().then(|| snippet(candidate, found)),
    })
    .to_string()
}
