//! The gate itself: grants, checked and made ready.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{DeliveredWhen, InstanceId, JobId, JobKind};
use regex_lite::Regex;

use crate::check::{self, InvalidGrant};
use crate::{ContainerName, Grants, JobGrants};

/// The gate: the operator's grants, and the rules that compare with them.
#[derive(Debug)]
pub struct Gate {
    grants: Grants,
    instance: InstanceId,
    recording: Patterns,
    transcribing: Patterns,
}

/// What the values of further inputs must match, by upper-case name.
pub(crate) type Patterns = BTreeMap<String, Regex>;

impl Gate {
    /// A gate that allows what `grants` say, for the containers of `instance`.
    ///
    /// # Errors
    /// Everything in the grants that is contradictory, malformed or never allowed.
    pub fn new(grants: Grants, instance: InstanceId) -> Result<Self, Vec<InvalidGrant>> {
        let [recording, transcribing] = check::grants(&grants)?;
        Ok(Self {
            grants,
            instance,
            recording,
            transcribing,
        })
    }

    /// What the operator allows jobs of a kind.
    #[must_use]
    pub fn grants(&self, kind: JobKind) -> &JobGrants {
        self.grants.of(kind)
    }

    /// What the operator allows.
    #[must_use]
    pub fn all_grants(&self) -> &Grants {
        &self.grants
    }

    /// The installation whose containers it permits.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    pub(crate) fn patterns(&self, kind: JobKind) -> &Patterns {
        match kind {
            JobKind::Recording => &self.recording,
            JobKind::Transcribing => &self.transcribing,
        }
    }

    /// The name of an attempt's container.
    #[must_use]
    pub fn container_name(&self, job: &JobId, attempt: u32) -> ContainerName {
        ContainerName::new(self.instance.clone(), job.clone(), attempt)
    }

    /// How long a container may take to finish after SIGTERM.
    #[must_use]
    pub fn stop_grace(&self, kind: JobKind) -> Duration {
        self.grants(kind).stop_grace
    }

    /// What tells that a job's work was delivered.
    #[must_use]
    pub fn delivered_when(&self, kind: JobKind) -> DeliveredWhen {
        self.grants(kind).delivered_when
    }
}
