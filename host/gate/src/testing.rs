//! Gates for tests.

use domain::JobId;

use crate::{Gate, Grants};

/// The gate of a standard configuration.
pub(crate) fn gate() -> Gate {
    gate_with(|_| {})
}

/// The gate of a standard configuration that `change` was made to.
pub(crate) fn gate_with(change: impl FnOnce(&mut Grants)) -> Gate {
    let mut grants = Grants::standard("mattermost");
    change(&mut grants);
    Gate::new(grants, "main".parse().unwrap()).unwrap()
}

/// Some job.
pub(crate) fn job_id() -> JobId {
    JobId::from_random([3; JobId::LEN])
}

/// An id as Mattermost makes them.
pub(crate) const ID: &str = "abcdefghijklmnopqrstuvwx12";
