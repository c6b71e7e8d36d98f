//! `[policies]`: which policies decide, in which order, and what they may see.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};

use policy_host::{Limits, Mode, OnFailure, PolicyConfig};
use toml::de::DeValue;

use super::document::{Raw, Section, UnknownKeys};
use super::environment::SECRET_VARIABLES;
use super::values::{boolean, bytes, duration, number32, text, texts, word};

/// The policies and where their components are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// The directory that components are named in.
    pub(crate) dir: Option<PathBuf>,
    /// Files of the keys whose signatures count.
    pub(crate) trusted_keys: Vec<PathBuf>,
    /// Whether a component without such a signature is refused.
    pub(crate) require_signature: bool,
    /// After so many failures in a row a policy is not asked any more; `None` asks it for ever.
    pub(crate) quarantine_after: Option<NonZeroU32>,
    /// Whether policies are loaded anew when something in their directory has changed.
    pub(crate) watch: bool,
    /// Whether the sandbox has to prove its limits before the service begins.
    pub(crate) selftest: bool,
    /// In the order in which they are asked.
    pub(crate) policies: Vec<Policy>,
}

/// A policy, and what it is granted by name: opened when policies are loaded.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// All that needs no opening.
    pub(crate) config: PolicyConfig,
    /// Variables of the service's environment.
    pub(crate) env: Vec<String>,
    /// Directories.
    pub(crate) dirs: Vec<GrantedDir>,
}

/// A directory that a policy is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantedDir {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Where the policy sees it.
    pub(crate) guest_path: String,
    /// Whether the policy may change what is in it.
    pub(crate) write: bool,
}

/// Failures in a row until a policy is not asked any more, where the configuration says nothing.
const QUARANTINE_AFTER: u32 = 10;

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
    let dir = section.get("dir", text).map(PathBuf::from);
    let trusted_keys = section.get("trusted_keys", texts).unwrap_or_default();
    let require_signature = switch(&section, "require_signature");
    let quarantine_after = section.get("quarantine_after", number32(0));
    let watch = switch(&section, "watch");
    let selftest = switch(&section, "selftest");
    let problem = |key: &str, message: &str| reader.problem(reader.place(key), key, message);
    if require_signature && trusted_keys.is_empty() {
        let message = "without policies.trusted_keys no signature could be right";
        problem(&section.key("require_signature"), message);
    }
    let mut policies: Vec<Policy> = Vec::new();
    for table in section.sections("policy") {
        let place = reader.place(&table.key("name"));
        if let Some(policy) = read_policy(&table) {
            let name = &policy.config.name;
            if policies.iter().any(|other| other.config.name == *name) {
                let message = format!("another policy is called {name:?} already");
                reader.problem(place, &table.key("name"), message);
            }
            if policy.config.signature.is_some() && trusted_keys.is_empty() {
                let message = "without policies.trusted_keys no signature can be checked";
                problem(&table.key("signature"), message);
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
        trusted_keys: trusted_keys.into_iter().map(PathBuf::from).collect(),
        require_signature,
        quarantine_after: NonZeroU32::new(quarantine_after.unwrap_or(QUARANTINE_AFTER)),
        watch,
        selftest,
        policies,
    }
}

fn read_policy(table: &Section<'_>) -> Option<Policy> {
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
    let signature = table.get("signature", not_empty);
    let on_failure = table.get("on_failure", word(ON_FAILURE));
    let mode = table.get("mode", word(MODE));
    let optional = switch(table, "optional");
    let settings = settings(&table.section("settings", UnknownKeys::Refuse));
    let grants = table.section("grants", UnknownKeys::Refuse);
    let inputs = grants.get("inputs", texts).unwrap_or_default();
    let env = grants.get("env", variables).unwrap_or_default();
    let dirs = granted_dirs(&grants);
    let real_clock = switch(&grants, "real_clock");
    let real_entropy = switch(&grants, "real_entropy");
    grants.finish();
    let limits = limits(table.section("limits", UnknownKeys::Refuse));

    let mut policy = PolicyConfig::new(name?, component?);
    policy.sha256 = sha256;
    policy.signature = signature;
    policy.on_failure = on_failure.unwrap_or_default();
    policy.mode = mode.unwrap_or_default();
    policy.optional = optional;
    policy.settings = settings;
    policy.grants.inputs = inputs
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect::<BTreeSet<_>>();
    policy.grants.real_clock = real_clock;
    policy.grants.real_entropy = real_entropy;
    policy.limits = limits;
    Some(Policy {
        config: policy,
        env,
        dirs,
    })
}

fn switch(table: &Section<'_>, name: &'static str) -> bool {
    table.get(name, boolean).unwrap_or(false)
}

/// Names of variables, none of which may hold a secret of the service.
fn variables(raw: Raw<'_>) -> Result<Vec<String>, String> {
    let names = texts(raw)?;
    for name in &names {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("expected names of variables, found {name:?}"));
        }
        if SECRET_VARIABLES.contains(&name.as_str()) {
            return Err(format!("{name} is a secret of this service"));
        }
    }
    Ok(names)
}

fn granted_dirs(grants: &Section<'_>) -> Vec<GrantedDir> {
    let mut dirs: Vec<GrantedDir> = Vec::new();
    for table in grants.sections("dirs") {
        let path = required_with(&table, "path", absolute);
        let seen_as = table.get("as", absolute);
        let write = switch(&table, "write");
        let (reader, key) = (table.reader(), table.key("as"));
        table.finish();
        let Some(path) = path else { continue };
        let guest_path = seen_as.unwrap_or_else(|| path.clone());
        if dirs.iter().any(|other| other.guest_path == guest_path) {
            let message = format!("another directory is seen as {guest_path:?} already");
            reader.problem(reader.place(&key), &key, message);
        }
        dirs.push(GrantedDir {
            path: path.into(),
            guest_path,
            write,
        });
    }
    dirs
}

/// A path from the root that goes down only.
fn absolute(raw: Raw<'_>) -> Result<String, String> {
    let text = text(raw)?;
    let goes_down = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let path = Path::new(&text);
    if path.is_absolute() && path.components().all(goes_down) {
        Ok(text)
    } else {
        Err(format!(
            "expected an absolute path without \"..\", found {text:?}"
        ))
    }
}

fn required(table: &Section<'_>, name: &'static str) -> Option<String> {
    required_with(table, name, not_empty)
}

fn required_with(
    table: &Section<'_>,
    name: &'static str,
    read: fn(Raw<'_>) -> Result<String, String>,
) -> Option<String> {
    let value = table.get(name, read);
    let key = table.key(name);
    if value.is_none() && !table.has(name) {
        table
            .reader()
            .problem(table.reader().place(&key), &key, "expected, but left out");
    }
    value
}

fn not_empty(raw: Raw<'_>) -> Result<String, String> {
    match text(raw)? {
        text if text.is_empty() => Err("expected a text that is not empty".to_owned()),
        text => Ok(text),
    }
}

/// Policies get texts: a string as it is, any other value as its JSON.
pub(crate) fn settings(section: &Section<'_>) -> BTreeMap<String, String> {
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
        // What JSON has no number for stays the text that it is.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().into(), Into::into),
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(value) if value.is_finite() => value.into(),
            _ => number.as_str().into(),
        },
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
            .collect(),
    }
}

/// What a table says of limits, over the defaults.
pub(crate) fn limits(section: Section<'_>) -> Limits {
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
