//! The loop that makes a job's life happen: duty, fact, step, commit.
//!
//! It asks policies, obeys the gate, saves before it acts, and knows the world only through the
//! ports in [`ports`](crate::Ports). Every job that has something to do has one task of its own.

mod answer;
mod engine;
mod facts;
mod facts_past;
mod fault;
mod files;
mod job_loop;
mod life;
mod live;
mod measure;
mod orphan;
mod policy_control;
mod ports;
mod removed;
mod resend;
mod sleep;
mod slots;
mod submission;
mod submit;
mod supervise;
mod sweep;

#[cfg(any(test, feature = "simulation"))]
pub mod simulation;

/// The rules of a job's life. Under simulation they can be broken on purpose.
mod rules {
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) use crate::simulation::{duty, resends, step};
    #[cfg(not(any(test, feature = "simulation")))]
    pub(crate) use domain::{duty, step};

    /// The job whose undelivered work a job sends in again.
    #[cfg(not(any(test, feature = "simulation")))]
    pub(crate) fn resends(job: &domain::Job) -> Option<&domain::JobId> {
        job.resends.as_ref()
    }
}

pub use engine::{Engine, EngineConfig, Health, Ports};
pub use facts_past::{Forgotten, at_decision};
pub use fault::FaultPoint;
pub use files::file_stream;
pub use life::in_words;
pub use live::JobView;
pub use policy_control::*;
pub use ports::*;
pub use resend::ResendError;
pub use slots::Slots;
pub use submission::*;
pub use sweep::StrayRules;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
