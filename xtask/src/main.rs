//! `cargo xtask`: what a developer of Offloader runs beside plain cargo.
//!
//! Everything here prepares real things (a container engine, a registry, images, policies) and tidies
//! them up again, also when a step fails or the run is interrupted: whatever is started is held by a
//! guard, and an interrupt drops the command's future and with it every guard.
#![allow(
    clippy::disallowed_methods,
    reason = "a developer's tool works on the checkout and its environment directly"
)]

mod bench;
mod chaos;
mod demo;
mod engine;
mod guests;
mod host;
mod images;
mod layout;
mod registry;
mod stage;
mod suite;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use offloader_system_tests::process;
use tokio::signal::unix::{SignalKind, signal};

use crate::layout::Layout;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Developer commands of Offloader"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the stock policies to WebAssembly, into target/policies
    Guests,
    /// A container engine of this checkout's own
    #[command(subcommand)]
    Engine(EngineCommand),
    /// Build the example images in the engine that would be used
    Images,
    /// Hold a call that is recorded and transcribed by real containers, and look at what came of it
    Demo(demo::Options),
    /// Every check and test there is: format, lints, documentation, unit and system tests, the demo
    Test(suite::Options),
    /// Let things happen to a daemon and its container engine in random order, and see whether it keeps
    /// its promises
    Chaos(chaos::Options),
    /// Measure the release build, beside the least that the same work can cost
    Bench(bench::Options),
}

#[derive(Subcommand)]
enum EngineCommand {
    /// Start it and leave it running; prints the DOCKER_HOST to use
    Start,
    /// Stop it and remove its network; its images are kept
    Stop,
    /// Say which engine the other commands would use
    Status,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    let done = async { run(command, &Layout::of_this_checkout()?).await };
    let result = tokio::select! {
        done = done => done,
        name = interrupted() => name.and_then(|name| bail!("interrupted by {name}")),
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("because: {cause}");
    }
    ExitCode::FAILURE
}

async fn run(command: Command, layout: &Layout) -> Result<()> {
    // Two runs in one checkout would share engine, registry and ports.
    let _lock = layout.lock()?;
    match command {
        Command::Guests => guests::build(layout).await.map(drop),
        Command::Engine(EngineCommand::Start) => engine::start(layout).await,
        Command::Engine(EngineCommand::Stop) => engine::stop(layout).await,
        Command::Engine(EngineCommand::Status) => engine::status(layout).await,
        Command::Images => {
            let engine = engine::Engine::find_or_start(layout).await?;
            images::build_all(layout, &engine).await
        }
        Command::Demo(options) => demo::run(layout, &options).await,
        Command::Test(options) => suite::run(layout, &options).await,
        Command::Chaos(options) => chaos::run(layout, &options).await,
        Command::Bench(options) => bench::run(layout, &options).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("Ctrl-C"),
    }
}
