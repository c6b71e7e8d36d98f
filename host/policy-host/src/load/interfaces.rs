//! What a file must be to be a policy: a component, of this version of the contract, that imports
//! nothing which nobody grants.
//!
//! All of it is told by the component's types, before any code of it is looked at.

use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::Types;
use wasmparser::{Parser, Payload, ValidPayload, Validator};

use crate::config::PolicyGrants;
use crate::hooks::is_exported_interface;
use crate::load::CONTRACT_VERSION;
use crate::load_error::LoadProblem;
use crate::wasi;

/// The first eight bytes of a WebAssembly file say what is in it.
pub(super) fn not_a_component(bytes: &[u8]) -> Option<&'static str> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => None,
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => {
            Some("is a core WebAssembly module, not a component; build it for wasm32-wasip2")
        }
        _ if bytes.is_empty() => Some("is empty"),
        _ => Some("is not WebAssembly"),
    }
}

/// What a component asks of its surroundings, and what it offers them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interfaces {
    /// In the order of the component.
    pub(crate) imports: Vec<Import>,
    /// The names of its exports.
    pub(crate) exports: Vec<String>,
}

/// Something that a component imports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// Its name, for example `wasi:random/random@0.2.6`.
    pub(crate) name: String,
    /// The functions that it is to have, if it is an interface: for example `get-random-u64`.
    pub(crate) functions: Vec<String>,
}

impl Interfaces {
    /// Reads them from a component's file.
    ///
    /// # Errors
    /// When its outside makes no sense. What is within is left to the compiler.
    pub(crate) fn read(component: &[u8]) -> wasmparser::Result<Self> {
        let mut validator = Validator::new();
        // Components and modules lie within each other; the outermost begins first and ends last.
        let (mut depth, mut imports) = (0, Vec::new());
        let mut read = Self::default();
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload?;
            let valid = validator.payload(&payload)?;
            match payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        imports.push(import?.name.name);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        read.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
            if let (0, ValidPayload::End(types)) = (depth, valid) {
                let import = |name: &&str| Import {
                    name: (*name).to_owned(),
                    functions: functions(&types, name),
                };
                read.imports = imports.iter().map(import).collect();
            }
        }
        Ok(read)
    }

    /// Everything that is wrong with them: imports that are neither of this version of the contract
    /// nor of the base set, and exports that have the contract's name and are not in it.
    pub(crate) fn problems(&self) -> Vec<LoadProblem> {
        let imports = self.imports.iter().map(|import| import.name.as_str());
        let imports = imports.filter_map(import_problem);
        let exports = self.exports.iter().filter_map(|name| export_problem(name));
        imports.chain(exports).collect()
    }

    /// The keys below `grants` that a component with these imports makes no use of.
    pub(crate) fn unused(&self, grants: &PolicyGrants) -> Vec<&'static str> {
        let granted = [
            ("inputs", !grants.inputs.is_empty()),
            ("env", !grants.env.is_empty()),
            ("dirs", !grants.dirs.is_empty()),
            ("real_clock", grants.real_clock),
            ("real_entropy", grants.real_entropy),
        ];
        let is_unused = |(key, granted)| (granted && !self.uses(key)).then_some(key);
        granted.into_iter().filter_map(is_unused).collect()
    }

    /// Whether a component with these imports can make use of a grant.
    pub(crate) fn uses(&self, key: &str) -> bool {
        let imports = |interface: &str, function: &str| {
            let fits = |import: &Import| {
                import.name.starts_with(interface)
                    && import.functions.iter().any(|name| name.ends_with(function))
            };
            self.imports.iter().any(fits)
        };
        match key {
            "inputs" => imports("offloader:policy/types@", "[method]job.input"),
            "env" => imports("wasi:cli/environment@", "get-environment"),
            "dirs" => imports("wasi:filesystem/preopens@", "get-directories"),
            "real_clock" => imports("wasi:clocks/", ""),
            "real_entropy" => imports("wasi:random/", ""),
            _ => false,
        }
    }
}

/// The functions that an imported interface is to have.
fn functions(types: &Types, import: &str) -> Vec<String> {
    let item = types.component_item_for_import(import).map(|item| item.ty);
    let Some(ComponentEntityType::Instance(interface)) = item else {
        return Vec::new();
    };
    let items = types[interface].exports.iter();
    items
        .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)))
        .map(|(name, _)| name.clone())
        .collect()
}

/// `offloader:policy/NAME@VERSION` taken apart; `None` for other packages.
pub(crate) fn of_contract(name: &str) -> Option<(&str, Option<&str>)> {
    let rest = name.strip_prefix("offloader:policy/")?;
    Some(match rest.split_once('@') {
        Some((interface, version)) => (interface, Some(version)),
        None => (rest, None),
    })
}

fn version_problem(name: &str) -> LoadProblem {
    LoadProblem::OtherVersion {
        found: name.to_owned(),
        ours: CONTRACT_VERSION,
    }
}

