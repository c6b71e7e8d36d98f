//! `offloader policy …`: what policy authors and administrators do with policies outside of the
//! service, in the sandbox that the service runs them in.

mod bench;
mod candidate;
mod cases;
mod facts;
mod inspect;
mod replay;
mod selftest;
mod test;

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Subcommand;
use tracing_subscriber::EnvFilter;

use crate::say;

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell what a policy's file has in it: hooks, imports, what it would need granted, and whether
    /// it would load.
    Inspect(inspect::Options),
    /// Ask a policy about the cases of a file, and compare its answers with what the file expects.
    Test(test::Options),
    /// Measure how long decisions of a policy take, alone and with all processors busy, beside the
    /// same component on bare WebAssembly.
    Bench(bench::Options),
    /// Try to break out of the sandbox on this machine, with a few policies made for it, and tell
    /// whether every limit bites.
    Selftest(selftest::Options),
    /// Ask a policy what was asked of another one, out of the store of a service that may be running,
    /// and list what would have been decided otherwise.
    Replay(replay::Options),
}

/// All is well.
const FINE: u8 = 0;
/// Something was found.
const FOUND: u8 = 1;
/// It could not be tried.
const NOT_TRIED: u8 = 2;

/// Does it, and gives the exit code.
pub(crate) fn run(command: &PolicyCommand) -> u8 {
    show_what_policies_print();
    let result = match command {
        PolicyCommand::Inspect(options) => inspect::run(options),
        PolicyCommand::Test(options) => test::run(options),
        PolicyCommand::Bench(options) => bench::run(options),
        PolicyCommand::Selftest(options) => selftest::run(options),
        PolicyCommand::Replay(options) => replay::run(options),
    };
    match result {
        Ok(true) => FINE,
        Ok(false) => FOUND,
        Err(error) => {
            say(format!("{error:#}")
                .lines()
                .map(|line| format!("error: {line}")));
            NOT_TRIED
        }
    }
}

/// What a policy writes goes to standard error; nothing else is logged by these commands.
fn show_what_policies_print() {
    let format = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_env_filter(EnvFilter::new("off,offloader_policy_host::policy=info"));
    // Only the first in a process can be set, and there is one command in a process.
    let _ = format.try_init();
}

/// Lines for standard output. Nobody to read them is no reason to fail.
fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
}

/// A duration in the largest unit that it is a whole number of.
fn text_of_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    let whole = |(_, unit): &&(&str, u128)| millis >= *unit && millis.is_multiple_of(*unit);
    match units.iter().find(whole) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}
