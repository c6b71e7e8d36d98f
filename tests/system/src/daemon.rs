//! Starting and ending the real binary.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use site::JobService;
use tempfile::TempDir;

use crate::registry::free_port;

/// An authentication key that is long enough.
pub const KEY: &str = "a-key-of-a-client-in-a-test-with-enough-characters";
/// What [`Setup::with_admin`] sets as the administrator's secret.
pub const ADMIN_SECRET: &str = "the-secret-of-the-administrator-in-a-test";

/// An engine address where nothing listens.
const NO_ENGINE: &str = "unix:///nonexistent/offloader-test.sock";
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// The number of SIGKILL.
const KILL: i32 = 9;
const POLL: Duration = Duration::from_millis(10);

/// A daemon that may be started, more than once: its directory stays as long as this or one of them.
/// A copy is another way to start the same daemon.
#[derive(Clone)]
pub struct Setup {
    dir: Arc<TempDir>,
    config: String,
    env: Vec<(String, String)>,
    /// Which binary: one that can be told where to die, or the one that sites get.
    with_fault_points: bool,
}

/// A daemon that runs. Killed when dropped.
pub struct Daemon {
    child: Child,
    url: String,
    log: PathBuf,
    /// Holds the directory while it runs.
    _dir: Arc<TempDir>,
}

/// A daemon that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to standard output and standard error.
    pub log: String,
}

impl Setup {
    /// A daemon with a state directory of its own, without container engine, that lets clients
    /// register themselves.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the daemon can be made");
        Self {
            dir: Arc::new(dir),
            config: String::new(),
            env: Vec::new(),
            with_fault_points: false,
        }
        .env("DOCKER_HOST", NO_ENGINE)
        .env("API_SECURITY_ALLOWSELFREGISTRATION", "true")
    }

    /// Lets it run containers in the engine at this address.
    pub fn engine(self, address: &str) -> Self {
        self.env("DOCKER_HOST", address)
    }

    /// Switches the administrator on, with [`ADMIN_SECRET`].
    pub fn with_admin(self) -> Self {
        self.env("API_SECURITY_ENABLEADMIN", "true")
            .env("API_SECURITY_ADMINSECRETKEY", ADMIN_SECRET)
    }

    /// Takes the binary that can be told where to die, without telling it.
    pub fn with_fault_points(mut self) -> Self {
        self.with_fault_points = true;
        self
    }

    /// Lets it die as if by SIGKILL when it reaches a point: `after-intent`, or `after-intent:3` for
    /// its third pass. The engine crate's `FaultPoint` has their list.
    pub fn dies_at(self, point: &str) -> Self {
        self.with_fault_points().env("OFFLOADER_FAULT", point)
    }

    /// Adds lines to the configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// The same before those that are there, which may be in tables.
    pub fn config_first(mut self, toml: &str) -> Self {
        self.config = format!("{toml}\n{}", self.config);
        self
    }

    /// Sets an environment variable; the last setting of a name wins.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The daemon's directory: `config.toml`, `log`, and `state` with its store.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The files of the state directory that hold this text somewhere.
    pub fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let state = fs::read_dir(self.dir().join("state")).expect("there is a state directory");
        let paths = state.map(|entry| entry.expect("a directory can be listed").path());
        let files: Vec<_> = paths.filter(|path| path.is_file()).collect();
        assert!(!files.is_empty(), "the daemon has stored nothing");
        let holds = |path: &PathBuf| {
            let bytes = fs::read(path).expect("a stored file can be read");
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        files.into_iter().filter(holds).collect()
    }

    /// Starts it on a free port and waits until it answers.
    pub async fn start(&self) -> Daemon {
        let mut daemon = self.launch();
        daemon.wait_until_it_answers().await;
        daemon
    }

    /// Starts it on a free port; it may not answer yet, and may not live to do so.
    pub fn launch(&self) -> Daemon {
        let port = free_port([]).expect("a port is free");
        let log = self.dir().join("log");
        let child = self.spawn(&format!("127.0.0.1:{port}"), &log);
        Daemon {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
            _dir: Arc::clone(&self.dir),
        }
    }

    /// Starts it and waits until it has died at the point that it was told.
    pub fn start_and_die(&self) {
        let ended = self.run_to_end("127.0.0.1:0");
        let signal = ended.status.signal();
        assert_eq!(signal, Some(KILL), "{}\n{}", ended.status, ended.log);
    }

    /// Starts it at a listen address and waits until it has ended, as it should.
    pub fn run_to_end(&self, listen: &str) -> Ended {
        let path = self.dir().join("log");
        let mut child = self.spawn(listen, &path);
        let status = wait(&mut child, ENDS_WITHIN);
        let log = fs::read_to_string(&path).expect("the daemon's log can be read");
        match status {
            Some(status) => Ended { status, log },
            None => {
                end_now(&mut child);
                panic!("the daemon was to refuse to start, and runs; it says:\n{log}")
            }
        }
    }

    fn spawn(&self, listen: &str, log: &Path) -> Child {
        let config = self.dir().join("config.toml");
        fs::write(&config, &self.config).expect("the configuration can be written");
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log can be opened");
        let binary = if self.with_fault_points {
            binary_with_fault_points()
        } else {
            binary()
        };
        let mut command = Command::new(&binary);
        // What this process inherited must not decide how a daemon in a test behaves.
        command.env_clear();
        for name in ["PATH", "HOME", "LANG", "RUST_BACKTRACE"] {
            command.envs(env::var_os(name).map(|value| (name, value)));
        }
        command
            .env("STORE_DATASOURCE", self.dir().join("state"))
            .envs(self.env.iter().cloned())
            .env("API_HTTP_LISTENADDRESS", listen)
            .arg("--config")
            .arg(&config)
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log);
        command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()))
    }
}

