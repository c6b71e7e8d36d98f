//! What the tests of this crate share: the policies, built once, and facts to ask about.
#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../../../../guests/hostile/misbehave/src/acts.rs"]
pub(crate) mod acts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

use acts::Act;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use domain::{Attempt, EndReason, JobFacts, JobKind, Timestamp};
use offloader_policy_host::{LoadErrors, PolicyConfig, PolicyHost, PolicyHostConfig};

pub(crate) const IMAGE_MAP: &str = "image_map.wasm";
pub(crate) const SITE_URL_MAP: &str = "site_url_map.wasm";
pub(crate) const RETRY_BACKOFF: &str = "retry_backoff.wasm";
pub(crate) const RETENTION_RULES: &str = "retention_rules.wasm";
pub(crate) const MISBEHAVE: &str = "misbehave.wasm";
pub(crate) const ALL: [&str; 5] = [
    IMAGE_MAP,
    SITE_URL_MAP,
    RETRY_BACKOFF,
    RETENTION_RULES,
    MISBEHAVE,
];

/// When the policies of tests are loaded.
pub(crate) const LOADED_AT: Timestamp = Timestamp::from_millis(500);

/// The bytes of a policy: from the directory that `OFFLOADER_POLICIES` names, else built here.
pub(crate) fn policy(file: &str) -> Vec<u8> {
    if let Some(dir) = env::var_os("OFFLOADER_POLICIES")
        && let Ok(bytes) = fs::read(Path::new(&dir).join(file))
    {
        return bytes;
    }
    fs::read(built().join(file)).expect("cargo built it")
}

fn built() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("target/tmp");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", target)
            .args([
                "build",
                "--quiet",
                "--profile",
                "guest",
                "--target",
                "wasm32-wasip2",
            ]);
        for file in ALL {
            cargo.args([
                "--package",
                &file.trim_end_matches(".wasm").replace('_', "-"),
            ]);
        }
        assert!(
            cargo.status().expect("cargo runs").success(),
            "the policies do not build"
        );
        target.join("wasm32-wasip2").join("guest")
    })
}

/// A directory of policies: the built ones of these names, and files of one's own.
pub(crate) struct Policies {
    dir: tempfile::TempDir,
}

impl Policies {
    pub(crate) fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let policies = Self { dir };
        for file in files {
            policies.write(file, &policy(file));
        }
        policies
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(file), bytes).expect("a temporary file");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn open(&self) -> Dir {
        open(self.path())
    }

    pub(crate) fn load(&self, policies: Vec<PolicyConfig>) -> Result<PolicyHost, LoadErrors> {
        PolicyHost::load(self.config(policies), LOADED_AT)
    }

    /// A configuration of these policies, in this directory.
    pub(crate) fn config(&self, policies: Vec<PolicyConfig>) -> PolicyHostConfig {
        PolicyHostConfig {
            dir: Some(self.open()),
            policies,
            ..PolicyHostConfig::default()
        }
    }
}

pub(crate) fn open(path: &Path) -> Dir {
    Dir::open_ambient_dir(path, ambient_authority()).expect("a directory")
}

/// A policy with settings, and with so much time that a busy machine does not take it away.
pub(crate) fn configured(name: &str, component: &str, settings: &[(&str, &str)]) -> PolicyConfig {
    let mut config = PolicyConfig::new(name, component);
    config.limits.time = Duration::from_secs(10);
    config.settings = settings
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    config
}

/// The hostile policy.
pub(crate) fn misbehaving() -> PolicyConfig {
    configured("misbehave", MISBEHAVE, &[])
}

/// A failed job whose id tells the hostile policy what to do.
pub(crate) fn acting(act: Act) -> JobFacts {
    let mut facts = failed(&[EndReason::StartFailed]);
    facts.id = act.name().to_owned();
    facts
}

/// The lines of what keeps policies from being loaded.
pub(crate) fn problems(result: Result<PolicyHost, LoadErrors>) -> Vec<String> {
    match result {
        Ok(_) => panic!("it loads"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// A recording submitted at 1,000 that is asked about at 2,000 and has until 101,000 to start.
pub(crate) fn facts() -> JobFacts {
    let image = "mattermost/calls-recorder:v0.8.13".to_owned();
    let url = "https://mattermost.example.com".to_owned();
    JobFacts {
        id: "9a0c3f".to_owned(),
        client: "site-a".to_owned(),
        kind: JobKind::Recording,
        image_asked: image.clone(),
        image_chosen: image,
        site_url_asked: url.clone(),
        site_url_chosen: url,
        max_duration: Duration::from_secs(3600),
        submitted_at: Timestamp::from_millis(1_000),
        now: Timestamp::from_millis(2_000),
        start_by: Timestamp::from_millis(101_000),
        attempts: Vec::new(),
        delivery: None,
        inputs: BTreeMap::from([
            ("call_id".to_owned(), "call1".to_owned()),
            ("post_id".to_owned(), "post1".to_owned()),
        ]),
    }
}

/// The same job after attempts that ended like this.
pub(crate) fn failed(reasons: &[EndReason]) -> JobFacts {
    let mut facts = facts();
    for (number, reason) in (1..).zip(reasons) {
        let image = facts.image_asked.parse().expect("a reference");
        let mut attempt = Attempt::new(number, image, Timestamp::from_millis(1_000));
        attempt.ended_at = Some(facts.now);
        attempt.reason = Some(*reason);
        facts.attempts.push(attempt);
    }
    facts
}
