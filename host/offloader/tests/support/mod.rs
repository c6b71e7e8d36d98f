//! The real binary with a configuration of its own.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration in it.
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// With this configuration; `DIR` in it is the site's directory.
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self { dir };
        site.configure(config);
        site
    }

    pub(crate) fn configure(&self, config: &str) {
        let config = config.replace("DIR", self.dir.path().to_str().unwrap());
        fs::write(self.path("config.toml"), config).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, with nothing of our own environment that it would listen to.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offloader"));
        command
            .env_clear()
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("config.toml"))
            .current_dir(self.dir.path());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts serving and waits until it listens.
    pub(crate) fn serve(&self) -> Daemon {
        let mut child = self.command(&[]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("it ended: {log}")
            };
            log += &line;
            log.push('\n');
            if let Some((_, rest)) = line.split_once("listening address=") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        let rest = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log += &line;
                log.push('\n');
            }
            log
        });
        Daemon {
            child,
            address,
            log: Some(rest),
        }
    }
}

/// A service that runs. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Daemon {
    /// Sends a request and gives status line, headers and body as one text.
    pub(crate) fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What comes back for a request that may not be understood.
    pub(crate) fn get_or_nothing(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ))
    }

    /// Asks it to end; gives how it did, and its log.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(since.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        (status, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a self-signed certificate and its key.
pub(crate) fn make_certificate(certificate: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(certificate, made.cert.pem()).unwrap();
    fs::write(key, made.signing_key.serialize_pem()).unwrap();
}
