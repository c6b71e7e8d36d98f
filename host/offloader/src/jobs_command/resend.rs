//! `offloader jobs resend`: lets what a job could not deliver be sent in again.

use std::time::Duration;

use clap::Args;
use domain::JobId;
use serde_json::Value;

use super::client::{Client, Failure};
use super::{Id, print, print_logs, show};

/// How often it is looked how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct Resend {
    #[command(flatten)]
    job: Id,
    /// Print its log and wait for its end; exit with 0 only if all was delivered.
    #[arg(short, long)]
    follow: bool,
}

impl Resend {
    pub(crate) async fn run(&self, client: &Client, json: bool) -> Result<(), Failure> {
        let id = &self.job.id;
        let resend = client.start(&format!("/jobs/{id}/resend")).await?;
        let text = resend["id"].as_str().unwrap_or_default();
        let resend_id: JobId = text
            .parse()
            .map_err(|_| Failure::Unreached("this is no job service".to_owned()))?;
        if !self.follow {
            return print(&if json {
                show::json(&resend)
            } else {
                show::resending(id, &resend_id)
            });
        }
        if !json {
            match print_logs(client, &resend_id, true).await {
                // It was as fast as that.
                Err(failure) if failure.is_not_found() => {}
                printed => printed?,
            }
        }
        let resend = until_over(client, &resend_id).await?;
        let delivered = resend["delivery"] == "delivered";
        if json {
            print(&show::json(&resend))?;
        } else if delivered {
            print(&show::resent(id))?;
        }
        if delivered {
            return Ok(());
        }
        let reason = resend["reason"].as_str().unwrap_or("unknown reason");
        Err(Failure::Undelivered(format!(
            "job {resend_id} ended without having delivered all ({reason}); job {id} keeps it"
        )))
    }
}

/// The job once it is over, and what came of it has been told wherever it matters.
async fn until_over(client: &Client, id: &JobId) -> Result<Value, Failure> {
    loop {
        let job = client.get(&format!("/jobs/{id}")).await?;
        if let Some("retained" | "removing" | "removed") = job["state"].as_str() {
            return Ok(job);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