impl Daemon {
    /// Where its API is: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its API as a client sees it.
    pub fn client(&self, id: &str, key: &str) -> JobService {
        JobService::new(&self.url, id, key)
    }

    /// Its API as the administrator sees it.
    pub fn admin(&self) -> JobService {
        self.client("", ADMIN_SECRET)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the daemon's log can be read")
    }

    /// Ends it as an administrator does, by SIGTERM.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the daemon runs");
        wait(&mut self.child, ENDS_WITHIN)
            .unwrap_or_else(|| panic!("SIGTERM did not end it in {ENDS_WITHIN:?}:\n{}", self.log()))
    }

    /// Waits until it has died at the point that it was told.
    pub fn died(mut self) {
        match wait(&mut self.child, ENDS_WITHIN) {
            Some(status) if status.signal() == Some(KILL) => {}
            Some(status) => panic!("it was to die, and ended with {status}:\n{}", self.log()),
            None => panic!(
                "it did not come to the point where it dies:\n{}",
                self.log()
            ),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it as a crash does, by SIGKILL.
    pub fn crash(mut self) {
        end_now(&mut self.child);
    }

    async fn wait_until_it_answers(&mut self) {
        let until = Instant::now() + ANSWERS_WITHIN;
        while reqwest::get(format!("{}/version", self.url)).await.is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!(
                    "the daemon ended with {status} instead of answering:\n{}",
                    self.log()
                );
            }
            assert!(
                Instant::now() < until,
                "no answer in {ANSWERS_WITHIN:?}:\n{}",
                self.log()
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end_now(&mut self.child);
    }
}

/// Kills and reaps it; nothing happens if it has ended already.
fn end_now(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn wait(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        thread::sleep(POLL);
    }
    None
}

/// The daemon as sites get it: the binary that `cargo xtask test` names, else the one of a plain build.
pub fn binary() -> PathBuf {
    found("OFFLOADER_BIN", "offloader", "cargo build -p offloader")
}

/// The daemon with fault points.
pub fn binary_with_fault_points() -> PathBuf {
    found(
        "OFFLOADER_FAULTS_BIN",
        "offloader-faults",
        "cargo build -p offloader --bin offloader-faults --features fault-points",
    )
}

fn found(variable: &str, name: &str, build: &str) -> PathBuf {
    if let Some(given) = env::var_os(variable) {
        return given.into();
    }
    // A test binary lies in target/debug/deps, xtask in target/debug.
    let own = env::current_exe().expect("a running program has a path");
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    beside
        .into_iter()
        .find(|built| built.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run `{build}`"))
}
