//! Asks a server for the same things again and again, over connections that stay open, each with one
//! request under way.
//!
//! It takes little of the machine, which the server needs: one thread, one write and mostly one read
//! a request, and no parsing but of the first answers on each connection. Every later answer has to
//! be as long as the first for the same path and to begin alike.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use offloader_bench::{Connection, Sample, head};
use serde_json::json;
use tokio::task::JoinSet;

/// Time before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Parser)]
struct Options {
    /// HOST:PORT of the server
    address: String,
    /// The paths to ask for, in turns
    #[arg(required = true)]
    paths: Vec<String>,
    /// How long to ask, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections, all busy
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// CLIENT:KEY to authenticate with
    #[arg(long)]
    user: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let user = options.user.as_deref();
    let request = |path: &String| head("GET", path, &options.address, user).into_bytes();
    let requests: Vec<_> = options.paths.iter().map(request).collect();
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(options.seconds);
    let mut connections = JoinSet::new();
    for _ in 0..options.connections {
        let connection = Connection::open(&options.address).await?;
        connections.spawn(ask(connection, requests.clone(), begin, end));
    }
    let mut micros = Vec::new();
    while let Some(taken) = connections.join_next().await {
        micros.extend(taken??);
    }
    ensure!(!micros.is_empty(), "no answer came in time");
    let per_second = micros.len() as f64 / options.seconds;
    let sample = Sample::new(micros);
    println!(
        "{}",
        json!({
            "per_second": per_second,
            "p50_us": sample.quantile(0.5),
            "p99_us": sample.quantile(0.99),
        })
    );
    Ok(())
}

/// Asks until `end`; returns how many microseconds each answer took that came after `begin`.
async fn ask(
    mut connection: Connection,
    mut requests: Vec<Vec<u8>>,
    begin: Instant,
    end: Instant,
) -> Result<Vec<f64>> {
    let mut lengths = Vec::new();
    for request in &mut requests {
        request.extend(b"\r\n");
        lengths.push(connection.ask(request).await?.len());
    }
    let mut micros = Vec::new();
    for (request, length) in requests.iter().zip(lengths).cycle() {
        let asked = Instant::now();
        connection.ask_again(request, length).await?;
        let now = Instant::now();
        if now >= end {
            break;
        }
        if now >= begin {
            micros.push((now - asked).as_secs_f64() * 1e6);
        }
    }
    Ok(micros)
}
