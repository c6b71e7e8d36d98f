//! What a job is and how its life may go, with no input or output of its own.
//!
//! Everything here is a plain value or a synchronous function. Time and randomness arrive as
//! arguments, so each rule can be tested in a table and the whole life of a job replayed.

mod clock;
mod ids;
mod image;
mod input;
mod job;
mod machine;
mod reason;
mod secret;
mod site_url;
mod time;
mod verdict;

pub use clock::{ClockMark, ClockReading, Uptime};
pub use ids::{ClientId, InstanceId, InvalidId, JobId, RegistrationId};
pub use image::{Digest, ImageId, ImageRef, InvalidImage};
pub use input::{InputValue, Inputs};
pub use job::{Attempt, End, Job, JobKind, Lifecycle, State, StopCause, UnknownKind};
pub use machine::{Duty, Exit, Fact, Illegal, Keep, LAST_START, Leftovers, duty, step};
pub use reason::{DeliveredWhen, Delivery, EndReason, Outcome, UnknownReason};
pub use secret::Secret;
pub use site_url::{InvalidSiteUrl, SiteUrl};
pub use time::Timestamp;
pub use verdict::{
    Choice, Decision, DecisionOutcome, Denial, Hook, JobFacts, Purpose, RetentionVerdict,
    RetryVerdict, Ruling,
};
