//! Files of cases: what a policy is asked, and what it is expected to answer.
//!
//! TOML, or JSON of the same shape in a file that ends in `.json`. The keys are described in
//! docs/policies.md.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use domain::{DecisionOutcome, Hook, JobFacts, Purpose};
use policy_host::{Limits, PolicyGrants};
use toml::de::{DeTable, DeValue};

use super::candidate::Question;
use super::facts;
use crate::ambient;
use crate::config::values::{duration, text, texts};
use crate::config::{Environment, Place, Problem, Raw, Reader, Section, UnknownKeys};

/// A file of cases.
#[derive(Debug)]
pub(super) struct Cases {
    /// What the policy is granted.
    pub(super) grants: PolicyGrants,
    /// What it may use up.
    pub(super) limits: Limits,
    /// At least one.
    pub(super) cases: Vec<Case>,
}

/// One question, and what is expected.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// Where it is in the file; `None` in JSON.
    pub(super) line: Option<usize>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) expected: Expected,
}

/// What is expected of a policy.
#[derive(Debug)]
pub(super) enum Expected {
    /// An answer, or a failure, to a question about a job.
    Of(Box<(Question, JobFacts)>, Answer),
    /// Problems with the settings: for each a line `KEY: MESSAGE`, of which this is a part.
    SettingsProblems(Vec<String>),
}

/// How a question is expected to go. What is `None` may be anything.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outcome: DecisionOutcome,
    pub(super) verdict: Option<&'static str>,
    /// What the verdict carries, as decisions have it.
    pub(super) value: Option<String>,
    /// A part of the reason.
    pub(super) reason: Option<String>,
    /// What is read, sorted.
    pub(super) read: Option<Vec<String>>,
}

/// Reads a file of cases.
///
/// # Errors
/// Everything that is wrong with it, a line each.
pub(super) fn read(path: &Path) -> anyhow::Result<Cases> {
    let name = path.display().to_string();
    let text = ambient::read_text(path).with_context(|| format!("cannot read {name}"))?;
    let json = path.extension().is_some_and(|ending| ending == "json");
    parse(&name, &text, json).map_err(|problems| anyhow::anyhow!(problems.join("\n")))
}

fn parse(name: &str, text: &str, json: bool) -> Result<Cases, Vec<String>> {
    let from_json;
    let text = if json {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| vec![format!("{name}: {error}")])?;
        from_json = toml::to_string(&value).map_err(|error| vec![format!("{name}: {error}")])?;
        &from_json
    } else {
        text
    };
    // Lines of what was made of JSON are nobody's lines.
    let tell = |problem: Problem| match json {
        true => format!("{name}: {}: {}", problem.key, problem.message),
        false => problem.to_string(),
    };
    let environment = Environment::default();
    let reader = Reader::new(name, text, &environment);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error
            .span()
            .map_or(Place::Nowhere, |span| reader.line(span.start));
        reader.problem(place, "", error.message().replace('\n', ", "));
    }
    let cases = errors.is_empty().then(|| {
        let root = reader.root(document.get_ref()).strict();
        file(root, json)
    });
    let (problems, _) = reader.finish();
    match cases {
        Some(cases) if problems.is_empty() => Ok(cases),
        _ => Err(problems.into_iter().map(tell).collect()),
    }
}

fn file(root: Section<'_>, json: bool) -> Cases {
    let hook = root.get("hook", a_hook);
    let settings = crate::config::settings(&root.section("settings", UnknownKeys::Refuse));
    let job = root.section("job", UnknownKeys::Refuse);
    let grants = grants(root.section("grants", UnknownKeys::Refuse));
    let limits = crate::config::limits(root.section("limits", UnknownKeys::Refuse));
    let common = Common {
        hook,
        settings,
        job: facts::Draft::default().over(job),
    };
    let cases: Vec<_> = root
        .sections("case")
        .into_iter()
        .filter_map(|section| case(section, &common, json))
        .collect();
    if cases.is_empty() && !root.has("case") {
        let problem = "expected [[case]] tables";
        root.reader().problem(Place::Nowhere, "case", problem);
    }
    root.finish();
    Cases {
        grants,
        limits,
        cases,
    }
}

/// What a file says for all of its cases.
struct Common {
    hook: Option<Hook>,
    settings: BTreeMap<String, String>,
    job: facts::Draft,
}

fn grants(section: Section<'_>) -> PolicyGrants {
    let inputs = section.get("inputs", texts).unwrap_or_default();
    let env = facts::texts_by_name(&section.section("env", UnknownKeys::Refuse));
    section.finish();
    PolicyGrants {
        inputs: inputs.iter().map(|name| name.to_lowercase()).collect(),
        env,
        ..PolicyGrants::default()
    }
}

