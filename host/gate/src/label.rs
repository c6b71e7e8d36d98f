//! The names of the labels that the gate writes into each permit, for those who read them again from
//! what carries them. They tell enough of a job to look after its container when its record is lost.

/// Carried by every job container, also by those of the standard service, which existing scripts go
/// by: a name and its value.
pub const APP: (&str, &str) = ("app", "mattermost-calls-offloader");
/// The installation.
pub const INSTANCE: &str = "io.offloader.instance";
/// The job's identifier.
pub const JOB: &str = "io.offloader.job";
/// The number of the attempt, from 1 on.
pub const ATTEMPT: &str = "io.offloader.attempt";
/// The attempt whose volume this one works on, by its container's name.
pub const VOLUME_OF: &str = "io.offloader.volume-of";
/// `recording` or `transcribing`.
pub const KIND: &str = "io.offloader.type";
/// Whoever submitted the job.
pub const CLIENT: &str = "io.offloader.client";
/// When that was, in milliseconds of Unix time.
pub const SUBMITTED: &str = "io.offloader.submitted-unix-ms";
/// How long the job may run, in milliseconds.
pub const MAX_DURATION: &str = "io.offloader.max-duration-ms";
/// A digest of all that the permit allows.
pub const PLAN: &str = "io.offloader.plan-sha256";
