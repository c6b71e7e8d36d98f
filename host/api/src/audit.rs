//! The audit log: what the administrator changed, and from where.
//!
//! Lines of a target of their own, which the binary writes whatever the log's level.

use crate::caller::Peer;

/// The target of the log's lines.
pub const AUDIT_TARGET: &str = "offloader::audit";

/// Writes down that the administrator did something: what, to what, and what came of it.
pub(crate) fn record(from: Peer, act: &'static str, on: &str, result: &str) {
    tracing::info!(target: AUDIT_TARGET, act, on, result, %from, "administrator");
}
