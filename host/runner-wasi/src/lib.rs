//! Runs jobs as WASI command components inside this process: no container engine is needed.
//!
//! What a container gets of its engine, a job gets of this crate, and nothing more:
//!
//! - its image's name stands for a component that the operator listed ([`WasiConfig::images`]);
//! - its environment is what the permit says, its only directory is `/data`;
//! - it can ask for the addresses of its `SITE_URL`'s host and reach them over TCP, and nothing else;
//! - memory is limited by the permit, the output that is kept and what is on `/data` by the
//!   configuration, and whoever owns the job decides about time;
//! - asked to end, it sees its standard input end; killed, it is gone within milliseconds;
//! - its exit code is its own, or 137 when it was killed.
//!
//! Jobs do not survive this process, so they are asked to end before it does
//! ([`WasiRunner::shut_down`]). What they left on `/data` stays, and a job that had begun and did not
//! end is [`Sighting::Lost`](engine::Sighting::Lost) from then on.
//!
//! No type of the WebAssembly engine crosses this crate's public face.

mod about;
mod archive;
mod components;
mod config;
mod disk;
mod job;
mod network;
mod output;
mod pool;
mod runner;
mod sandbox;
mod tree;

pub use config::{WasiConfig, WasiError};
pub use runner::WasiRunner;
