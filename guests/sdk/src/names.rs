//! Names of the contract's cases, for settings and reasons.

use crate::{FailureReason, Kind};

impl FailureReason {
    /// Every reason with its name, in the order of the contract.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Exited, "exited"),
        (Self::OutOfMemory, "out-of-memory"),
        (Self::Deadline, "deadline"),
        (Self::StoppedByAdmin, "stopped-by-admin"),
        (Self::KilledAfterGrace, "killed-after-grace"),
        (Self::ImageUnreachable, "image-unreachable"),
        (Self::ImageStalled, "image-stalled"),
        (Self::ImageUnauthorized, "image-unauthorized"),
        (Self::ImageNotFound, "image-not-found"),
        (Self::ImageRefused, "image-refused"),
        (Self::StartFailed, "start-failed"),
        (Self::StartTimeout, "start-timeout"),
        (Self::Interrupted, "interrupted"),
        (Self::RuntimeLost, "runtime-lost"),
        (Self::RemovedByHand, "removed-by-hand"),
        (Self::Other, "other"),
    ];

    /// The reason's name: lower case with dashes.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(reason, _)| *reason == self)
            .map_or("other", |(_, name)| name)
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(reason, _)| *reason)
    }
}

impl Kind {
    /// `recording`, `transcribing` or `other`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Transcribing => "transcribing",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_survive_their_names() {
        for (reason, name) in FailureReason::ALL {
            assert_eq!(reason.name(), name);
            assert_eq!(FailureReason::from_name(name), Some(reason));
        }
        assert_eq!(FailureReason::from_name("bored"), None);
    }
}
