//! The stock policies, built before the tests.

use std::env;
use std::path::PathBuf;

/// The file of a policy: in the directory that `OFFLOADER_POLICIES` names, else where `cargo xtask
/// guests` leaves what it builds.
pub fn policy_file(name: &str) -> PathBuf {
    let dir = env::var_os("OFFLOADER_POLICIES").map_or_else(built, PathBuf::from);
    let file = dir.join(name);
    assert!(
        file.is_file(),
        "{} is missing: run `cargo xtask guests`",
        file.display()
    );
    file
}

fn built() -> PathBuf {
    // A test binary lies in target/debug/deps.
    let own = env::current_exe().expect("a running program has a path");
    let target = own.ancestors().nth(3).unwrap_or(&own);
    target.join("wasm32-wasip2/guest")
}
