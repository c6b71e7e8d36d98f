//! What policies are told about a job.

use domain::{InputValue, Inputs, Job, JobFacts, JobKind, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// The facts of a job that exists, for all questions but a submission's first ones.
pub(crate) fn of_job(job: &Job, now: Timestamp) -> JobFacts {
    JobFacts {
        id: job.id.to_string(),
        client: job.client.to_string(),
        kind: job.kind,
        image_asked: job.image_asked.clone(),
        image_chosen: job.attempt().image.to_string(),
        site_url_asked: job.site_url_asked.clone(),
        site_url_chosen: job
            .site_url
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        max_duration: job.max_duration,
        submitted_at: job.submitted_at,
        now,
        start_by: job.start_by,
        attempts: job.attempts.clone(),
        delivery: job.state.end().map(|end| end.delivery),
        inputs: by_lower_case_name(&job.inputs),
    }
}

/// The facts of an image that is only to be at hand.
pub(crate) fn of_prefetch(client: &str, kind: JobKind, image: &str, now: Timestamp) -> JobFacts {
    JobFacts {
        id: String::new(),
        client: client.to_owned(),
        kind,
        image_asked: image.to_owned(),
        image_chosen: image.to_owned(),
        site_url_asked: String::new(),
        site_url_chosen: String::new(),
        max_duration: Duration::ZERO,
        submitted_at: now,
        now,
        start_by: now,
        attempts: Vec::new(),
        delivery: None,
        inputs: BTreeMap::new(),
    }
}

/// Inputs as policies name them. The gate has refused names that differ in case only.
pub(crate) fn by_lower_case_name(inputs: &Inputs) -> BTreeMap<String, String> {
    let text = |(name, value): (&String, &InputValue)| {
        (name.to_ascii_lowercase(), value.as_text().to_owned())
    };
    inputs.iter().map(text).collect()
}
