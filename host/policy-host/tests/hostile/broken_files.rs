//! Files that must not be loaded: no components, or components that no policy is.

use std::fmt::Write as _;

use crate::component;
use crate::support::{IMAGE_MAP, policy};

/// A file that must not be loaded.
pub(crate) struct Refused {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// How the problem begins, or that of each import.
    pub(crate) problems: &'static [&'static str],
}

/// Every file that must not be loaded.
pub(crate) fn refused() -> Vec<Refused> {
    let refused = |name, bytes, problems| Refused {
        name,
        bytes,
        problems,
    };
    let good = policy(IMAGE_MAP);
    vec![
        refused("empty", Vec::new(), &["component empty: is empty"]),
        refused(
            "random bytes",
            (0..4096_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
            &["component random bytes: is not WebAssembly"],
        ),
        refused(
            "text",
            b"(component)".to_vec(),
            &["component text: is not WebAssembly"],
        ),
        refused(
            "beginning only",
            good[..7].to_vec(),
            &["component beginning only: is not WebAssembly"],
        ),
        refused(
            "truncated",
            good[..good.len() / 2].to_vec(),
            &["does not compile: "],
        ),
        refused(
            "code that adds nothing up",
            with_retry("0.1.0", "(func i32.add drop)"),
            &["does not compile: Invalid input WebAssembly code"],
        ),
        refused(
            "core module",
            b"\0asm\x01\0\0\0".to_vec(),
            &["component core module: is a core WebAssembly module, not a component"],
        ),
        refused(
            "exports nothing",
            component(""),
            &["exports no hook; a policy exports"],
        ),
        refused(
            "exports an unknown hook",
            component(r#"(instance $i) (export "offloader:policy/placement@0.1.0" (instance $i))"#),
            &["exports offloader:policy/placement@0.1.0, which is not part of the contract"],
        ),
        refused(
            "exports another version",
            with_retry("0.2.0", ""),
            &["was made for offloader:policy/retry@0.2.0; this service has offloader:policy@0.1.0"],
        ),
        refused(
            "exports a wrong type",
            with_retry("0.1.0", ""),
            &["its export retry does not fit: "],
        ),
        refused(
            "imports what is not granted",
            component(
                r#"(import "wasi:sockets/tcp@0.2.6" (instance))
                (import "wasi:http/types@0.2.6" (instance))
                (import "run-anything" (func))"#,
            ),
            &[
                "imports wasi:sockets/tcp@0.2.6, which nothing grants",
                "imports wasi:http/types@0.2.6, which nothing grants",
                "imports run-anything, which nothing grants",
            ],
        ),
        refused(
            "imports what is not granted to code that would not compile",
            component(
                r#"(import "run-anything" (func))
                (core module $m (func i32.add drop))"#,
            ),
            &["imports run-anything, which nothing grants"],
        ),
        refused(
            "imports what the base set has not",
            component(
                r#"(import "wasi:cli/environment@0.2.6" (instance
                    (export "set-environment" (func))))"#,
            ),
            &["its imports do not fit: "],
        ),
        refused(
            "loops in start",
            starting("(loop (br 0))"),
            &["settings-check: took longer than 1000 ms"],
        ),
        refused(
            "recurses in start",
            starting("(call $start)"),
            &["settings-check: ran out of stack"],
        ),
        refused(
            "traps in start",
            starting("unreachable"),
            &["settings-check: trapped: wasm trap: wasm `unreachable` instruction executed"],
        ),
        refused(
            "begins with much memory",
            with_retry("0.1.0", "(memory 300)"),
            &["settings-check: wanted more than 16777216 bytes of memory"],
        ),
        refused(
            "begins with a large table",
            with_retry("0.1.0", "(table 15000 funcref)"),
            &["settings-check: wanted more than 10000 table elements"],
        ),
        refused(
            "begins with all memory there can be",
            with_retry("0.1.0", "(memory 65536)"),
            &["does not compile: memory has a minimum byte size of 4294967296 which exceeds"],
        ),
        refused(
            "two memories",
            with_retry("0.1.0", "(memory 1) (memory 1)"),
            &["does not compile: defined memories count of 2 exceeds the per-instance limit"],
        ),
        refused(
            "many tables",
            with_retry("0.1.0", &"(table 1 funcref)".repeat(9)),
            &["does not compile: defined tables count of 9 exceeds the per-instance limit"],
        ),
        refused(
            "many instances",
            many_instances(),
            &["does not compile: The component transitively contains 17 core module instances"],
        ),
        refused(
            "deep types",
            deep_types(),
            &["does not compile: type nesting is too deep"],
        ),
    ]
}

/// Exports `offloader:policy/retry` of a version, with one function of no type.
fn with_retry(version: &str, module: &str) -> Vec<u8> {
    component(&format!(
        r#"(core module $m {module} (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (instance $hook (export "decide-retry" (func $f)))
        (export "offloader:policy/retry@{version}" (instance $hook))"#
    ))
}

fn starting(body: &str) -> Vec<u8> {
    with_retry("0.1.0", &format!("(func $start {body}) (start $start)"))
}

fn many_instances() -> Vec<u8> {
    component(&format!(
        "(core module $m) {}",
        "(core instance (instantiate $m))".repeat(17)
    ))
}

/// A function that takes lists of lists of lists and so on.
fn deep_types() -> Vec<u8> {
    const DEPTH: usize = 20_000;
    let mut text = String::from(
        r#"(core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "f") (param i32 i32)))
        (core instance $i (instantiate $m))
        (type $t0 (list u8))"#,
    );
    for depth in 1..=DEPTH {
        let _ = write!(text, "(type $t{depth} (list $t{}))", depth - 1);
    }
    let _ = write!(
        text,
        r#"(func (export "f") (param "deep" $t{DEPTH}) (canon lift (core func $i "f")
            (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))"#
    );
    component(&text)
}
