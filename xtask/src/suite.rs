//! `cargo xtask test`: every check and test there is, and an honest count at the end.

mod totals;

use std::env;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use self::totals::Totals;
use crate::chaos;
use crate::demo;
use crate::engine::Engine;
use crate::guests::{POLICIES, TARGET, cargo};
use crate::host;
use crate::layout::{Layout, host_is_root};
use crate::process::{Job, command, run as run_to_end};
use crate::stage::{Built, Stage, Step, build_daemon_with_fault_points};

/// How much to do.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also what takes long: ten thousand cases for each property, tests that ask for it
    #[arg(long)]
    slow: bool,
}

const SLOW_CASES: &str = "10000";

/// Runs everything, also after a failure, so that one run tells all of them.
pub(crate) async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let began = Instant::now();
    let mut failed = Vec::new();
    let mut note = |name: &str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("FAILED: {name}: {error:#}");
            failed.push(name.to_owned());
        }
    };

    for (name, check) in checks(layout) {
        note(name, checked(name, check).await);
    }
    // Before the other, so that the last daemon that is built is the one that sites get.
    let step = Step::begin("building the daemon with fault points");
    let with_fault_points = build_daemon_with_fault_points(layout).await?;
    step.end();
    let built = Built::build_with_tests(layout).await?;
    let mut stage = stage(layout).await?;
    let skips = layout.target("skipped-tests");
    let _ = fs::remove_file(&skips);

    let mut totals = Totals::default();
    let mut tests = cargo_in(layout, &["test", "--no-fail-fast"]);
    tests.arg("--workspace");
    tests
        .env("OFFLOADER_BIN", &built.daemon)
        .env("OFFLOADER_FAULTS_BIN", &with_fault_points)
        .env("OFFLOADER_POLICIES", &built.policies);
    tests.env("OFFLOADER_TEST_SKIPS", &skips);
    if let Some(stage) = &stage {
        let engine = stage.engine.host();
        tests
            .env("OFFLOADER_TEST_ENGINE", engine)
            .env("DOCKER_HOST", engine);
        tests.env("OFFLOADER_TEST_REGISTRY", stage.registry.address());
    }
    if options.slow {
        tests
            .env("OFFLOADER_TEST_SLOW", "1")
            .env("PROPTEST_CASES", SLOW_CASES);
    }
    println!("· tests …");
    note("tests", count(&mut tests, &mut totals).await);
    for program in stage.iter().flat_map(|_| ["common", "transcriber"]) {
        let name = format!("tests of examples/images/{program}");
        note(&name, checked(&name, example_tests(layout, program)).await);
    }

    let mut skipped = totals::skipped(&skips)?;
    totals.without(skipped.len());
    if stage.is_some() && host_is_root() {
        println!("· chaos …");
        note("chaos", chaos::a_minute().await);
    } else {
        skipped.push("chaos".to_owned());
    }
    match &mut stage {
        Some(stage) => {
            println!("· the demo …");
            note("demo", demo::hold(layout, &built, stage).await);
        }
        None => skipped.push("the demo".to_owned()),
    }
    println!("· the demo without a container engine …");
    let embedded = demo::embedded::hold(layout, &built).await;
    note("demo --embedded", embedded);
    drop(stage);

    println!("\n{totals}");
    if !skipped.is_empty() {
        println!(
            "{} skipped, having no container engine: {}",
            skipped.len(),
            skipped.join(", ")
        );
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    if !failed.is_empty() {
        bail!("failed after {minutes:.1} minutes: {}", failed.join(", "));
    }
    println!("All that was run passed, in {minutes:.1} minutes.");
    Ok(())
}

/// What needs nothing prepared.
fn checks(layout: &Layout) -> Vec<(&'static str, Command)> {
    let mut guests = cargo_in(layout, &["clippy", "--target", TARGET]);
    for guest in POLICIES
        .iter()
        .chain(&["misbehave", "job-probe", "stand-in"])
    {
        guests.args(["--package", guest]);
    }
    guests.args(["--", "--deny", "warnings"]);
    let mut docs = cargo_in(
        layout,
        &["doc", "--no-deps", "--document-private-items", "--quiet"],
    );
    docs.env("RUSTDOCFLAGS", "--deny warnings");
    let simulate = |arguments: &[&str]| {
        let mut simulate = cargo_in(layout, &["run", "--quiet", "--release"]);
        simulate.args(["--package", "offloader-engine", "--features", "simulation"]);
        simulate
            .args(["--example", "simulate", "--"])
            .args(arguments);
        simulate
    };
    vec![
        ("format", cargo_in(layout, &["fmt", "--all", "--check"])),
        (
            "lints",
            cargo_in(
                layout,
                &[
                    "clippy",
                    "--all-targets",
                    "--quiet",
                    "--",
                    "--deny",
                    "warnings",
                ],
            ),
        ),
        ("lints of the guests", guests),
        ("documentation", docs),
        (
            "simulated histories",
            simulate(&["--histories", "100000", "--threads", "2"]),
        ),
        (
            "simulated histories of a broken engine",
            simulate(&["--mutations", "--histories", "60000"]),
        ),
    ]
}

/// The unit tests of what runs in the example images; standard library only.
fn example_tests(layout: &Layout, program: &str) -> Command {
    let mut python = command("python3");
    python
        .current_dir(layout.root().join("examples/images"))
        .args(["-B", "-m", "unittest", "discover", "--quiet", "-s", program]);
    python
}

async fn checked(name: &str, mut check: Command) -> Result<()> {
    let step = Step::begin(name);
    let result = run_to_end(&mut check).await;
    step.end();
    result
}

/// The containers' side. Where no engine can be had that is an error under CI; by hand the tests that
/// need one are skipped, and named at the end.
async fn stage(layout: &Layout) -> Result<Option<Stage>> {
    let prepared = async {
        host::ensure(layout, host::CALL).await?;
        host::ensure(layout, host::EXAMPLES).await?;
        Engine::find_or_start(layout).await
    };
    match prepared.await {
        Ok(engine) => Stage::prepare(layout, engine).await.map(Some),
        Err(error) if env::var_os("CI").is_some_and(|value| !value.is_empty()) => Err(error),
        Err(error) => {
            eprintln!("no tests with containers: {error:#}");
            Ok(None)
        }
    }
}

/// Runs cargo test with its output on ours, and adds up what it says.
async fn count(tests: &mut Command, totals: &mut Totals) -> Result<()> {
    let mut job = Job::start(tests.stdout(Stdio::piped()))?;
    let output = job.stdout().context("cargo test has no output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines
        .next_line()
        .await
        .context("reading cargo test's output")?
    {
        println!("{line}");
        totals.add(&line);
    }
    let status = job.wait().await?;
    if !status.success() {
        bail!("cargo test: {status}");
    }
    Ok(())
}

fn cargo_in(layout: &Layout, args: &[&str]) -> Command {
    let mut cargo = command(cargo());
    cargo.current_dir(layout.root()).args(args);
    cargo
}
