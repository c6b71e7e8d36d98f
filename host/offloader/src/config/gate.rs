//! `[gate]`: what jobs may do at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::{DeliveredWhen, Digest, JobKind};
use gate::{Grants, JobGrants, RunnerRule};

use super::Modes;
use super::document::{Raw, Section, UnknownKeys};
use super::values::{
    boolean, bytes, cpus, duration, duration_from, number, number32, text, texts, word,
};

/// Without any grace a request to stop would be a kill.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

pub(super) fn read(root: &Section<'_>, image_registry: &str, modes: Modes) -> Grants {
    let mut grants = Grants::standard(image_registry);
    if modes.dev {
        grants = grants.in_dev_mode();
    } else if modes.test {
        grants.runner_rule = RunnerRule::Any;
    }
    if let Some(network) = root.reader().environment().get("DOCKER_NETWORK") {
        grants.recording.networks = vec![network.to_owned()];
        grants.transcribing.networks = vec![network.to_owned()];
    }
    let gate = root.section("gate", UnknownKeys::Refuse);
    set(&mut grants.registries, gate.get("registries", texts));
    for kind in JobKind::ALL {
        let section = gate.section(kind.as_str(), UnknownKeys::Refuse);
        let grants = match kind {
            JobKind::Recording => &mut grants.recording,
            JobKind::Transcribing => &mut grants.transcribing,
        };
        read_job(section, grants);
    }
    gate.finish();
    grants
}

fn read_job(section: Section<'_>, grants: &mut JobGrants) {
    set(
        &mut grants.images,
        section.get("images", |raw| Ok(BTreeSet::from_iter(texts(raw)?))),
    );
    set(
        &mut grants.require_digest,
        section.get("require_digest", boolean),
    );
    set(&mut grants.site_hosts, section.get("site_hosts", texts));
    set(&mut grants.networks, section.get("networks", texts));
    set(&mut grants.memory_bytes, section.get("memory", bytes));
    set(&mut grants.nano_cpus, section.get("cpus", cpus));
    set(&mut grants.pids, section.get("pids", number(0)));
    set(
        &mut grants.capabilities,
        section.get("capabilities", |raw| Ok(BTreeSet::from_iter(texts(raw)?))),
    );
    set(
        &mut grants.stop_grace,
        section.get("stop_grace", duration_from(SHORTEST_GRACE)),
    );
    set(
        &mut grants.chromium_args,
        section.get("chromium_args", texts),
    );
    set(
        &mut grants.delivered_when,
        section.get("delivered_when", word(DELIVERED_WHEN)),
    );
    grants.digests = by_name(section.section("digests", UnknownKeys::Refuse), |raw| {
        let text = text(raw)?;
        text.parse::<Digest>()
            .map_err(|_| format!("expected sha256: and 64 hexadecimal digits, found {text:?}"))
    });
    grants.inputs = by_name(section.section("inputs", UnknownKeys::Refuse), text);

    let retry = section.section("retry", UnknownKeys::Refuse);
    set(
        &mut grants.retry.max_attempts,
        retry.get("max_attempts", number32(1)),
    );
    set(
        &mut grants.retry.max_delay,
        retry.get("max_delay", duration),
    );
    set(&mut grants.retry.after_run, retry.get("after_run", boolean));
    retry.finish();

    let retention = section.section("retention", UnknownKeys::Refuse);
    set(
        &mut grants.retention.failed_at_least,
        retention.get("failed_at_least", duration),
    );
    set(
        &mut grants.retention.at_most,
        retention.get("at_most", duration),
    );
    retention.finish();
    section.finish();
}

/// The names of [`DeliveredWhen`].
pub(super) const DELIVERED_WHEN: &[(&str, DeliveredWhen)] = &[
    ("no-media-left", DeliveredWhen::NoMediaLeft),
    ("exit-0", DeliveredWhen::ExitZero),
];

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A table whose keys are names that the operator chooses.
fn by_name<T>(
    section: Section<'_>,
    read: impl Fn(Raw<'_>) -> Result<T, String>,
) -> BTreeMap<String, T> {
    let mut values = BTreeMap::new();
    for (name, place, value) in section.entries() {
        match read(Raw::Toml(value)) {
            Ok(value) => {
                values.insert(name.to_owned(), value);
            }
            Err(message) => section.reader().problem(place, &section.key(name), message),
        }
    }
    values
}
