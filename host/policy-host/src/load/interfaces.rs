//! What a file must be to be a policy: a component, of this version of the contract, that imports
//! nothing which nobody grants.

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

/// `offloader:policy/NAME@VERSION` taken apart; `None` for other packages.
fn of_contract(name: &str) -> Option<(&str, Option<&str>)> {
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
pub(super) fn import_problem(name: &str) -> Option<LoadProblem> {
    match of_contract(name) {
        Some((_, version)) if version != Some(CONTRACT_VERSION) => Some(version_problem(name)),
        Some(("types", _)) => None,
        _ => {
            let interface = name
                .split_once('@')
                .map_or(name, |(interface, _)| interface);
            let known =
                name == "wasi:config/store@0.2.0-rc.1" || wasi::INTERFACES.contains(&interface);
            (!known).then(|| LoadProblem::UncoveredImport(name.to_owned()))
        }
    }
}

/// What is wrong with an export of this name.
pub(super) fn export_problem(name: &str) -> Option<LoadProblem> {
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
}
