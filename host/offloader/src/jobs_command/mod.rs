//! `offloader jobs …`: looking at the jobs of a service that runs, and handling them, over its API.

mod client;
mod fetch;
mod resend;
mod show;

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use serde_json::Value;

use self::client::{Client, Connection, Failure};
use self::fetch::Fetch;
use self::resend::Resend;
use crate::ambient;

/// Which service, as whom, and what to do.
#[derive(Debug, Args)]
pub(crate) struct JobsCommand {
    #[command(flatten)]
    connection: Connection,
    /// Print what the service answered, as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
enum Act {
    /// List jobs, newest first, with what they hold that was not sent in, and when that will go.
    List {
        /// Only those in these states, with commas between them.
        #[arg(long)]
        state: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show a job with its attempts and the decisions of policies about it.
    Show(Id),
    /// Ask a job to end, with the grace of its type (administrator).
    Stop(Id),
    /// Delete a job that does not run: its container, its data and its record.
    Delete {
        #[command(flatten)]
        job: Id,
        /// Kill it first if it runs (administrator). What it has not sent in is lost.
        #[arg(long)]
        force: bool,
    },
    /// Print what a job's container wrote to standard output and standard error.
    Logs {
        #[command(flatten)]
        job: Id,
        /// Go on until the container ends.
        #[arg(short, long)]
        follow: bool,
    },
    /// Take what an ended job left out of its volume, as a tar archive (administrator).
    Fetch(Fetch),
    /// Start the upload of a job that could not deliver again, as a job of its own, where its image
    /// offers that (administrator). The token that it needs is the job's own: the site takes it for
    /// some hours after the call.
    Resend(Resend),
}

#[derive(Debug, Args)]
struct Id {
    /// The job's id.
    #[arg(value_name = "JOB", value_parser = job_id)]
    id: domain::JobId,
}

fn job_id(text: &str) -> Result<domain::JobId, String> {
    text.parse()
        .map_err(|error: domain::InvalidId| error.to_string())
}

/// What the exit codes mean, for the help.
pub(crate) const AFTER_HELP: &str = "\
Credentials come from files or from the environment, never from the command line:
  a client        --client ID, with --key-file FILE or OFFLOADER_KEY
  administrator   --admin-secret-file FILE or OFFLOADER_ADMIN_SECRET

Exit codes:
  0  done
  1  the service refused it, or failed
  2  wrong arguments or unusable credentials; nothing was asked
  3  the service was not reached, or the connection broke
  4  there is no such job, it is somebody else's, or there is nothing of it to print or fetch";

/// Does it, and gives the exit code.
pub(crate) fn run(command: &JobsCommand) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(|error| Failure::Unusable(error.to_string()))
        .and_then(|runtime| runtime.block_on(act(command)));
    match result {
        Ok(()) => 0,
        // Whoever reads, reads no further.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            crate::say([format!("error: {}", show::printable(&failure.to_string()))]);
            failure.exit_code()
        }
    }
}

async fn act(command: &JobsCommand) -> Result<(), Failure> {
    let client = Client::new(&command.connection)?;
    let json = command.json;
    match &command.act {
        Act::List { state, limit } => {
            let (jobs, more) = client.list(state.as_deref(), *limit).await?;
            if more {
                crate::say(["older jobs follow; a greater --limit lists them too".to_owned()]);
            }
            print(&if json {
                show::json(&Value::Array(jobs))
            } else {
                show::table(&jobs, ambient::wall_clock())
            })
        }
        Act::Show(Id { id }) => {
            let job = client.get(&format!("/jobs/{id}")).await?;
            print(&if json {
                show::json(&job)
            } else {
                show::job(&job, ambient::wall_clock())
            })
        }
        Act::Stop(Id { id }) => {
            let job = client.post(&format!("/jobs/{id}/stop")).await?;
            print(&if json {
                show::json(&job)
            } else {
                show::stopped(&job)
            })
        }
        Act::Delete { job, force } => {
            let query = if *force { "?force=1" } else { "" };
            let gone = client.delete(&format!("/jobs/{}{query}", job.id)).await?;
            print(&if json {
                show::json(&gone.unwrap_or(Value::Null))
            } else {
                show::deleted(&job.id, gone.as_ref())
            })
        }
        Act::Logs { job, follow } => print_logs(&client, &job.id, *follow).await,
        Act::Fetch(fetch) => fetch.run(&client, json).await,
        Act::Resend(resend) => resend.run(&client, json).await,
    }
}

/// Prints what a job's container wrote, and goes on until it ends where that is asked for.
async fn print_logs(client: &Client, id: &domain::JobId, follow: bool) -> Result<(), Failure> {
    let path = format!("/jobs/{id}/logs");
    let mut output = if follow {
        client.follow(&format!("{path}?follow=1")).await?
    } else {
        client.download(&path).await?
    };
    while let Some(bytes) = output.next().await? {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&bytes).and_then(|()| stdout.flush())?;
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}
