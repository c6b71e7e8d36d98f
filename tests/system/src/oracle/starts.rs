//! Which containers were started, and how often.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::INSTANCE_LABEL;

/// The longest that the last words of an engine that has gone may take.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Every start of a container with the instance's label, by the container's name, as the engine tells
/// them while they happen.
#[derive(Default)]
pub(super) struct Starts {
    names: Arc<Mutex<Vec<String>>>,
    followed: Option<Child>,
}

impl Starts {
    pub(super) fn watch(host: &str, instance: &str) -> Self {
        let mut starts = Self::default();
        starts.follow(host, instance);
        starts
    }

    /// Follows the engine from its start on, or from now on if it is not known when that was: what a
    /// restarted engine remembers begins with its restart.
    pub(super) fn follow(&mut self, host: &str, instance: &str) {
        let since = if self.followed.is_some() {
            "0".to_owned()
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.unwrap_or_default().as_secs().to_string()
        };
        self.end();
        let mut docker = Command::new("docker");
        docker
            .args(["--host", host, "events", "--since", &since])
            .args(["--filter", "type=container", "--filter", "event=start"])
            .args(["--filter", &format!("label={INSTANCE_LABEL}={instance}")])
            .args(["--format", "{{.Actor.Attributes.name}}"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = docker.spawn().expect("docker can be run");
        let output = child.stdout.take().expect("its output is piped");
        let names = Arc::clone(&self.names);
        thread::spawn(move || {
            for name in BufReader::new(output).lines().map_while(Result::ok) {
                names
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(name);
            }
        });
        self.followed = Some(child);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn end(&mut self) {
        if let Some(mut child) = self.followed.take() {
            // When the engine has gone it ends by itself, with its last words.
            let until = Instant::now() + LAST_WORDS;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(LAST_WORDS / 10);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        self.end();
    }
}
