//! Offloader: the job service of Mattermost Calls.

mod ambient;
mod cli;
mod clock;
mod config;
mod config_file;
mod connections;
mod job_output;
mod jobs_command;
mod listen;
mod logging;
mod metrics;
mod policies;
mod policy_command;
mod policy_grants;
mod runner;
mod serve;
mod state;
mod systemd;
mod watching;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command, ConfigFile};
use config::{Loaded, Problem};
use config_file::ConfigFileError;

/// What one thread takes another often gives back here, which costs the system's allocator dearly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ended as asked.
const DONE: u8 = 0;
/// Failed while serving.
const FAILED: u8 = 1;
/// Wrong arguments or configuration; clap uses the same.
const MISCONFIGURED: u8 = 2;
/// Could not start.
const NOT_STARTED: u8 = 3;

fn main() -> ExitCode {
    let code = match Cli::parse().command() {
        Command::Serve(config) => serve(&config),
        Command::CheckConfig(config) => check_config(&config),
        Command::Policy(command) => policy_command::run(&command),
        Command::Jobs(command) => jobs_command::run(&command),
    };
    ExitCode::from(code)
}

fn check_config(file: &ConfigFile) -> u8 {
    match load(&file.path) {
        Ok((loaded, _)) => {
            say(loaded
                .warnings
                .iter()
                .map(|warning| format!("warning: {warning}")));
            let _ = io::stdout().write_all(loaded.config.show().as_bytes());
            DONE
        }
        Err(code) => code,
    }
}

fn serve(file: &ConfigFile) -> u8 {
    let (loaded, has_file) = match load(&file.path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let Loaded { config, warnings } = loaded;
    let log = match logging::start(&config.logger) {
        Ok(log) => log,
        Err(error) => {
            say([format!("error: {error:#}")]);
            return NOT_STARTED;
        }
    };
    tell_about(&config, &warnings, &file.path, has_file);
    let console = config.logger.console.is_some();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(|error| (NOT_STARTED, error.into()))
        .and_then(|runtime| {
            runtime.block_on(async {
                let service = serve::start(config, (file.path.clone(), has_file))
                    .await
                    .map_err(|error| (NOT_STARTED, error))?;
                service.run().await.map_err(|error| (FAILED, error))
            })
        });
    let code = match result {
        Ok(()) => DONE,
        Err((code, error)) => {
            tracing::error!("{error:#}");
            // Whoever started it by hand sees why it ended, also without a log on the console.
            if !console {
                say([format!("error: {error:#}")]);
            }
            code
        }
    };
    drop(log);
    code
}

/// The configuration, and whether there was a file of it.
fn load(path: &Path) -> Result<(Loaded, bool), u8> {
    config_file::read(path).map_err(|error| {
        match error {
            ConfigFileError::Unreadable { .. } => say([format!("error: {error}")]),
            ConfigFileError::Wrong(wrong) => {
                let (problems, warnings) = (wrong.problems.iter(), wrong.warnings.iter());
                say(problems.map(|problem| format!("error: {problem}")));
                say(warnings.map(|warning| format!("warning: {warning}")));
            }
        }
        MISCONFIGURED
    })
}

fn tell_about(config: &config::Config, warnings: &[Problem], path: &Path, has_file: bool) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "starting");
    if !has_file {
        tracing::warn!(
            "there is no file {}; the defaults and the environment hold",
            path.display()
        );
    }
    for warning in warnings {
        tracing::warn!("configuration: {warning}");
    }
    for (on, name) in [
        (config.modes.dev, "DEV_MODE"),
        (config.modes.test, "TEST_MODE"),
    ] {
        if on {
            tracing::warn!(
                "{name} IS ON: clients may ask for any runner image. Never do this in production."
            );
        }
    }
    if config.modes.dev {
        tracing::warn!(
            "DEV_MODE IS ON: jobs use the host's network and their number has no limit."
        );
    }
}

/// Lines for whoever started the program.
fn say(lines: impl IntoIterator<Item = String>) {
    let mut out = io::stderr().lock();
    for line in lines {
        // Nobody to tell is no reason to fail.
        let _ = writeln!(out, "{line}");
    }
}
