//! Runs jobs as WASI command components inside this process: no container engine is needed.
//!
//! What a container gets of its engine, a job gets of this crate, and nothing more:
//!
//! - its image's name stands for a component that the operator listed ([`WasiConfig::images`]);
//! - its environment is what the permit says, its only directory is `/data`;
//! - it can reach the address of its `SITE_URL` over TCP, ask for the addresses of names, and nothing
//!   else;
//! - memory is limited by the permit, the output that is kept and what is on `/data` by the
//!   configuration, and whoever owns the job decides about time;
//! - asked to end, it sees its standard input end; killed, it is gone within milliseconds;
//! - its exit code is its own, or 137 when it was killed.
//!
//! Jobs do not survive this process. What they left on `/data` does, and a job that had begun is
//! [`Sighting::Lost`](engine::Sighting::Lost) from then on.
//!
//! No type of the WebAssembly engine crosses this crate's public face.

mod components;
mod config;
mod disk;
mod job;
mod output;
mod runner;
mod sandbox;

pub use config::{WasiConfig, WasiError};
pub use runner::WasiRunner;
