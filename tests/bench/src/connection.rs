//! A connection to a server that stays open, as cheap as can be: it shares the machine with the server
//! that is measured.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the first line of every answer begins with.
const OK: &[u8] = b"HTTP/1.1 200 ";
/// No answer that is measured is larger.
const LARGEST: usize = 1 << 20;

/// A connection with one request under way at most.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; LARGEST],
        })
    }

    /// Sends a request and reads its answer, head and body.
    ///
    /// # Errors
    /// When it is answered with anything but 200.
    pub async fn ask(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(more > 0, "the server closed the connection");
            filled += more;
            if let Some(length) = length(&self.buffer[..filled])?
                && filled >= length
            {
                ensure!(filled == length, "the server sent more than its answer");
                return Ok(&self.buffer[..length]);
            }
        }
    }

    /// Asks for what is known to have an answer of `length` bytes, and looks at no more of it than its
    /// first line.
    ///
    /// # Errors
    /// When it is answered with anything but 200.
    pub async fn ask_again(&mut self, request: &[u8], length: usize) -> Result<()> {
        self.stream.write_all(request).await?;
        let answer = &mut self.buffer[..length];
        self.stream.read_exact(answer).await?;
        ensure!(
            answer.starts_with(OK),
            "another answer: {}",
            String::from_utf8_lossy(answer)
        );
        Ok(())
    }
}

/// The head of a request, up to the empty line. `user` is `CLIENT:KEY`.
#[must_use]
pub fn head(method: &str, path: &str, address: &str, user: Option<&str>) -> String {
    let authorization = user
        .map(|user| format!("Authorization: Basic {}\r\n", STANDARD.encode(user)))
        .unwrap_or_default();
    format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}")
}

/// Bytes of an answer with head and body, once its head is there.
fn length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..head]).context("a head that is not text")?;
    ensure!(
        answer.starts_with(OK),
        "not answered with 200: {}",
        String::from_utf8_lossy(answer)
    );
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
