//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::jobs_command::{self, JobsCommand};
use crate::policy_command::PolicyCommand;

/// Runs recording and transcription jobs for Mattermost Calls.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "offloader", version, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigFile,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  ended as asked
  1  failed while serving
  2  wrong arguments or wrong configuration; nothing was started
  3  could not start: address taken, store or certificate not usable, policy not loadable";

const POLICY_AFTER_HELP: &str = "\
Exit codes:
  0  all is well
  1  something was found: the policy does not load, a case failed, a limit does not bite, a
     decision would have been another
  2  wrong arguments, or a file that cannot be read or understood";

#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file; without one the defaults and the environment hold.
    #[arg(
        long = "config",
        value_name = "FILE",
        default_value = "config/config.toml"
    )]
    pub(crate) path: PathBuf,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the job API until SIGTERM or SIGINT. Containers of jobs go on running then, and the
    /// next start takes them up again.
    Serve(ConfigFile),
    /// Check the configuration and print what is in force, without its secrets.
    CheckConfig(ConfigFile),
    /// Look into policies, test and measure them, and replay what was decided.
    #[command(subcommand, after_help = POLICY_AFTER_HELP)]
    Policy(PolicyCommand),
    /// Look at the jobs of a service that runs, stop and delete them, read their logs, and fetch
    /// what they left.
    #[command(after_help = jobs_command::AFTER_HELP)]
    Jobs(JobsCommand),
}

impl Cli {
    /// The command, whether it was named or not.
    pub(crate) fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Command {
        Cli::try_parse_from([&["offloader"], arguments].concat())
            .unwrap()
            .command()
    }

    #[test]
    fn a_file_alone_serves() {
        for arguments in [
            &["--config", "x.toml"][..],
            &["serve", "--config", "x.toml"],
            &["serve", "--config=x.toml"],
        ] {
            let Command::Serve(config) = parse(arguments) else {
                panic!("{arguments:?}")
            };
            assert_eq!(config.path, PathBuf::from("x.toml"));
        }
        let Command::Serve(config) = parse(&[]) else {
            panic!("serves")
        };
        assert_eq!(config.path, PathBuf::from("config/config.toml"));
    }

    #[test]
    fn the_configuration_can_be_checked() {
        let Command::CheckConfig(config) = parse(&["check-config", "--config", "x.toml"]) else {
            panic!("checks")
        };
        assert_eq!(config.path, PathBuf::from("x.toml"));
    }

    #[test]
    fn the_command_line_makes_sense() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
