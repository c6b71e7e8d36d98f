//! The container engine that tests run containers in, and tiny images to run there.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::dockerd::Dockerd;

/// The engine's address (`unix:///…`), for the test `name`. Without one a test under CI fails; by
/// hand it skips itself: this says so, writes the name down for the summary, and returns None.
pub fn need_engine(name: &str) -> Option<String> {
    if let Ok(engine) = env::var("OFFLOADER_TEST_ENGINE") {
        return Some(engine);
    }
    skipped(name, "a container engine (OFFLOADER_TEST_ENGINE)");
    None
}

/// Says that the test `name` is skipped for want of something; under CI it fails.
pub fn skipped(name: &str, lacking: &str) {
    assert!(!under_ci(), "{name} needs {lacking}");
    eprintln!("SKIPPED, having no {lacking}: {name}");
    if let Some(file) = env::var_os("OFFLOADER_TEST_SKIPS") {
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let written = opened.and_then(|mut file| writeln!(file, "{name}"));
        written.expect("the list of skipped tests can be written");
    }
}

/// Whether this is a run of continuous integration, where nothing may be skipped.
fn under_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// What the tiny images are made of: the host's shell and the few commands that scripts need.
const PROGRAMS: [&str; 6] = ["sh", "sleep", "mkdir", "cat", "env", "rm"];

/// The longest that a docker command may take.
const COMMAND_SECONDS: &str = "60";

/// A container engine with images of one test's own. Dropping it removes them, and every container
/// and volume that came from them.
pub struct TestEngine {
    host: String,
    registry: String,
    images: Vec<String>,
    /// Whether the engine goes with all that it holds, so that nothing has to be removed.
    thrown_away: bool,
}

impl TestEngine {
    /// The engine for the test `name`; None if the test is to be skipped, see [`need_engine`].
    pub fn find(name: &str) -> Option<Self> {
        need_engine(name).map(Self::at)
    }

