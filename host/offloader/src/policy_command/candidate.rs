//! A policy's file that is tried outside of the service.

use std::path::Path;

use anyhow::Context as _;
use cap_std::fs::Dir;
use domain::{Decision, Hook, JobFacts, Purpose};
use policy_host::{LoadErrors, PolicyConfig, PolicyHost, PolicyHostConfig};

use crate::ambient;

/// A policy's file.
pub(super) struct Candidate {
    /// What is in it.
    pub(super) bytes: Vec<u8>,
    dir: Dir,
    file: String,
}

/// What a policy is asked, beside the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) hook: Hook,
    /// Of image-selection alone.
    pub(super) purpose: Purpose,
}

impl Candidate {
    /// Reads the file.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = || {
            let (dir, file) = ambient::open_beside(path)?;
            let bytes = ambient::read(path)?;
            Ok::<_, std::io::Error>(Self { bytes, dir, file })
        };
        opened().with_context(|| format!("cannot read {}", path.display()))
    }

    /// The file's name without its ending: what the policy is called here.
    pub(super) fn name(&self) -> &str {
        self.file.strip_suffix(".wasm").unwrap_or(&self.file)
    }

    /// The file's name.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// A configuration for it that says nothing but its name.
    pub(super) fn config(&self) -> PolicyConfig {
        PolicyConfig::new(self.name(), self.file())
    }

    /// A place to load it in, empty yet. What it has compiled it does not compile again.
    pub(super) fn host() -> anyhow::Result<PolicyHost> {
        Ok(PolicyHost::load(
            PolicyHostConfig::default(),
            ambient::wall_clock(),
        )?)
    }

    /// Loads it as the service would, alone.
    ///
    /// # Errors
    /// What keeps it from being loaded.
    pub(super) fn load(&self, host: &PolicyHost, config: PolicyConfig) -> Result<(), LoadErrors> {
        let config = PolicyHostConfig {
            dir: self.dir.try_clone().ok(),
            policies: vec![config],
            ..PolicyHostConfig::default()
        };
        host.reload(config, ambient::wall_clock())
    }
}

/// Asks the one policy of a host; `None` when it has no such hook.
pub(super) fn ask(host: &PolicyHost, question: Question, facts: &JobFacts) -> Option<Decision> {
    let mut decisions = match question.hook {
        Hook::ImageSelection => host.decide_image(facts, question.purpose).decisions,
        Hook::SiteUrl => host.decide_site_url(facts).decisions,
        Hook::Retry => host.decide_retry(facts).decisions,
        Hook::Retention => host.decide_retention(facts).decisions,
    };
    decisions.pop()
}
