//! Asks a server for the same thing again and again, over connections that stay open, each with one
//! request under way.
//!
//! It takes little of the machine, which the server needs: one thread, one write and mostly one read
//! a request, and no parsing but of the first answer on each connection. Every later answer has to
//! be as long and to begin alike.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use offloader_bench::Sample;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Time before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// What the first line of every answer begins with.
const OK: &[u8] = b"HTTP/1.1 200 ";
/// No answer that is measured is larger.
const LARGEST: usize = 1 << 20;

#[derive(Parser)]
struct Options {
    /// HOST:PORT of the server
    address: String,
    /// The path to ask for
    path: String,
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
    let authorization = options
        .user
        .map(|user| format!("Authorization: Basic {}\r\n", STANDARD.encode(user)));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n{}\r\n",
        options.path,
        options.address,
        authorization.unwrap_or_default()
    );
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(options.seconds);
    let mut connections = JoinSet::new();
    for _ in 0..options.connections {
        let address = options.address.clone();
        let request = request.clone().into_bytes();
        connections.spawn(async move {
            let mut connection = Connection::open(&address, request).await?;
            connection.ask_until(begin, end).await
        });
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

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Bytes of an answer.
    length: usize,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str, request: Vec<u8>) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            request,
            length: 0,
            buffer: vec![0; LARGEST],
        };
        connection.length = connection.first_answer().await?;
        Ok(connection)
    }

    /// Asks until `end`; returns how many microseconds each answer took that came after `begin`.
    async fn ask_until(&mut self, begin: Instant, end: Instant) -> Result<Vec<f64>> {
        let mut micros = Vec::new();
        loop {
            let asked = Instant::now();
            self.stream.write_all(&self.request).await?;
            let answer = &mut self.buffer[..self.length];
            self.stream.read_exact(answer).await?;
            let now = Instant::now();
            ensure!(
                answer.starts_with(OK),
                "another answer: {}",
                String::from_utf8_lossy(answer)
            );
            if now >= end {
                return Ok(micros);
            }
            if now >= begin {
                micros.push((now - asked).as_secs_f64() * 1e6);
            }
        }
    }

    /// Asks once and returns the length of the answer.
    async fn first_answer(&mut self) -> Result<usize> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(more > 0, "the server closed the connection");
            filled += more;
            if let Some(length) = length(&self.buffer[..filled])?
                && filled >= length
            {
                ensure!(filled == length, "the server sent more than its answer");
                return Ok(length);
            }
        }
    }
}

/// Bytes of an answer with head and body, once its head is there.
fn length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..head]).context("a head that is not text")?;
    ensure!(answer.starts_with(OK), "not answered with 200: {text}");
    let body: usize = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("an answer without Content-Length")?
        .1
        .trim()
        .parse()?;
    let length = head + 4 + body;
    ensure!(length <= LARGEST, "an answer of {length} bytes");
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_head_and_body() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n";
        assert_eq!(length(head).unwrap(), None);
        let whole = [&head[..], b"\r\nhello"].concat();
        assert_eq!(length(&whole).unwrap(), Some(whole.len()));
        assert!(length(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(length(b"HTTP/1.1 200 OK\r\nx: 1\r\n\r\n").is_err());
    }
}
