//! The labels by which containers and volumes are known to be ours. The gate writes them into
//! each permit; here they are only compared.

use std::collections::HashMap;

use domain::InstanceId;
use gate::ContainerName;

/// The label that every job container carries, whoever's it is.
const APP: (&str, &str) = ("app", "mattermost-calls-offloader");
const INSTANCE: &str = "io.offloader.instance";
const JOB: &str = "io.offloader.job";
const ATTEMPT: &str = "io.offloader.attempt";

/// Whether labels say that what carries them belongs to the attempt of that name.
pub(crate) fn belong_to(labels: &HashMap<String, String>, name: &ContainerName) -> bool {
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    is(APP.0, APP.1)
        && is(INSTANCE, name.instance().as_str())
        && is(JOB, name.job().as_str())
        && is(ATTEMPT, &name.attempt().to_string())
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
}