fn case(section: Section<'_>, common: &Common, json: bool) -> Option<Case> {
    let reader = section.reader();
    let place = reader.place(&section.key(""));
    let missing = |key: &str, problem: &str| {
        reader.problem(reader.place(&section.key(key)), &section.key(key), problem);
    };
    let name = section.get("name", text);
    if name.is_none() && !section.has("name") {
        missing("name", "expected a name for the case");
    }
    let hook = section.get("hook", a_hook).or(common.hook);
    let purpose = section.get("purpose", a_purpose);
    let own = section.section("settings", UnknownKeys::Refuse);
    let settings = match section.has("settings") {
        true => crate::config::settings(&own),
        false => common.settings.clone(),
    };
    let job = section.section("job", UnknownKeys::Refuse);
    let draft = common.job.clone().over(job);
    let expect = section.section("expect", UnknownKeys::Refuse);
    if !section.has("expect") {
        missing("expect", "expected what the policy answers");
    }
    let expected = if expect.has("settings") {
        let problems = expect.get("settings", texts).unwrap_or_default();
        expect.finish();
        Some(Expected::SettingsProblems(problems))
    } else if let Some(hook) = hook {
        let answer = answer(expect, hook);
        let purpose = purpose.unwrap_or(Purpose::Start);
        if section.has("purpose") && hook != Hook::ImageSelection {
            missing("purpose", "only image-selection is asked with a purpose");
        }
        let job = draft.finish(hook, purpose);
        let job = job.map_err(|problem| missing("job", problem)).ok();
        let question = Question { hook, purpose };
        answer
            .zip(job)
            .map(|(answer, job)| Expected::Of(Box::new((question, job)), answer))
    } else {
        if !section.has("hook") {
            missing("hook", "expected the hook that is asked");
        }
        None
    };
    section.finish();
    let line = match place {
        Place::File(_, line) if !json => Some(line),
        _ => None,
    };
    Some(Case {
        name: name?,
        line,
        settings,
        expected: expected?,
    })
}

fn answer(section: Section<'_>, hook: Hook) -> Option<Answer> {
    let reader = section.reader();
    let problem = |key: &str, message: &str| {
        reader.problem(reader.place(&section.key(key)), &section.key(key), message);
    };
    let verdict = section.get("verdict", |raw| one_of(raw, verdicts(hook)));
    let outcome = section.get("failure", |raw| {
        let failures: Vec<_> = DecisionOutcome::ALL
            .into_iter()
            .filter(|outcome| *outcome != DecisionOutcome::Answered)
            .map(DecisionOutcome::as_str)
            .collect();
        let name = one_of(raw, &failures)?;
        let named = |outcome: &DecisionOutcome| outcome.as_str() == name;
        Ok(DecisionOutcome::ALL.into_iter().find(named))
    });
    let value = section.get("value", |raw| match verdict {
        Some("retry" | "keep-for") => Ok(duration(raw)?.as_millis().to_string()),
        Some("use") => text(raw),
        Some("deny") => Err("a denial has a code: give code".to_owned()),
        _ => Err("nothing is carried by this answer".to_owned()),
    });
    let code = section.get("code", |raw| match verdict {
        Some("deny") => text(raw),
        _ => Err("only a denial has a code".to_owned()),
    });
    let reason = section.get("reason", text);
    let read = section.get("read", texts).map(|mut names| {
        names.sort_unstable();
        names
    });
    if section.has("verdict") == section.has("failure") {
        problem(
            "verdict",
            "expected one of verdict, failure and settings, and no second of them",
        );
    }
    section.finish();
    Some(Answer {
        outcome: outcome.flatten().unwrap_or(DecisionOutcome::Answered),
        verdict,
        value: value.or(code),
        reason,
        read,
    })
}

/// What policies can answer.
fn verdicts(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::ImageSelection | Hook::SiteUrl => &["pass", "use", "deny"],
        Hook::Retry => &["pass", "give-up", "retry"],
        Hook::Retention => &["pass", "delete", "keep-for", "keep"],
    }
}

fn a_hook(raw: Raw<'_>) -> Result<Hook, String> {
    let name = one_of(raw, &Hook::ALL.map(Hook::as_str))?;
    let mut hooks = Hook::ALL.into_iter();
    hooks.find(|h| h.as_str() == name).ok_or_else(String::new)
}

fn a_purpose(raw: Raw<'_>) -> Result<Purpose, String> {
    Ok(match one_of(raw, &["start", "prefetch"])? {
        "prefetch" => Purpose::Prefetch,
        _ => Purpose::Start,
    })
}

/// One of a few words.
pub(super) fn one_of(raw: Raw<'_>, words: &[&'static str]) -> Result<&'static str, String> {
    let wanted = || format!("expected one of {}", words.join(", "));
    let Raw::Toml(DeValue::String(found)) = raw else {
        return Err(wanted());
    };
    let word = words.iter().find(|word| **word == found.as_ref());
    word.copied()
        .ok_or_else(|| format!("{}, found {found:?}", wanted()))
}

#[cfg(test)]
#[path = "cases_tests.rs"]
mod tests;
