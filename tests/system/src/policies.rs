//! The stock policies and a job for the embedded runner, built before the tests.

use std::env;
use std::path::PathBuf;

/// The file of a policy: in the directory that `OFFLOADER_POLICIES` names, else where `cargo xtask
/// guests` leaves what it builds.
pub fn policy_file(name: &str) -> PathBuf {
    let dir = env::var_os("OFFLOADER_POLICIES").map_or_else(built, PathBuf::from);
    found(dir.join(name))
}

/// The component that does what its variable `ACT` says.
pub fn job_probe() -> PathBuf {
    found(built().join("job-probe.wasm"))
}

fn found(file: PathBuf) -> PathBuf {
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
