//! The labels by which containers and volumes are known to be ours. The gate writes them into
//! each permit; here they are only compared.

use std::collections::HashMap;
use std::time::Duration;

use domain::{ClientId, InstanceId, JobKind, Timestamp};
use gate::ContainerName;

/// The label that every job container carries, whoever's it is.
const APP: (&str, &str) = ("app", "mattermost-calls-offloader");
const INSTANCE: &str = "io.offloader.instance";
const JOB: &str = "io.offloader.job";
const ATTEMPT: &str = "io.offloader.attempt";
const KIND: &str = "io.offloader.type";
const CLIENT: &str = "io.offloader.client";
const SUBMITTED: &str = "io.offloader.submitted-unix-ms";
const MAX_DURATION: &str = "io.offloader.max-duration-ms";

/// Whether labels say that what carries them belongs to the attempt of that name.
pub(crate) fn belong_to(labels: &HashMap<String, String>, name: &ContainerName) -> bool {
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    is(APP.0, APP.1)
        && is(INSTANCE, name.instance().as_str())
        && is(JOB, name.job().as_str())
        && is(ATTEMPT, &name.attempt().to_string())
}

/// What labels say of the job of a container.
pub(crate) struct About {
    pub(crate) kind: JobKind,
    pub(crate) client: ClientId,
    pub(crate) submitted_at: Timestamp,
    pub(crate) max_duration: Duration,
}

/// Reads what labels say of a job; `None` when one is missing or makes no sense.
pub(crate) fn about(labels: &HashMap<String, String>) -> Option<About> {
    Some(About {
        kind: labels.get(KIND)?.parse().ok()?,
        client: ClientId::new(labels.get(CLIENT)?)?,
        submitted_at: Timestamp::from_millis(labels.get(SUBMITTED)?.parse().ok()?),
        max_duration: Duration::from_millis(labels.get(MAX_DURATION)?.parse().ok()?),
    })
}

/// The engine's filter for everything that carries an installation's labels.
pub(crate) fn filter(instance: &InstanceId) -> HashMap<String, Vec<String>> {
    let labels = vec![
        format!("{}={}", APP.0, APP.1),
        format!("{INSTANCE}={instance}"),
    ];
    HashMap::from([("label".to_owned(), labels)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_four_labels_make_it_ours() {
        let name = ContainerName::new(
            "main".parse().unwrap(),
            domain::JobId::from_random([5; 26]),
            2,
        );
        let job = name.job().to_string();
        let ours: HashMap<String, String> = [
            (APP.0, APP.1),
            (INSTANCE, "main"),
            (JOB, job.as_str()),
            (ATTEMPT, "2"),
            ("other", "x"),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into();
        assert!(belong_to(&ours, &name));
        for label in [APP.0, INSTANCE, JOB, ATTEMPT] {
            let mut without = ours.clone();
            without.remove(label);
            assert!(!belong_to(&without, &name), "without {label}");
            let mut other = ours.clone();
            other.insert(label.to_owned(), "1".to_owned());
            assert!(!belong_to(&other, &name), "another {label}");
        }
    }
    #[test]
    fn what_they_say_of_a_job_is_read_whole_or_not_at_all() {
        let labels: HashMap<String, String> = [
            (KIND, "recording"),
            (CLIENT, "a site: ü"),
            (SUBMITTED, "1700000000000"),
            (MAX_DURATION, "600000"),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into();
        let said = about(&labels).unwrap();
        assert_eq!(
            (
                said.kind,
                said.client.as_str(),
                said.submitted_at.as_millis(),
                said.max_duration
            ),
            (
                JobKind::Recording,
                "a site: ü",
                1_700_000_000_000,
                Duration::from_secs(600)
            )
        );
        for (label, value) in [
            (KIND, "other"),
            (CLIENT, ""),
            (SUBMITTED, "yesterday"),
            (MAX_DURATION, "-1"),
        ] {
            let mut labels = labels.clone();
            labels.insert(label.to_owned(), value.to_owned());
            assert!(about(&labels).is_none(), "{label}={value}");
            labels.remove(label);
            assert!(about(&labels).is_none(), "without {label}");
        }
    }
}