/// What is wrong with an import of this name.
fn import_problem(name: &str) -> Option<LoadProblem> {
    match of_contract(name) {
        Some((_, version)) if version != Some(CONTRACT_VERSION) => Some(version_problem(name)),
        Some(("types", _)) => None,
        _ => {
            let (interface, version) = name.split_once('@').unwrap_or((name, ""));
            let known = name == "wasi:config/store@0.2.0-rc.1"
                || (wasi::INTERFACES.contains(&interface) && version.starts_with("0.2."));
            (!known).then(|| LoadProblem::UncoveredImport(name.to_owned()))
        }
    }
}

/// What is wrong with an export of this name.
fn export_problem(name: &str) -> Option<LoadProblem> {
    match of_contract(name)? {
        (_, version) if version != Some(CONTRACT_VERSION) => Some(version_problem(name)),
        (interface, _) if !is_exported_interface(interface) => {
            Some(LoadProblem::UnknownExport(name.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        assert_eq!(not_a_component(b"\0asm\x0d\0\x01\0rest"), None);
        for (bytes, what) in [
            (&b"\0asm\x01\0\0\0"[..], "core"),
            (b"", "empty"),
            (b"(component)", "not WebAssembly"),
            (b"\0asm", "not WebAssembly"),
        ] {
            let told = not_a_component(bytes).unwrap();
            assert!(told.contains(what), "{told}");
        }
    }

    #[test]
    fn imports_are_held_against_the_contract_and_the_base_set() {
        for covered in [
            "offloader:policy/types@0.1.0",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:cli/exit@0.2.6",
        ] {
            assert!(import_problem(covered).is_none(), "{covered}");
        }
        for (import, message) in [
            (
                "offloader:policy/types@0.2.0",
                "was made for offloader:policy/types@0.2.0; this service has offloader:policy@0.1.0",
            ),
            (
                "wasi:sockets/tcp@0.2.6",
                "imports wasi:sockets/tcp@0.2.6, which nothing grants",
            ),
            (
                "wasi:config/store@0.2.0",
                "imports wasi:config/store@0.2.0, which nothing grants",
            ),
            (
                "wasi:cli/exit@0.3.0",
                "imports wasi:cli/exit@0.3.0, which nothing grants",
            ),
            ("host", "imports host, which nothing grants"),
        ] {
            assert_eq!(import_problem(import).unwrap().to_string(), message);
        }
    }

    #[test]
    fn exports_of_the_contract_are_known() {
        for fine in [
            "offloader:policy/retry@0.1.0",
            "offloader:policy/settings-check@0.1.0",
            "example:own/thing",
        ] {
            assert!(export_problem(fine).is_none(), "{fine}");
        }
        for (export, message) in [
            ("offloader:policy/retry@1.0.0", "was made for"),
            ("offloader:policy/retry", "was made for"),
            (
                "offloader:policy/placement@0.1.0",
                "not part of the contract",
            ),
        ] {
            assert!(
                export_problem(export)
                    .unwrap()
                    .to_string()
                    .contains(message),
                "{export}"
            );
        }
    }

    fn read(fields: &str) -> Interfaces {
        let component = wat::parse_str(format!("(component {fields})")).unwrap();
        Interfaces::read(&component).unwrap()
    }

    #[test]
    fn only_the_outside_of_a_component_is_read() {
        let read = read(
            r#"(import "wasi:random/random@0.2.6" (instance $random
                (export "thing" (type (sub resource)))
                (export "get-random-u64" (func (result u64)))))
            (import "run" (func $run))
            (component $within
                (import "run" (func $run))
                (export "within" (func $run)))
            (instance (instantiate $within (with "run" (func $run))))
            (export "offloader:policy/retry@0.1.0" (instance $random))"#,
        );
        let import = |name: &str, functions: &[&str]| Import {
            name: name.to_owned(),
            functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(
            read,
            Interfaces {
                imports: vec![
                    import("wasi:random/random@0.2.6", &["get-random-u64"]),
                    import("run", &[]),
                ],
                exports: vec!["offloader:policy/retry@0.1.0".to_owned()],
            }
        );
    }

    #[test]
    fn a_grant_that_nothing_can_be_done_with_is_told() {
        let everything = PolicyGrants {
            inputs: ["call_id".to_owned()].into(),
            env: [("NAME".to_owned(), "value".to_owned())].into(),
            real_clock: true,
            real_entropy: true,
            ..PolicyGrants::default()
        };
        let all = ["inputs", "env", "real_clock", "real_entropy"];
        assert_eq!(read("").unused(&everything), all);
        assert_eq!(read("").unused(&PolicyGrants::default()), [] as [&str; 0]);
        // Getters that it does not import show it no input.
        let some = read(
            r#"(import "offloader:policy/types@0.1.0" (instance
                (export "job" (type $job (sub resource)))
                (export "[method]job.id" (func (param "self" (borrow $job)) (result string)))))
            (import "wasi:clocks/wall-clock@0.2.6" (instance
                (export "now" (func (result u64)))))
            (import "wasi:cli/environment@0.2.6" (instance
                (export "get-environment" (func (result u64)))))"#,
        );
        assert_eq!(some.unused(&everything), ["inputs", "real_entropy"]);
    }
}
