//! The job API against its contract, through the real binary and real HTTP. None of this needs a
//! container engine: it is what the daemon answers before it would start anything.

mod auth;
mod http;
mod jobs;
mod metrics;
mod policies;
mod service;
