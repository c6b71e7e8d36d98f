//! Processes to measure: the daemon with and without policies, and the bare server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

use super::Bench;
use crate::process::Service;
use crate::registry::free_port;

const GRACE: Duration = Duration::from_secs(15);
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Time between two knocks at a door that is closed yet.
const KNOCK: Duration = Duration::from_micros(200);

/// What names the daemon's containers.
pub(super) const INSTANCE: &str = "bench";

/// The administrator's secret, where there is one.
pub(super) const ADMIN_SECRET: &str = "the administrator of what is measured";

/// What is common to all configurations. More jobs than any of them runs at a time, because one that
/// has ended keeps its place until it is tidied up.
fn common(instance: &str) -> String {
    format!(
        r#"
[api]
security.allow_self_registration = true
security.enable_admin = true
security.admin_secret_key = "{ADMIN_SECRET}"
[jobs]
instance = "{instance}"
max_concurrent_jobs = 1000
"#
    )
}

/// A process that answers. Dropping it ends it by SIGTERM.
pub(super) struct Server {
    service: Service,
    address: SocketAddr,
    began: Instant,
}

impl Server {
    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.service.pid()
    }

    /// Ends it at once, by SIGKILL.
    pub(super) fn kill(self) {
        self.service.kill();
    }

    /// Time since its start.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Time from its start to its first answer 200 on this path. Blocks, and asks again and again.
    pub(super) fn first_answer(&mut self, path: &str) -> Result<Duration> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        loop {
            if let Ok(answer) = ask(self.address, &request) {
                if answer.starts_with(b"HTTP/1.1 200 ") {
                    return Ok(self.began.elapsed());
                }
                bail!("{path} is answered: {}", String::from_utf8_lossy(&answer));
            }
            self.service.check()?;
            if self.began.elapsed() > ANSWERS_WITHIN {
                bail!(
                    "no answer in {ANSWERS_WITHIN:?}; see {}",
                    self.service.log().display()
                );
            }
            thread::sleep(KNOCK);
        }
    }
}

fn ask(address: SocketAddr, request: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// A daemon that can be started again and again: its directory keeps configuration and state.
pub(super) struct Daemon {
    binary: PathBuf,
    dir: PathBuf,
    engine: String,
}

impl Daemon {
    /// A daemon without policies, which shares no container with those of other names.
    pub(super) fn without_policies(bench: &Bench, name: &str, engine: &str) -> Result<Self> {
        let config = common(&format!("{INSTANCE}-{name}"));
        Self::with_config(bench, name, engine, &config)
    }

    /// A daemon with the four stock policies, which take what the client asks for to `registry` and to
    /// another site.
    pub(super) fn with_policies(
        bench: &Bench,
        name: &str,
        engine: &str,
        registry: &str,
    ) -> Result<Self> {
        let (common, policies) = (common(INSTANCE), bench.policies.display());
        let config = format!(
            r#"{common}
[gate]
registries = ["mattermost", "{registry}"]
[policies]
dir = "{policies}"
[[policies.policy]]
name = "local-images"
component = "image_map.wasm"
settings = {{ registries = {{ "mattermost" = "{registry}" }} }}
[[policies.policy]]
name = "inside-url"
component = "site_url_map.wasm"
settings = {{ recording = "http://10.0.0.5:8065", transcribing = "http://10.0.0.5:8065" }}
[[policies.policy]]
name = "retry-start"
component = "retry_backoff.wasm"
settings = {{ attempts = 3, first_delay = "2s", factor = 2, max_delay = "10s" }}
[[policies.policy]]
name = "keep-failed"
component = "retention_rules.wasm"
settings = {{ delivered = "delete", never-ran = "delete", failed = "7d", unsent = "30d" }}
"#
        );
        Self::with_config(bench, name, engine, &config)
    }

    /// A daemon without a container engine, in which the component `program` runs as `image`.
    pub(super) fn embedded(bench: &Bench, name: &str, image: &str, program: &Path) -> Result<Self> {
        let dir = program.parent().context("a component is in a directory")?;
        let file = program.file_name().context("a component has a name")?;
        let config = format!(
            r#"{}
api_type = "wasi"
[jobs.wasi]
components = {dir:?}
[jobs.wasi.images]
"{image}" = {file:?}
"#,
            common(INSTANCE)
        );
        // Not asked for by this configuration, so that it need not be there.
        Self::with_config(bench, name, "unix:///nowhere.sock", &config)
    }

    /// The file that it keeps its jobs in.
    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("state/offloader.db")
    }

    fn with_config(bench: &Bench, name: &str, engine: &str, config: &str) -> Result<Self> {
        let dir = bench.dir(name)?;
        let path = dir.join("config.toml");
        fs::write(&path, config).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self {
            binary: bench.daemon.clone(),
            dir,
            engine: engine.to_owned(),
        })
    }

    /// Starts it.
    pub(super) fn start(&self) -> Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env("API_HTTP_LISTENADDRESS", address.to_string())
            .env("STORE_DATASOURCE", self.dir.join("state"))
            .env("DOCKER_HOST", &self.engine);
        spawn("offloader", command, address, &self.dir)
    }
}

/// Starts the bare server with the bytes that it shall answer.
pub(super) fn start_bare(bench: &Bench, name: &str, answer: &[u8]) -> Result<Server> {
    let dir = bench.dir(name)?;
    let file = dir.join("answer");
    fs::write(&file, answer).with_context(|| format!("writing {}", file.display()))?;
    let address = free_address()?;
    let mut command = Command::new(bench.tool("bare-server"));
    command.arg(address.to_string()).arg(&file);
    spawn("bare-server", command, address, &dir)
}

fn spawn(name: &'static str, command: Command, address: SocketAddr, dir: &Path) -> Result<Server> {
    let began = Instant::now();
    let service = Service::spawn(name, command, dir.join("pid"), dir.join("log"), GRACE)?;
    Ok(Server {
        service,
        address,
        began,
    })
}

fn free_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port(4600..4700)?).into())
}
