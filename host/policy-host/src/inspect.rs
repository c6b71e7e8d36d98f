//! What is in a policy's file, for people who have it and do not run it.

use std::collections::BTreeSet;

use domain::Hook;
use sha2::{Digest, Sha256};

use crate::load::CONTRACT_VERSION;
use crate::load::interfaces::{Interfaces, of_contract};
use crate::wasi;

/// The contract's package, and what settings are read through.
const SETTINGS: &str = "wasi:config/store";

/// What a component exports and imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Bytes of the file.
    pub size_bytes: u64,
    /// sha256 of the file, hexadecimal.
    pub sha256: String,
    /// Versions of the contract that it was made for: one, in a component that makes sense.
    pub contract_versions: BTreeSet<String>,
    /// The hooks that it exports.
    pub hooks: Vec<Hook>,
    /// Whether it has something to say about its settings.
    pub checks_settings: bool,
    /// Whether it reads settings.
    pub reads_settings: bool,
    /// What it can ask about a job, as decisions record what was read: `image-chosen`,
    /// `attempt.failure`, `input`.
    pub facts: BTreeSet<String>,
    /// Interfaces that every policy may import.
    pub base_imports: BTreeSet<String>,
    /// Interfaces that nothing covers.
    pub further_imports: BTreeSet<String>,
    /// What has to be granted before it sees any of it. Without, it loads all the same.
    pub grants: Vec<GrantNeed>,
}

/// A kind of grant that a component has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantNeed {
    /// The key below `grants` in the configuration.
    pub key: &'static str,
    /// What it sees without it, for people.
    pub without: &'static str,
}

/// Every grant.
const GRANTS: [(&str, &str); 5] = [
    ("inputs", "no inputs of jobs"),
    ("env", "an empty environment"),
    ("dirs", "no directories"),
    ("real_clock", "clocks that stand at the decision's time"),
    (
        "real_entropy",
        "random numbers that follow from the decision",
    ),
];

/// A file could not be looked into.
#[derive(Debug, thiserror::Error)]
#[error("it is no component: {0}")]
pub struct InspectError(String);

/// Looks into a component, without compiling it.
///
/// # Errors
/// When it is none.
pub fn inspect(component: &[u8]) -> Result<Inspection, InspectError> {
    let interfaces =
        Interfaces::read(component).map_err(|error| InspectError(error.message().to_owned()))?;
    let mut found = Inspection {
        size_bytes: component.len() as u64,
        sha256: hex::encode(Sha256::digest(component)),
        contract_versions: BTreeSet::new(),
        hooks: Vec::new(),
        checks_settings: false,
        reads_settings: false,
        facts: BTreeSet::new(),
        base_imports: BTreeSet::new(),
        further_imports: BTreeSet::new(),
        grants: Vec::new(),
    };
    for import in &interfaces.imports {
        found.import(&import.name);
        if of_contract(&import.name).is_some() {
            found
                .facts
                .extend(import.functions.iter().filter_map(|name| fact(name)));
        }
    }
    let needed = GRANTS.into_iter().filter(|(key, _)| interfaces.uses(key));
    found.grants = needed
        .map(|(key, without)| GrantNeed { key, without })
        .collect();
    for export in &interfaces.exports {
        found.export(export);
    }
    found.hooks.sort_unstable();
    Ok(found)
}

impl Inspection {
    fn import(&mut self, name: &str) {
        let interface = name
            .split_once('@')
            .map_or(name, |(interface, _)| interface);
        if let Some((_, version)) = of_contract(name) {
            self.contract_versions.extend(version.map(str::to_owned));
        } else if interface == SETTINGS {
            self.reads_settings = true;
        } else if wasi::INTERFACES.contains(&interface) {
            self.base_imports.insert(name.to_owned());
        } else {
            self.further_imports.insert(name.to_owned());
        }
    }

    fn export(&mut self, name: &str) {
        let Some((interface, version)) = of_contract(name) else {
            return;
        };
        self.contract_versions.extend(version.map(str::to_owned));
        self.checks_settings |= interface == "settings-check";
        let hook = Hook::ALL
            .into_iter()
            .find(|hook| hook.as_str() == interface);
        self.hooks.extend(hook);
    }

    /// The version of the contract that this host speaks.
    #[must_use]
    pub fn contract_here() -> &'static str {
        CONTRACT_VERSION
    }
}

/// The fact behind a getter, as decisions call it.
fn fact(function: &str) -> Option<String> {
    let method = function.strip_prefix("[method]")?;
    Some(method.strip_prefix("job.").unwrap_or(method).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(fields: &str) -> Inspection {
        inspect(&wat::parse_str(format!("(component {fields})")).unwrap()).unwrap()
    }

    #[test]
    fn imports_are_told_apart_by_what_they_take() {
        let found = inspected(
            r#"
            (import "offloader:policy/types@0.1.0" (instance
                (export "job" (type $job (sub resource)))
                (export "attempt" (type $attempt (sub resource)))
                (export "[method]job.input" (func (param "self" (borrow $job))))
                (export "[method]attempt.image" (func (param "self" (borrow $attempt))))))
            (import "wasi:config/store@0.2.0-rc.1" (instance))
            (import "wasi:clocks/wall-clock@0.2.6" (instance (export "resolution" (func))))
            (import "wasi:io/error@0.2.6" (instance))
            (import "wasi:sockets/tcp@0.2.6" (instance))"#,
        );
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found.facts), ["attempt.image", "input"]);
        assert!(found.reads_settings && !found.checks_settings);
        assert_eq!(
            names(&found.base_imports),
            ["wasi:clocks/wall-clock@0.2.6", "wasi:io/error@0.2.6"]
        );
        assert_eq!(names(&found.further_imports), ["wasi:sockets/tcp@0.2.6"]);
        assert_eq!(names(&found.contract_versions), ["0.1.0"]);
        let grants: Vec<_> = found.grants.iter().map(|need| need.key).collect();
        assert_eq!(grants, ["inputs", "real_clock"]);
    }

    #[test]
    fn exports_of_any_version_are_told() {
        let found = inspected(
            r#"
            (instance $empty)
            (export "offloader:policy/retention@0.2.0" (instance $empty))
            (export "offloader:policy/settings-check@0.2.0" (instance $empty))
            (export "offloader:policy/image-selection@0.2.0" (instance $empty))"#,
        );
        assert_eq!(found.hooks, [Hook::ImageSelection, Hook::Retention]);
        assert!(found.checks_settings);
        assert!(found.contract_versions.contains("0.2.0"));
    }

    #[test]
    fn what_is_no_component_is_refused() {
        assert!(inspect(b"\0asm\x0d\0\x01\0rest").is_err());
        assert!(inspect(b"no").is_err());
    }
}
