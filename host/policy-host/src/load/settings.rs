//! Whether a policy can work with its settings: asked once, of an instance of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{JobFacts, JobKind, Timestamp};
use sha2::{Digest, Sha256};

use super::wrong_export;
use crate::failure::Failure;
use crate::guest::Guest;
use crate::hooks;
use crate::load_error::LoadProblem;
use crate::policy::{Policy, log_output, new_store};

/// A policy's settings are checked in more time than it has for a decision: this happens once, on
/// code that was never run, while other policies are being compiled.
const SETTINGS_CHECK_TIME: Duration = Duration::from_secs(1);

/// Makes an instance once, compares its exports with the contract, and asks about its settings.
pub(super) fn check_settings(policy: &Policy) -> Result<(), Vec<LoadProblem>> {
    let fail = |failure: Failure| vec![LoadProblem::from(failure)];
    let mut limits = policy.limits;
    limits.time = limits.time.max(SETTINGS_CHECK_TIME);
    let deadline = Instant::now() + limits.time;
    let _deciding = policy.sandbox.ticker.decide(deadline);
    let guest = Guest::new(
        Arc::new(nothing()),
        Arc::clone(&policy.settings),
        Arc::clone(&policy.grants),
        limits,
        deadline,
    );
    let mut store = new_store(&policy.sandbox, guest);
    let (linked, exports) = (&policy.instances, &policy.exports);
    let instance = linked.instance(&mut store).map_err(fail)?;
    exports
        .check_types(&mut store, &instance)
        .map_err(wrong_export)?;
    let checked = match &exports.settings_check {
        None => Ok(Vec::new()),
        Some(function) => linked
            .call(function, &mut store, &instance, ())
            .and_then(|(problems,)| hooks::setting_problems(problems, store.data())),
    };
    if let Some(wasi) = store.data_mut().wasi.take() {
        log_output(&policy.identity.name, &wasi.output());
    }
    let problems = checked.map_err(fail)?;
    if problems.is_empty() {
        return Ok(());
    }
    let told = |(key, message)| LoadProblem::Setting { key, message };
    Err(problems.into_iter().map(told).collect())
}

/// Keys and values with their lengths, in the order of the keys.
pub(super) fn settings_sha256(settings: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for text in settings.iter().flat_map(|(key, value)| [key, value]) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Settings are checked without a job. None is passed, so that nothing of this is seen but the time.
fn nothing() -> JobFacts {
    let never = Timestamp::from_millis(0);
    JobFacts {
        id: String::new(),
        client: String::new(),
        kind: JobKind::Recording,
        image_asked: String::new(),
        image_chosen: String::new(),
        site_url_asked: String::new(),
        site_url_chosen: String::new(),
        max_duration: Duration::ZERO,
        submitted_at: never,
        now: never,
        start_by: never,
        attempts: Vec::new(),
        delivery: None,
        inputs: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_settings_tells_keys_from_values() {
        let digest = |pairs: &[(&str, &str)]| {
            settings_sha256(
                &pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(
            digest(&[("a", "b"), ("c", "d")]),
            digest(&[("c", "d"), ("a", "b")])
        );
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(digest(&[("a", "b")]), digest(&[]));
    }
}
