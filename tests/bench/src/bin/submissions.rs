//! Submits jobs over connections that stay open, each with one submission under way, and waits until
//! nothing is left of them but their records.
//!
//! Every submission has to be answered with 200, which says that the job is saved and runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use offloader_bench::{Connection, Sample, head};
use serde_json::json;
use tokio::task::JoinSet;

/// What stands in the body for the number of the job.
const NUMBER: &str = "NUMBER";
/// The states of jobs of which something is left.
const BUSY: &str = "preparing,waiting,starting,running,stopping,ended,removing";
/// Time between two looks whether anything is left.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Parser)]
struct Options {
    /// HOST:PORT of the server
    address: String,
    /// A file with the body of a submission, in which NUMBER stands for six digits
    #[arg(long)]
    body: PathBuf,
    /// The first job's number
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// How many jobs to submit
    #[arg(long)]
    jobs: u32,
    /// Connections, all busy
    #[arg(long)]
    connections: u32,
    /// CLIENT:KEY to authenticate with
    #[arg(long)]
    user: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    #[expect(
        clippy::disallowed_methods,
        reason = "a program for measuring opens what it is told to"
    )]
    let body = std::fs::read_to_string(&options.body)
        .with_context(|| format!("reading {}", options.body.display()))?;
    let (address, user) = (&options.address, Some(options.user.as_str()));
    let submission = Submission::new(&head("POST", "/jobs", address, user), &body);
    let next = Arc::new(AtomicU32::new(options.first));
    let end = options.first + options.jobs;
    let mut open = Vec::new();
    for _ in 0..options.connections {
        open.push(Connection::open(address).await?);
    }
    let begin = Instant::now();
    let mut connections = JoinSet::new();
    for connection in open {
        connections.spawn(submit(
            connection,
            submission.clone(),
            Arc::clone(&next),
            end,
        ));
    }
    let mut millis = Vec::new();
    while let Some(taken) = connections.join_next().await {
        millis.extend(taken??);
    }
    let answered = begin.elapsed();
    all_tidied_up(address, user).await?;
    let tidied = begin.elapsed();
    let per_second = |time: Duration| f64::from(options.jobs) / time.as_secs_f64();
    let sample = Sample::new(millis);
    println!(
        "{}",
        json!({
            "answered_per_second": per_second(answered),
            "per_second": per_second(tidied),
            "p50_ms": sample.quantile(0.5),
            "p99_ms": sample.quantile(0.99),
        })
    );
    Ok(())
}

/// A request whose number can be changed.
#[derive(Clone)]
struct Submission {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
}

impl Submission {
    fn new(head: &str, body: &str) -> Self {
        let text = format!(
            "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self {
            numbers: text.match_indices(NUMBER).map(|(at, _)| at).collect(),
            bytes: text.into_bytes(),
        }
    }

    fn of(&mut self, number: u32) -> &[u8] {
        let digits = format!("{number:0width$}", width = NUMBER.len());
        for at in &self.numbers {
            self.bytes[*at..*at + NUMBER.len()].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}

/// Submits until the numbers are used up; returns how many milliseconds each answer took.
async fn submit(
    mut connection: Connection,
    mut submission: Submission,
    next: Arc<AtomicU32>,
    end: u32,
) -> Result<Vec<f64>> {
    let mut millis = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return Ok(millis);
        }
        let asked = Instant::now();
        let answer = connection.ask(submission.of(number)).await;
        answer.with_context(|| format!("submission {number}"))?;
        millis.push(asked.elapsed().as_secs_f64() * 1e3);
    }
}

/// Returns when no job is left that has not been removed.
async fn all_tidied_up(address: &str, user: Option<&str>) -> Result<()> {
    let path = format!("/jobs?limit=1&state={BUSY}");
    let request = head("GET", &path, address, user) + "\r\n";
    let mut connection = Connection::open(address).await?;
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = connection.ask(request.as_bytes()).await?;
        if answer.windows(9).any(|part| part == b"\"jobs\":[]") {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "some jobs do not end");
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_submission_has_its_number_wherever_it_belongs() {
        let mut submission =
            Submission::new("POST / HTTP/1.1\r\n", r#"{"a":"NUMBER","b":"xNUMBER"}"#);
        let length = submission.of(7).len();
        let text = String::from_utf8(submission.of(123_456).to_vec()).unwrap();
        assert!(
            text.ends_with("Content-Length: 28\r\n\r\n{\"a\":\"123456\",\"b\":\"x123456\"}"),
            "{text}"
        );
        assert_eq!(text.len(), length);
    }
}
