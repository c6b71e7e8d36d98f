//! What a launch may do.
//!
//! Clients ask and policies propose; the gate disposes. It compares a [`LaunchPlan`] with the
//! operator's grants and makes a [`LaunchPermit`] of it or refuses. Only the gate makes permits,
//! and a runner takes nothing else, so no policy and no client can widen what the operator
//! allowed. The gate has no input or output: grants come in as a value.

mod bounds;
mod browser;
mod check;
mod gate;
mod grants;
mod images;
mod inputs;
pub mod label;
mod name;
mod permit;
mod refusal;
mod sites;
mod variables;

#[cfg(test)]
mod testing;

pub use check::InvalidGrant;
pub use gate::Gate;
pub use grants::{Grants, JobGrants, RetentionBounds, RetryBounds, RunnerRule};
pub use images::{ImagePermit, RunnerName};
pub use inputs::SortedInputs;
pub use name::ContainerName;
pub use permit::{LaunchPermit, LaunchPlan};
pub use refusal::{Origin, Refusal};
