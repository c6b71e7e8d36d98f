//! The stock policies, compiled to WebAssembly components.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::process::{command, output, run};

/// What policies are compiled for.
pub(crate) const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "guest";
/// Packages below guests/policies.
pub(crate) const POLICIES: [&str; 4] = [
    "image-map",
    "site-url-map",
    "retry-backoff",
    "retention-rules",
];

/// Builds the component that stands in for recorder and transcriber, and returns its file.
pub(crate) async fn build_stand_in(layout: &Layout) -> Result<PathBuf> {
    const NAME: &str = "stand-in";
    ensure_target().await?;
    let mut cargo = command(cargo());
    cargo
        .current_dir(layout.root())
        .args(["build", "--quiet", "--profile", PROFILE])
        .args(["--target", TARGET, "--package", NAME]);
    run(&mut cargo).await.context("building the stand-in")?;
    let built = layout.target(TARGET).join(PROFILE);
    Ok(built.join(format!("{NAME}.wasm")))
}

/// Builds the stock policies, and a job for tests, which stays where it is built. Returns the
/// directory that holds NAME.wasm of each policy.
pub(crate) async fn build(layout: &Layout) -> Result<PathBuf> {
    ensure_target().await?;
    let mut cargo = command(cargo());
    cargo
        .current_dir(layout.root())
        .args(["build", "--profile", PROFILE, "--target", TARGET]);
    for guest in POLICIES.iter().chain(&["job-probe"]) {
        cargo.args(["--package", guest]);
    }
    run(&mut cargo)
        .await
        .context("building the stock policies")?;

    let dir = layout.target_dir("policies")?;
    for policy in POLICIES {
        let file = file_name(policy);
        let built = layout.target(TARGET).join(PROFILE).join(&file);
        fs::copy(&built, dir.join(&file))
            .with_context(|| format!("copying {}", built.display()))?;
    }
    Ok(dir)
}

/// The component that cargo makes of a package.
pub(crate) fn file_name(policy: &str) -> String {
    format!("{}.wasm", policy.replace('-', "_"))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// rust-toolchain.toml names the target, and rustup installs it when it installs the toolchain; a
/// toolchain that was there before may lack it.
async fn ensure_target() -> Result<()> {
    let installed =
        output(command("rustc").args(["--print", "target-libdir", "--target", TARGET])).await;
    if installed.is_ok_and(|dir| PathBuf::from(dir).is_dir()) {
        return Ok(());
    }
    println!("adding the Rust target {TARGET} …");
    if let Err(error) = output(command("rustup").args(["target", "add", TARGET])).await {
        bail!("the Rust target {TARGET} is missing; `rustup target add {TARGET}` says: {error:#}");
    }
    Ok(())
}
