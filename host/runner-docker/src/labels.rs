//! The labels by which containers and volumes are known to be ours. The gate writes them into
//! each permit; here they are only compared.

use std::collections::HashMap;
use std::time::Duration;

use domain::{ClientId, InstanceId, JobId, JobKind, Timestamp};
use gate::ContainerName;
use gate::label::{APP, ATTEMPT, CLIENT, INSTANCE, JOB, KIND, MAX_DURATION, SUBMITTED, VOLUME_OF};

/// What an image says that sends in again, when it is started with the argument `resend`, what is
/// in its volume, and does nothing else.
const RESEND: (&str, &str) = ("io.offloader.resend", "true");

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
    pub(crate) resends: Option<JobId>,
}

/// The container whose volume the container of that name works on, where that is another one.
pub(crate) fn volume_of(
    labels: &HashMap<String, String>,
    name: &ContainerName,
) -> Option<ContainerName> {
    let of = ContainerName::parse(labels.get(VOLUME_OF)?)?;
    (of != *name && of.instance() == name.instance()).then_some(of)
}

/// Whether labels, those of its image among them, say that a container's work can be sent in again.
pub(crate) fn offers_resend(labels: &HashMap<String, String>) -> bool {
    labels.get(RESEND.0).is_some_and(|value| value == RESEND.1)
}

/// Reads what labels say of the job of that container; `None` when one is missing or makes no sense.
pub(crate) fn about(labels: &HashMap<String, String>, name: &ContainerName) -> Option<About> {
    Some(About {
        kind: labels.get(KIND)?.parse().ok()?,
        client: ClientId::new(labels.get(CLIENT)?)?,
        submitted_at: Timestamp::from_millis(labels.get(SUBMITTED)?.parse().ok()?),
        max_duration: Duration::from_millis(labels.get(MAX_DURATION)?.parse().ok()?),
        resends: volume_of(labels, name).map(|of| of.job().clone()),
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

    fn name(instance: &str, job: u8) -> ContainerName {
        let job = JobId::from_random([job; JobId::LEN]);
        ContainerName::new(instance.parse().unwrap(), job, 2)
    }

    #[test]
    fn a_container_works_on_its_own_volume_unless_a_label_names_another_of_the_installation() {
        let own = name("main", 5);
        let said = |of: &str| volume_of(&[(VOLUME_OF.to_owned(), of.to_owned())].into(), &own);
        let other = name("main", 6);
        assert_eq!(said(&other.to_string()), Some(other));
        for none in [own.to_string(), name("x", 6).to_string(), "x".to_owned()] {
            assert_eq!(said(&none), None, "{none}");
        }
        assert_eq!(volume_of(&HashMap::new(), &own), None);
    }

    #[test]
    fn only_an_image_that_says_so_offers_to_send_in_again() {
        let offers = |value: &str| offers_resend(&[(RESEND.0.to_owned(), value.to_owned())].into());
        assert!(offers("true"));
        assert!(!offers("false") && !offers("") && !offers_resend(&HashMap::new()));
    }

    #[test]
    fn what_they_say_of_a_job_is_read_whole_or_not_at_all() {
        let name = name("main", 5);
        let labels: HashMap<String, String> = [
            (KIND, "recording"),
            (CLIENT, "a site: ü"),
            (SUBMITTED, "1700000000000"),
            (MAX_DURATION, "600000"),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into();
        let said = about(&labels, &name).unwrap();
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
        assert_eq!(said.resends, None);
        for (label, value) in [
            (KIND, "other"),
            (CLIENT, ""),
            (SUBMITTED, "yesterday"),
            (MAX_DURATION, "-1"),
        ] {
            let mut labels = labels.clone();
            labels.insert(label.to_owned(), value.to_owned());
            assert!(about(&labels, &name).is_none(), "{label}={value}");
            labels.remove(label);
            assert!(about(&labels, &name).is_none(), "without {label}");
        }
    }
}
