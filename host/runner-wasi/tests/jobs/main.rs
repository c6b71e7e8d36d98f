//! Real components in the embedded runner: what they get, what they do not, and how they end.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment and write their fixtures"
)]

mod disk;
mod ending;
mod files;
mod life;
mod limits;
mod network;
mod place;
mod pool;
