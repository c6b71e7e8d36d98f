//! What the daemon promises, kept through every fault of the table in [`scenarios`]: the real binary,
//! a real container engine, and a real registry where images are pulled. After each fault API, store
//! and engine have to agree, and again after crashes during the recovery
//! ([`world::World::agrees_after_crashes`]).
#![allow(
    clippy::disallowed_methods,
    reason = "tests break what they find on this machine, with plain means"
)]

mod connections;
mod crash;
mod disk;
mod ending;
mod engine;
mod hook;
mod plan;
mod resending;
mod resources;
mod scenarios;
mod starting;
mod store;
mod strays;
mod time;
mod world;
