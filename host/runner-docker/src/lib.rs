//! Runs jobs as containers of a Docker engine.
//!
//! The runner takes permits from the gate and does what they say, hardened: see [`DockerRunner`]
//! for what holds for every container. It keeps no state but the pulls under way; the engine's
//! own records, found by name and label, tell everything else.

mod archive;
mod client;
mod config;
mod container;
mod files;
mod labels;
mod launch;
mod leftovers;
mod pull;
mod pull_failure;
mod remains;
mod removal;
mod runner;
mod seccomp;
mod sighting;

pub use config::DockerConfig;
pub use runner::DockerRunner;
