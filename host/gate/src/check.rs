//! Whether the operator's grants make sense, and nothing among them that is never allowed.

use std::fmt;

use domain::{ImageRef, JobKind, SiteUrl};
use regex_lite::Regex;

use crate::gate::Patterns;
use crate::{Grants, JobGrants, RunnerRule, browser, inputs, variables};

/// A grant that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidGrant {
    /// The configuration key, for example `gate.recording.inputs.LD_PRELOAD`.
    pub setting: String,
    /// What is wrong with it, for people.
    pub problem: String,
}

impl fmt::Display for InvalidGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

/// The least memory that Docker takes for a container.
const LEAST_MEMORY: u64 = 6 << 20;

const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Checks all grants; gives the compiled patterns of recordings and transcriptions.
pub(crate) fn grants(grants: &Grants) -> Result<[Patterns; 2], Vec<InvalidGrant>> {
    let mut problems = Problems {
        prefix: "gate".to_owned(),
        found: Vec::new(),
    };
    if grants.registries.is_empty() {
        problems.add("registries", "at least one registry is needed");
    }
    for registry in &grants.registries {
        if !is_registry(registry) {
            problems.add(
                "registries",
                format!("{registry:?} is no registry: expected HOST[:PORT][/PATH] or PATH"),
            );
        }
    }
    if let RunnerRule::Registry(registry) = &grants.runner_rule
        && !is_registry(registry)
    {
        problems.found.push(InvalidGrant {
            setting: "jobs.image_registry".to_owned(),
            problem: format!("{registry:?} is no registry"),
        });
    }
    let patterns = JobKind::ALL.map(|kind| {
        problems.prefix = format!("gate.{kind}");
        job_grants(kind, grants.of(kind), &mut problems)
    });
    if problems.found.is_empty() {
        Ok(patterns)
    } else {
        Err(problems.found)
    }
}

struct Problems {
    prefix: String,
    found: Vec<InvalidGrant>,
}

impl Problems {
    fn add(&mut self, key: &str, problem: impl Into<String>) {
        self.found.push(InvalidGrant {
            setting: format!("{}.{key}", self.prefix),
            problem: problem.into(),
        });
    }
}

fn job_grants(kind: JobKind, grants: &JobGrants, problems: &mut Problems) -> Patterns {
    for image in &grants.images {
        if !is_image_name(image) {
            problems.add(
                "images",
                format!("{image:?} is no image name: expected the part after the last /"),
            );
        }
    }
    for key in grants.digests.keys() {
        let named = key
            .split_once(':')
            .is_some_and(|(name, _)| is_image_name(name));
        if !named || format!("x/{key}").parse::<ImageRef>().is_err() {
            problems.add("digests", format!("{key:?}: expected NAME:TAG"));
        }
    }
    for host in &grants.site_hosts {
        if !is_site_host(host) {
            problems.add(
                "site_hosts",
                format!("{host:?}: expected a host name, an address or *.suffix"),
            );
        }
    }
    if grants.networks.is_empty() {
        problems.add("networks", "at least one network is needed");
    }
    for network in grants
        .networks
        .iter()
        .filter(|network| !is_network(network))
    {
        problems.add("networks", format!("{network:?} is no network's name"));
    }
    if (1..LEAST_MEMORY).contains(&grants.memory_bytes) {
        problems.add("memory", "less than 6 MiB; 0 is no limit");
    }
    for (key, value) in [
        ("memory", grants.memory_bytes),
        ("cpus", grants.nano_cpus),
        ("pids", grants.pids),
    ] {
        if i64::try_from(value).is_err() {
            problems.add(key, "too large");
        }
    }
    for capability in grants
        .capabilities
        .iter()
        .filter(|c| !CAPABILITIES.contains(&c.as_str()))
    {
        let hint = if capability.starts_with("CAP_") {
            "; leave CAP_ out"
        } else {
            ""
        };
        problems.add(
            "capabilities",
            format!("{capability:?} is no capability{hint}"),
        );
    }
    for flag in &grants.chromium_args {
        if let Some(problem) = browser::problem(flag) {
            problems.add(
                "chromium_args",
                format!("{flag:?} cannot be granted: {problem}"),
            );
        }
    }
    if grants.retry.max_attempts == 0 {
        problems.add(
            "retry.max_attempts",
            "the first attempt counts, so 1 is the least",
        );
    }
    if grants.retention.failed_at_least > grants.retention.at_most {
        problems.add("retention", "failed_at_least is longer than at_most");
    }
    patterns(kind, grants, problems)
}

fn patterns(kind: JobKind, grants: &JobGrants, problems: &mut Problems) -> Patterns {
    let mut patterns = Patterns::new();
    for (key, pattern) in &grants.inputs {
        let name = key.to_ascii_uppercase();
        let setting = format!("inputs.{key}");
        if !inputs::is_name(key) {
            problems.add(
                &setting,
                "a name holds letters, digits and underscores and begins with no digit",
            );
        } else if variables::forbidden(&name) {
            problems.add(
                &setting,
                "no setting allows it: it changes how the container's programs run",
            );
        } else if variables::known(kind, &name).is_some() {
            problems.add(
                &setting,
                "it is known already, and what it may hold cannot be changed",
            );
        } else {
            match compile(pattern).map(|pattern| patterns.insert(name, pattern)) {
                Ok(None) => {}
                Ok(Some(_)) => problems.add(&setting, "another one differs from it only in case"),
                Err(error) => problems.add(&setting, format!("no regular expression: {error}")),
            }
        }
    }
    patterns
}

/// Anchors the pattern at both ends. It has to be valid by itself too, so that it cannot close
/// the group that the anchors stand around.
fn compile(pattern: &str) -> Result<Regex, regex_lite::Error> {
    Regex::new(pattern)?;
    Regex::new(&format!("^(?:{pattern})$"))
}

fn is_registry(text: &str) -> bool {
    format!("{text}/x:x")
        .parse::<ImageRef>()
        .is_ok_and(|image| image.registry() == text)
}

fn is_image_name(text: &str) -> bool {
    format!("x/{text}:x")
        .parse::<ImageRef>()
        .is_ok_and(|image| image.name() == text)
}

fn is_site_host(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let url = if bare.contains(':') {
        format!("http://[{bare}]")
    } else {
        format!("http://{host}")
    };
    url.parse::<SiteUrl>()
        .is_ok_and(|url| url.host() == bare.to_ascii_lowercase())
}

/// Other network modes, such as another container's, are no names.
fn is_network(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 128
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
