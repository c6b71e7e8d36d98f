//! `[policies]`: which policies decide, in which order, and what they may see.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use policy_host::{Limits, Mode, OnFailure, PolicyConfig};
use toml::de::DeValue;

use super::document::{Raw, Section, UnknownKeys};
use super::values::{boolean, bytes, duration, number32, text, texts, word};

/// The policies and where their components are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// The directory that components are named in.
    pub(crate) dir: Option<PathBuf>,
    /// Whether policies are loaded anew when something in their directory has changed.
    pub(crate) watch: bool,
    /// In the order in which they are asked.
    pub(crate) policies: Vec<PolicyConfig>,
}

/// The names of [`OnFailure`].
pub(super) const ON_FAILURE: &[(&str, OnFailure)] = &[
    ("fail-closed", OnFailure::FailClosed),
    ("skip", OnFailure::Skip),
];
/// The names of [`Mode`].
pub(super) const MODE: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];

pub(super) fn read(root: &Section<'_>) -> Policies {
    let section = root.section("policies", UnknownKeys::Refuse);
    let reader = section.reader();
    if section.get("trusted_keys", |_| Ok(())).is_some() {
        let key = section.key("trusted_keys");
        let message =
            "signatures are not checked by this build; pin components with sha256 instead";
        reader.problem(reader.place(&key), &key, message);
    }
    let dir = section.get("dir", text).map(PathBuf::from);
    let watch = section.get("watch", boolean).unwrap_or(false);
    let mut policies: Vec<PolicyConfig> = Vec::new();
    for table in section.sections("policy") {
        let place = reader.place(&table.key("name"));
        if let Some(policy) = read_policy(&table) {
            if policies.iter().any(|other| other.name == policy.name) {
                let message = format!("another policy is called {:?} already", policy.name);
                reader.problem(place, &table.key("name"), message);
            }
            policies.push(policy);
        }
        table.finish();
    }
    if dir.is_none() && !policies.is_empty() {
        reader.problem(
            reader.place(&section.key("policy")),
            &section.key("dir"),
            "expected the policies' directory",
        );
    }
    section.finish();
    Policies {
        dir,
        watch,
        policies,
    }
}

fn read_policy(table: &Section<'_>) -> Option<PolicyConfig> {
    let name = required(table, "name");
    let component = required(table, "component");
    let sha256 = table.get("sha256", |raw| {
        let text = text(raw)?.to_ascii_lowercase();
        let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if good {
            Ok(text)
        } else {
            Err("expected 64 hexadecimal digits".to_owned())
        }
    });
    let on_failure = table.get("on_failure", word(ON_FAILURE));
    let mode = table.get("mode", word(MODE));
    let optional = table.get("optional", boolean).unwrap_or(false);
    let settings = settings(&table.section("settings", UnknownKeys::Refuse));
    let grants = table.section("grants", UnknownKeys::Refuse);
    let inputs = grants.get("inputs", texts).unwrap_or_default();
    grants.finish();
    let limits = limits(table.section("limits", UnknownKeys::Refuse));

    let mut policy = PolicyConfig::new(name?, component?);
    policy.sha256 = sha256;
    policy.on_failure = on_failure.unwrap_or_default();
    policy.mode = mode.unwrap_or_default();
    policy.optional = optional;
    policy.settings = settings;
    policy.grants.inputs = inputs
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect::<BTreeSet<_>>();
    policy.limits = limits;
    Some(policy)
}

fn required(table: &Section<'_>, name: &'static str) -> Option<String> {
    let value = table.get(name, |raw| match text(raw)? {
        text if text.is_empty() => Err("expected a text that is not empty".to_owned()),
        text => Ok(text),
    });
    let key = table.key(name);
    if value.is_none() && !table.has(name) {
        table
            .reader()
            .problem(table.reader().place(&key), &key, "expected, but left out");
    }
    value
}

/// Policies get texts: a string as it is, any other value as its JSON.
fn settings(section: &Section<'_>) -> BTreeMap<String, String> {
    section
        .entries()
        .map(|(name, _, value)| match json(value) {
            serde_json::Value::String(text) => (name.to_owned(), text),
            other => (name.to_owned(), other.to_string()),
        })
        .collect()
}

fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .unwrap_or(i64::MAX)
            .into(),
        DeValue::Float(number) => number.as_str().parse().unwrap_or(f64::NAN).into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
            .collect(),
    }
}

fn limits(section: Section<'_>) -> Limits {
    let default = Limits::default();
    let size32 =
        |raw: Raw<'_>| u32::try_from(bytes(raw)?).map_err(|_| "expected less than 4GiB".to_owned());
    let limits = Limits {
        component_size: section
            .get("component_size", bytes)
            .unwrap_or(default.component_size),
        time: section.get("time", duration).unwrap_or(default.time),
        memory: section.get("memory", bytes).unwrap_or(default.memory),
        table_elements: section
            .get("table_elements", number32(0))
            .unwrap_or(default.table_elements),
        host_calls: section
            .get("host_calls", number32(1))
            .unwrap_or(default.host_calls),
        output: section.get("output", size32).unwrap_or(default.output),
        log: section.get("log", size32).unwrap_or(default.log),
    };
    section.finish();
    limits
}
