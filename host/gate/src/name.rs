//! Names of containers and volumes.

use std::fmt;

use domain::{InstanceId, JobId};

/// The name of the container of one attempt. The same (instance, job, attempt) always gives the
/// same name, so at most one container of an attempt can exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName {
    instance: InstanceId,
    job: JobId,
    attempt: u32,
}

impl ContainerName {
    /// The name for an attempt.
    #[must_use]
    pub fn new(instance: InstanceId, job: JobId, attempt: u32) -> Self {
        Self {
            instance,
            job,
            attempt,
        }
    }

    /// The installation.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The name of the volume on /data.
    #[must_use]
    pub fn volume(&self) -> String {
        format!("{self}-data")
    }

    /// The name that a container engine reported, taken apart again.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("offloader-")?;
        let (rest, attempt) = rest.rsplit_once('-')?;
        let (instance, job) = rest.rsplit_once('-')?;
        let name = Self::new(
            instance.parse().ok()?,
            job.parse().ok()?,
            attempt.parse().ok()?,
        );
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offloader-{}-{}-{}",
            self.instance, self.job, self.attempt
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_read_back_and_foreign_ones_cannot() {
        let name = ContainerName::new("main-1".parse().unwrap(), JobId::from_random([7; 26]), 2);
        assert_eq!(ContainerName::parse(&name.to_string()), Some(name));
        for foreign in [
            "",
            "offloader-",
            "offloader-main-x-1",
            "calls-main-hhhhhhhhhhhhhhhhhhhhhhhhhh-1",
            "offloader-main-hhhhhhhhhhhhhhhhhhhhhhhhhh-01",
            "offloader-main-hhhhhhhhhhhhhhhhhhhhhhhhhh-+1",
        ] {
            assert_eq!(ContainerName::parse(foreign), None, "{foreign}");
        }
    }
}
