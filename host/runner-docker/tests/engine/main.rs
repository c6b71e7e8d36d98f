//! The runner against a real container engine and, where pulls matter, a real registry.
//!
//! `OFFLOADER_TEST_ENGINE` names the engine's socket (`unix:///…`). Without it the tests are
//! skipped, loudly; under CI that is a failure.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment and write their fixtures"
)]

mod bench;
mod fetching;
mod hardening;
mod launching;
mod leaving;
mod living;
mod pulling;
mod registry;
mod resending;
mod uncertain;
