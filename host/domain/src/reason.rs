//! Why an attempt or a job ended, in one vocabulary for store, API, WIT, metrics, log and
//! command line.

use std::fmt;

use crate::Leftovers;

/// Why an attempt, and with its last attempt a job, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The program exited with 0.
    Completed,
    /// The program exited with another code.
    Exited(i32),
    /// The engine says the container was killed for want of memory.
    OutOfMemory,
    /// `max_duration_sec` passed and the job was stopped for it.
    Deadline,
    /// An administrator stopped it.
    StoppedByAdmin,
    /// It outlived its grace after SIGTERM and was killed.
    KilledAfterGrace,
    /// The registry could not be reached.
    ImageUnreachable,
    /// The pull made no progress for too long.
    ImageStalled,
    /// The registry refused the credentials.
    ImageUnauthorized,
    /// The registry has no such image.
    ImageNotFound,
    /// The image is not the one that was authorized.
    ImageRefused,
    /// The engine refused to create or start the container.
    StartFailed,
    /// The time to start passed first.
    StartTimeout,
    /// The client had gone, or the service restarted, before the container ran.
    Interrupted,
    /// The engine lost the container's end.
    RuntimeLost,
    /// Somebody removed the container.
    RemovedByHand,
}

/// A text that names no end reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown end reason")]
pub struct UnknownReason;

impl EndReason {
    /// The reason's name: lower case with dashes. [`Self::Exited`] is `exited`, its code apart.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Exited(_) => "exited",
            Self::OutOfMemory => "out-of-memory",
            Self::Deadline => "deadline",
            Self::StoppedByAdmin => "stopped-by-admin",
            Self::KilledAfterGrace => "killed-after-grace",
            Self::ImageUnreachable => "image-unreachable",
            Self::ImageStalled => "image-stalled",
            Self::ImageUnauthorized => "image-unauthorized",
            Self::ImageNotFound => "image-not-found",
            Self::ImageRefused => "image-refused",
            Self::StartFailed => "start-failed",
            Self::StartTimeout => "start-timeout",
            Self::Interrupted => "interrupted",
            Self::RuntimeLost => "runtime-lost",
            Self::RemovedByHand => "removed-by-hand",
        }
    }

    /// The exit code, where that is the reason.
    #[must_use]
    pub fn exit_code(self) -> Option<i32> {
        match self {
            Self::Completed => Some(0),
            Self::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// The reason of that name; `exit_code` completes `exited`.
    ///
    /// # Errors
    /// When no reason has that name, or `exited` comes without a code.
    pub fn from_code(code: &str, exit_code: Option<i32>) -> Result<Self, UnknownReason> {
        if code == "exited" {
            return exit_code.map(Self::Exited).ok_or(UnknownReason);
        }
        Self::WITHOUT_CODE
            .into_iter()
            .find(|r| r.code() == code)
            .ok_or(UnknownReason)
    }

    /// Every reason but [`Self::Exited`].
    pub const WITHOUT_CODE: [Self; 15] = [
        Self::Completed,
        Self::OutOfMemory,
        Self::Deadline,
        Self::StoppedByAdmin,
        Self::KilledAfterGrace,
        Self::ImageUnreachable,
        Self::ImageStalled,
        Self::ImageUnauthorized,
        Self::ImageNotFound,
        Self::ImageRefused,
        Self::StartFailed,
        Self::StartTimeout,
        Self::Interrupted,
        Self::RuntimeLost,
        Self::RemovedByHand,
    ];
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited({code})"),
            other => f.write_str(other.code()),
        }
    }
}

/// Whether the job did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing undelivered was left and the exit was clean.
    Succeeded,
    /// Everything else.
    Failed,
}

impl Outcome {
    /// `succeeded` or `failed`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// What became of the work of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// No container ever ran, so there is nothing.
    NeverRan,
    /// The site has it, or there was nothing to deliver.
    Delivered,
    /// The volume holds the only copy.
    Unsent {
        /// Bytes left in the volume.
        bytes: u64,
    },
    /// It could not be found out, so it counts as unsent.
    Unknown,
}

impl Delivery {
    /// Whether the volume may hold somebody's only copy.
    #[must_use]
    pub fn may_be_unsent(self) -> bool {
        matches!(self, Self::Unsent { .. } | Self::Unknown)
    }
}

/// What tells that the work of a container was delivered. The exit code alone lies: a recorder
/// exits with 0 when it never got to record, and with 1 when it was stopped and delivered all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveredWhen {
    /// No media file (`.mp4`) is left in the volume, whatever the exit code.
    NoMediaLeft,
    /// The exit code is 0, whatever is left in the volume.
    ExitZero,
}

impl DeliveredWhen {
    /// What became of the work of a container that left `leftovers` behind (`None` when nobody
    /// could look) and exited with `exit_code` (`None` when nobody knows).
    #[must_use]
    pub fn judge(self, exit_code: Option<i32>, leftovers: Option<Leftovers>) -> Delivery {
        match (self, exit_code, leftovers) {
            (Self::ExitZero, Some(0), _) => Delivery::Delivered,
            (_, _, None) => Delivery::Unknown,
            (Self::NoMediaLeft, _, Some(left)) if left.media_bytes == 0 => Delivery::Delivered,
            (Self::ExitZero, _, Some(left)) if left.total_bytes == 0 => Delivery::Delivered,
            (_, _, Some(left)) => Delivery::Unsent {
                bytes: left.total_bytes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_code() {
        for reason in EndReason::WITHOUT_CODE
            .into_iter()
            .chain([EndReason::Exited(137)])
        {
            assert_eq!(
                EndReason::from_code(reason.code(), reason.exit_code()),
                Ok(reason)
            );
        }
        assert_eq!(EndReason::from_code("exited", None), Err(UnknownReason));
        assert_eq!(EndReason::from_code("gone", None), Err(UnknownReason));
    }
}
