//! What the operator allows: the `[gate]` table of the configuration, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::{DeliveredWhen, Digest, JobKind};

const HOUR: Duration = Duration::from_secs(3600);

/// Everything that the operator allows.
#[derive(Debug, Clone)]
pub struct Grants {
    /// Registries that images may come from, taken literally (`mattermost`,
    /// `localhost:5000/mattermost`).
    pub registries: Vec<String>,
    /// The rule that the `runner` of a request has to satisfy, before policy is asked.
    pub runner_rule: RunnerRule,
    /// Whether `DEV_MODE` is on: jobs get `DEV_MODE=true`, and clients get the images
    /// `calls-recorder:master` and `calls-transcriber:master` that a developer has built.
    pub dev_mode: bool,
    /// What recordings may do.
    pub recording: JobGrants,
    /// What transcriptions may do.
    pub transcribing: JobGrants,
}

impl Grants {
    /// What a standard configuration grants: the two job programs from `image_registry`, known
    /// inputs only, and the documented bounds.
    #[must_use]
    pub fn standard(image_registry: &str) -> Self {
        Self {
            registries: vec![image_registry.to_owned()],
            runner_rule: RunnerRule::Registry(image_registry.to_owned()),
            dev_mode: false,
            recording: JobGrants::default_for(JobKind::Recording),
            transcribing: JobGrants::default_for(JobKind::Transcribing),
        }
    }

    /// The same for a developer's machine: any image name may be asked for, and on Linux jobs use
    /// the host's network. What the operator configures beside it is set afterwards.
    #[must_use]
    pub fn in_dev_mode(mut self) -> Self {
        self.dev_mode = true;
        self.runner_rule = RunnerRule::Any;
        if cfg!(target_os = "linux") {
            self.recording.networks = vec!["host".to_owned()];
            self.transcribing.networks = vec!["host".to_owned()];
        }
        self
    }

    /// The grants of a kind of job.
    #[must_use]
    pub fn of(&self, kind: JobKind) -> &JobGrants {
        match kind {
            JobKind::Recording => &self.recording,
            JobKind::Transcribing => &self.transcribing,
        }
    }
}

/// Which images a client may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerRule {
    /// `^REGISTRY/calls-(recorder|transcriber):vX.Y.Z(-dev[0-9]*)?$` with this REGISTRY, taken
    /// literally, and the minimum versions.
    Registry(String),
    /// Any image reference: `DEV_MODE` or `TEST_MODE` is on. The grants still hold.
    Any,
}

/// What a job of one kind may do.
#[derive(Debug, Clone)]
pub struct JobGrants {
    /// Names of images under the registries.
    pub images: BTreeSet<String>,
    /// Manifest digests by `NAME:TAG`.
    pub digests: BTreeMap<String, Digest>,
    /// Whether nothing runs that `digests` does not pin.
    pub require_digest: bool,
    /// Hosts of site URLs: names or `*.suffix`; empty allows any.
    pub site_hosts: Vec<String>,
    /// The engine's networks that a container may join; the first is used.
    pub networks: Vec<String>,
    /// Bytes of memory; 0 is no limit.
    pub memory_bytes: u64,
    /// Billionths of a processor; 0 is no limit.
    pub nano_cpus: u64,
    /// Processes and threads; 0 is no limit.
    pub pids: u64,
    /// Capabilities without `CAP_`, all others are dropped.
    pub capabilities: BTreeSet<String>,
    /// How long a container may take to finish after SIGTERM.
    pub stop_grace: Duration,
    /// Further inputs by name, each with a regular expression that the whole value must match.
    /// Whatever it says, a value holds only letters, digits and `. _ - + : / , @ % =`: values end
    /// up in a shell's command line.
    pub inputs: BTreeMap<String, String>,
    /// Browser flags that `EXTRA_CHROMIUM_ARGS` may hold: literal, or `--name=HOST:PORT`.
    pub chromium_args: Vec<String>,
    /// What tells that the work was delivered.
    pub delivered_when: DeliveredWhen,
    /// Bounds on what a retry policy may ask for.
    pub retry: RetryBounds,
    /// Bounds on what a retention policy may ask for.
    pub retention: RetentionBounds,
}

impl JobGrants {
    /// The documented defaults for jobs of a kind.
    #[must_use]
    pub fn default_for(kind: JobKind) -> Self {
        let (image, delivered_when) = match kind {
            JobKind::Recording => ("calls-recorder", DeliveredWhen::NoMediaLeft),
            JobKind::Transcribing => ("calls-transcriber", DeliveredWhen::ExitZero),
        };
        Self {
            images: BTreeSet::from([image.to_owned()]),
            digests: BTreeMap::new(),
            require_digest: false,
            site_hosts: Vec::new(),
            networks: vec!["bridge".to_owned()],
            memory_bytes: 4 << 30,
            nano_cpus: 0,
            pids: 4096,
            capabilities: ["CHOWN", "SETUID", "SETGID", "KILL"]
                .map(str::to_owned)
                .into(),
            stop_grace: 2 * HOUR,
            inputs: BTreeMap::new(),
            chromium_args: match kind {
                JobKind::Recording => ["--ignore-certificate-errors", "--proxy-server=HOST:PORT"]
                    .map(str::to_owned)
                    .into(),
                JobKind::Transcribing => Vec::new(),
            },
            delivered_when,
            retry: RetryBounds {
                max_attempts: 3,
                max_delay: Duration::from_secs(30),
                after_run: false,
            },
            retention: RetentionBounds {
                failed_at_least: 24 * HOUR,
                at_most: 365 * 24 * HOUR,
            },
        }
    }
}

/// Bounds on what a retry policy may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBounds {
    /// Attempts of one job, the first included.
    pub max_attempts: u32,
    /// The longest pause between two.
    pub max_delay: Duration,
    /// Whether an attempt may follow one whose container ran.
    pub after_run: bool,
}

/// Bounds on what a retention policy may ask for. They do not bind the operator's own
/// `jobs.failed_jobs_retention_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionBounds {
    /// Undelivered work is kept at least this long.
    pub failed_at_least: Duration,
    /// Nothing is kept longer.
    pub at_most: Duration,
}
