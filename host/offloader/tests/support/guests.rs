//! The stock policies, compiled.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Packages below guests/policies.
pub(crate) const STOCK: [&str; 4] = [
    "image-map",
    "site-url-map",
    "retry-backoff",
    "retention-rules",
];

/// The file of a stock policy: in the directory that `OFFLOADER_POLICIES` names, else built here.
pub(crate) fn stock_policy(package: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir =
        DIR.get_or_init(|| env::var_os("OFFLOADER_POLICIES").map_or_else(build, PathBuf::from));
    dir.join(package.replace('-', "_")).with_extension("wasm")
}

/// The directory of the sources.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("host/offloader is in it")
}

/// Where cargo builds.
pub(crate) fn target() -> &'static Path {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("target/tmp")
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", target())
        .args(["build", "--quiet", "--profile", "guest"])
        .args(["--target", "wasm32-wasip2"]);
    for package in STOCK {
        cargo.args(["--package", package]);
    }
    let built = cargo.status().expect("cargo runs").success();
    assert!(built, "the policies do not build");
    target().join("wasm32-wasip2").join("guest")
}
