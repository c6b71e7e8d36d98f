//! `cargo xtask bench`: how fast the release build is, beside the least that the same work can cost on
//! this machine, measured in the same run.
//!
//! A ratio carries over to another machine, a time does not. docs/benchmarks.md says what is measured
//! and why.

mod adoption;
mod daemon;
mod history;
mod http;
mod memory;
mod policy;
mod rate;
mod raw;
mod report;
mod starts;
mod startup;
mod turns;
mod work;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use self::report::Report;
use crate::engine::Engine;
use crate::guests::{self, TARGET, cargo};
use crate::layout::{Layout, make_dir};
use crate::process::{command, run as run_to_end};
use crate::stage::Step;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the results into this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure what an earlier run has built
    #[arg(long)]
    built: bool,
    /// All of them if none is named
    #[arg(value_enum)]
    parts: Vec<Part>,
}

/// One thing to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Decisions of the stock policies beside bare WebAssembly, loads, swaps and memory
    Policy,
    /// The four that follow
    Jobs,
    /// Jobs a second inside the service, beside SQLite alone
    Rate,
    /// Running containers found again after a crash, beside asking the container engine about each
    Adoption,
    /// Memory, starts and pages with a long history
    History,
    /// From POST /jobs until the container runs, beside the container engine alone
    Starts,
    /// GET /jobs/{id}, beside a bare route with the same bytes
    Http,
    /// From the start of the process to its first answers
    Startup,
    /// Memory of a service that has nothing to do
    Memory,
}

impl Part {
    /// Whether this is to be measured when `asked` are asked for.
    fn is_among(self, asked: &[Self]) -> bool {
        let of_jobs = matches!(
            self,
            Self::Rate | Self::Adoption | Self::History | Self::Starts
        );
        asked.is_empty() || asked.contains(&self) || (of_jobs && asked.contains(&Self::Jobs))
    }
}

/// What is measured, and where it can write.
struct Bench {
    /// The daemon's release build.
    daemon: PathBuf,
    /// Directory of the programs that measure.
    tools: PathBuf,
    /// Directory of the stock policies.
    policies: PathBuf,
    /// A policy that can be told to compute for ever.
    hostile: PathBuf,
    /// A job for the embedded runner that ends at once.
    probe: PathBuf,
    /// A directory below target, empty in the beginning.
    dir: PathBuf,
}

impl Bench {
    fn at(layout: &Layout) -> Result<Self> {
        let tools = layout.target("release");
        let guests = layout.target(TARGET).join("guest");
        Ok(Self {
            daemon: tools.join("offloader"),
            tools,
            policies: layout.target("policies"),
            hostile: guests.join("misbehave.wasm"),
            probe: guests.join("job-probe.wasm"),
            dir: fresh_dir(layout.target("bench"))?,
        })
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    fn dir(&self, name: &str) -> Result<PathBuf> {
        make_dir(self.dir.join(name))
    }
}

/// Builds all that is measured and all that measures.
async fn build(layout: &Layout) -> Result<()> {
    let step = Step::begin("building the stock policies");
    guests::build(layout).await?;
    let mut build = command(cargo());
    build
        .current_dir(layout.root())
        .args(["build", "--profile", "guest", "--target", TARGET])
        .args(["--package", "misbehave"]);
    run_to_end(&mut build).await?;
    let step = step.next("building the release of the daemon, and what measures it");
    let mut build = command(cargo());
    build
        .current_dir(layout.root())
        .args(["build", "--release"]);
    for package in [
        "offloader",
        "offloader-bench",
        "offloader-policy-host",
        "offloader-store",
    ] {
        build.args(["--package", package]);
    }
    build.arg("--bins");
    for example in ["decisions", "fill", "durable"] {
        build.args(["--example", example]);
    }
    run_to_end(&mut build).await?;
    step.end();
    Ok(())
}

/// Measures what was asked for and prints it as a table.
pub(crate) async fn run(layout: &Layout, options: &Options) -> Result<()> {
    if !options.built {
        build(layout).await?;
    }
    let bench = Bench::at(layout)?;
    let wanted = |part: Part| part.is_among(&options.parts);
    let engine = Engine::find_or_start(layout).await?;
    let mut report = Report::begin().await?;

    if wanted(Part::Policy) {
        let step = Step::begin("decisions of policies");
        policy::measure(&bench, &mut report).await?;
        step.end();
    }
    if wanted(Part::Memory) {
        let step = Step::begin("memory");
        memory::measure(&bench, &engine, &mut report).await?;
        step.end();
    }
    if wanted(Part::Startup) {
        let step = Step::begin("starts");
        startup::measure(&bench, &engine, &mut report).await?;
        step.end();
    }
    if wanted(Part::Http) {
        let step = Step::begin("answers under load");
        http::measure(&bench, &engine, &mut report).await?;
        step.end();
    }
    if wanted(Part::Rate) {
        let step = Step::begin("jobs inside the service");
        rate::measure(&bench, &mut report).await?;
        step.end();
    }
    if wanted(Part::History) {
        let step = Step::begin("a long history");
        history::measure(&bench, &engine, &mut report).await?;
        step.end();
    }
    if wanted(Part::Adoption) {
        let step = Step::begin("starts after a crash");
        adoption::measure(&bench, &engine, &mut report).await?;
        step.end();
    }
    if wanted(Part::Starts) {
        let step = Step::begin("containers");
        starts::measure(&bench, &engine, &mut report).await?;
        step.end();
    }

    report.end().await?;
    println!("\n{report}");
    if let Some(file) = &options.json {
        write_json(file, &report)?;
    }
    Ok(())
}

fn write_json(file: &Path, report: &Report) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("writing the report as JSON")?;
    fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}

/// The directory, without what an earlier run left in it.
fn fresh_dir(dir: PathBuf) -> Result<PathBuf> {
    if let Err(error) = fs::remove_dir_all(&dir)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing {}", dir.display()));
    }
    make_dir(dir)
}