    /// The engine at an address (`unix:///…`).
    pub fn at(host: String) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let registry = format!("offloader-test-{}-{number}", std::process::id());
        Self {
            host,
            registry,
            images: Vec::new(),
            thrown_away: false,
        }
    }

    /// An engine that is thrown away after the test.
    pub fn of(dockerd: &Dockerd) -> Self {
        let mut engine = Self::at(dockerd.host());
        engine.thrown_away = true;
        engine
    }

    /// Its address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The registry part of this test's images: what `jobs.image_registry` must be.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Makes an image `REGISTRY/NAME:TAG` that runs a shell script, and returns that reference. The
    /// script has the programs `sleep`, `mkdir`, `cat`, `env` and `rm`.
    pub fn image(&mut self, name_and_tag: &str, script: &str) -> String {
        self.image_of(name_and_tag, script, &[])
    }

    /// The same of an image that says that it sends in again what is left: its script finds `resend`
    /// in `$0` then.
    pub fn image_that_resends(&mut self, name_and_tag: &str, script: &str) -> String {
        self.image_of(name_and_tag, script, &["LABEL io.offloader.resend=true"])
    }

    fn image_of(&mut self, name_and_tag: &str, script: &str, further: &[&str]) -> String {
        let reference = format!("{}/{name_and_tag}", self.registry);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let tar = dir.path().join("root.tar");
        pack_programs(&tar);
        self.import(&tar, &["/bin/sh", "-c", script], further, &reference);
        reference
    }

    /// Makes an image `REGISTRY/NAME:TAG` whose program is missing, so that it cannot start.
    pub fn image_without_program(&mut self, name_and_tag: &str) -> String {
        let reference = format!("{}/{name_and_tag}", self.registry);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let tar = dir.path().join("root.tar");
        run(Command::new("tar")
            .args(["--create", "--file"])
            .arg(&tar)
            .args(["--directory", "/etc", "hostname"]));
        self.import(&tar, &["/missing"], &[], &reference);
        reference
    }

    fn import(&mut self, tar: &Path, entrypoint: &[&str], further: &[&str], reference: &str) {
        let entrypoint = format!("ENTRYPOINT {}", Value::from(entrypoint.to_vec()));
        let tar = tar.to_str().expect("temporary paths are UTF-8");
        let mut import = vec!["import", "--change", &entrypoint];
        for instruction in further {
            import.extend(["--change", instruction]);
        }
        import.extend([tar, reference]);
        self.docker(&import);
        self.images.push(reference.to_owned());
    }

    /// Runs the docker command and returns what it wrote, trimmed.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args)
            .unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
    }

    /// The same; its standard error if it failed.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        // An engine that is held would hold the test up too.
        let mut docker = Command::new("timeout");
        docker.args([
            "--kill-after=1",
            COMMAND_SECONDS,
            "docker",
            "--host",
            &self.host,
        ]);
        let output = docker.args(args).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// The ids of all containers of a job, in whatever state.
    pub fn containers_of(&self, job: &str) -> Vec<String> {
        let label = format!("label=io.offloader.job={job}");
        lines(&self.docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &label]))
    }

    /// The names of all volumes of a job.
    pub fn volumes_of(&self, job: &str) -> Vec<String> {
        let label = format!("label=io.offloader.job={job}");
        lines(&self.docker(&["volume", "ls", "--quiet", "--filter", &label]))
    }

    /// What the engine knows about a container.
    pub fn inspect(&self, container: &str) -> Value {
        let text = self.docker(&["inspect", container]);
        let mut list: Value = serde_json::from_str(&text).expect("inspect answers JSON");
        list[0].take()
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        if self.thrown_away {
            return;
        }
        // A test that failed must not panic again here; what cannot be removed is left.
        for image in &self.images {
            let filter = format!("ancestor={image}");
            let found = self.try_docker(&["ps", "--all", "--quiet", "--filter", &filter]);
            for container in lines(&found.unwrap_or_default()) {
                let label = "{{index .Config.Labels \"io.offloader.job\"}}";
                let job = self.try_docker(&["inspect", "--format", label, &container]);
                let _ = self.try_docker(&["rm", "--force", "--volumes", &container]);
                for volume in job.map(|job| self.volumes_of(&job)).unwrap_or_default() {
                    let _ = self.try_docker(&["volume", "rm", "--force", &volume]);
                }
            }
            let _ = self.try_docker(&["image", "rm", "--force", image]);
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Packs the programs with the libraries that they need, all from this machine.
fn pack_programs(tar: &Path) {
    let mut files = Vec::new();
    for program in PROGRAMS {
        let path = format!("/bin/{program}");
        let needed = run(Command::new("ldd").arg(&path));
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)"
        let libraries = needed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        files.extend(libraries.map(str::to_owned));
        files.push(path);
    }
    files.sort_unstable();
    files.dedup();
    let mut pack = Command::new("tar");
    // By their names without the links on the way: /bin is often a link to /usr/bin.
    pack.args(["--create", "--dereference", "--absolute-names", "--file"])
        .arg(tar)
        .args(files);
    run(&mut pack);
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_runs_its_script_and_goes_with_its_engine() {
        let Some(mut engine) =
            TestEngine::find("an_image_runs_its_script_and_goes_with_its_engine")
        else {
            return;
        };
        let image = engine.image(
            "calls-recorder:v1.0.0",
            "echo \"it is $WORD\"; mkdir /data && exit 3",
        );
        let said = engine.try_docker(&["run", "--env", "WORD=here", &image]);
        assert!(said.is_err(), "the exit code is lost");
        let container = engine.docker(&[
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("ancestor={image}"),
        ]);
        assert_eq!(engine.docker(&["logs", &container]), "it is here");
        assert_eq!(engine.inspect(&container)["State"]["ExitCode"], 3);
        let host = engine.host().to_owned();
        drop(engine);
        let after = TestEngine {
            host,
            registry: String::new(),
            images: Vec::new(),
            thrown_away: true,
        };
        assert!(after.try_docker(&["image", "inspect", &image]).is_err());
        assert!(after.try_docker(&["inspect", &container]).is_err());
    }
}
