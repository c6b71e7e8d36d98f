//! What the demo and the tests both stand on: engine, registry, example images, policies, the binary.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::engine::Engine;
use crate::guests::{self, cargo};
use crate::images;
use crate::layout::Layout;
use crate::process::{command, run};
use crate::registry::{self, Registry};

/// What cargo builds.
pub(crate) struct Built {
    /// The offloader binary.
    pub(crate) daemon: PathBuf,
    /// The directory of the stock policies.
    pub(crate) policies: PathBuf,
}

impl Built {
    /// Builds all of it.
    pub(crate) async fn build(layout: &Layout) -> Result<Self> {
        Self::by(layout, &["build", "--package", "offloader"]).await
    }

    /// Builds all of it and the tests. Their libraries have other features switched on, so that
    /// the daemon beside them would be built from the ground up once more.
    pub(crate) async fn build_with_tests(layout: &Layout) -> Result<Self> {
        Self::by(layout, &["test", "--workspace", "--no-run", "--quiet"]).await
    }

    async fn by(layout: &Layout, cargo: &[&str]) -> Result<Self> {
        let step = Step::begin("building the daemon");
        let daemon = build_daemon(layout, cargo).await?;
        let step = step.next("building the stock policies");
        let policies = guests::build(layout).await?;
        step.end();
        Ok(Self { daemon, policies })
    }
}

/// What containers come from. Dropping it stops what was started for it.
pub(crate) struct Stage {
    /// Holds the example images under the names that a site asks for.
    pub(crate) registry: Registry,
    // After the registry: dropped after it.
    /// Holds the example images under names of their own.
    pub(crate) engine: Engine,
}

impl Stage {
    /// Builds the images and puts them into a registry, saying each step as it goes.
    pub(crate) async fn prepare(layout: &Layout, engine: Engine) -> Result<Self> {
        let step = Step::begin(&format!("building the example images in {engine}"));
        images::build_all(layout, &engine).await?;
        let step = step.next("filling a local registry");
        let registry = registry::start(layout).await?;
        images::push_all(&engine, &registry).await?;
        step.end();
        Ok(Self { registry, engine })
    }
}

/// Builds the daemon that can be told where to die, as a program beside the other.
pub(crate) async fn build_daemon_with_fault_points(layout: &Layout) -> Result<PathBuf> {
    const NAME: &str = "offloader-faults";
    let mut build = command(cargo());
    build.current_dir(layout.root()).args([
        "build",
        "--workspace",
        "--bin",
        NAME,
        "--features",
        "offloader/fault-points",
        // With a test among what is built, libraries get the features that they have in all tests,
        // and only our own crates are built once more.
        "--test",
        "faults",
    ]);
    run(&mut build)
        .await
        .context("building the daemon with fault points")?;
    let binary = layout.target("debug").join(NAME);
    fs::metadata(&binary).with_context(|| format!("cargo built no {}", binary.display()))?;
    Ok(binary)
}

async fn build_daemon(layout: &Layout, args: &[&str]) -> Result<PathBuf> {
    let mut build = command(cargo());
    build.current_dir(layout.root()).args(args);
    run(&mut build).await.context("building the daemon")?;
    let binary = layout.target("debug/offloader");
    fs::metadata(&binary).with_context(|| format!("cargo built no {}", binary.display()))?;
    Ok(binary)
}

/// A step that is under way, and what it cost when it is done.
pub(crate) struct Step {
    name: String,
    since: Instant,
}

impl Step {
    /// Announces a step.
    pub(crate) fn begin(name: &str) -> Self {
        println!("· {name} …");
        Self {
            name: name.to_owned(),
            since: Instant::now(),
        }
    }

    /// Ends this one and announces the next.
    pub(crate) fn next(self, name: &str) -> Self {
        self.end();
        Self::begin(name)
    }

    /// Says how long it took, if that was long enough to wonder.
    pub(crate) fn end(self) {
        let took = self.since.elapsed();
        if took.as_secs() >= 1 {
            println!("  {}: {:.1} s", self.name, took.as_secs_f64());
        }
    }
}
