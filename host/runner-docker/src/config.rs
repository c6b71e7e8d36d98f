//! How to reach the engine, and what bounds the runner sets of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::InstanceId;

/// Configuration of a [`crate::DockerRunner`]. The first four are what Docker's own clients read
/// from the environment variables of these names.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// `DOCKER_HOST`: `unix:///path`, `tcp://host:port`, `http://…` or `https://…`. `None` or an
    /// empty text is `unix:///var/run/docker.sock`.
    pub host: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set: speak TLS. Needs `cert_path`. Certificates are always
    /// verified where TLS is spoken.
    pub tls_verify: bool,
    /// `DOCKER_CERT_PATH`: the folder with `ca.pem`, `cert.pem` and `key.pem`. Makes `tcp://`
    /// speak TLS.
    pub cert_path: Option<PathBuf>,
    /// `DOCKER_API_VERSION`, for example `1.41`. `None`: the newest that both sides know.
    pub api_version: Option<String>,
    /// The installation whose containers these are.
    pub instance: InstanceId,
    /// A pull that makes no progress for this long has stalled.
    pub pull_stall_timeout: Duration,
    /// The engine keeps at most this many bytes of a container's output in one file…
    pub log_file_bytes: u64,
    /// …and this many files; the oldest output goes first.
    pub log_files: u32,
    /// Tells how many bytes are free on the disk of a path on this machine, which is used where the
    /// engine is on this machine too. `None`: nobody asks.
    pub free_bytes: Option<fn(&Path) -> io::Result<u64>>,
}

impl DockerConfig {
    /// The defaults: the local engine, 60 s until a pull has stalled, 1 GB of output kept.
    #[must_use]
    pub fn new(instance: InstanceId) -> Self {
        Self {
            host: None,
            tls_verify: false,
            cert_path: None,
            api_version: None,
            instance,
            pull_stall_timeout: Duration::from_secs(60),
            log_file_bytes: 100_000_000,
            log_files: 10,
            free_bytes: None,
        }
    }
}
