//! A job as the API shows it.

use domain::{Attempt, Decision, Delivery, ImageRef, InputValue, Inputs, State, Timestamp};
use engine::JobView;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::decision_body::DecisionBody;

/// A job: the fields of the standard service, and ours beside them. Borrows all it can, because
/// this is what is asked for most.
#[derive(Serialize)]
pub(crate) struct JobBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    max_duration_sec: u64,
    runner: &'a str,
    input_data: InputsBody<'a>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resends: Option<&'a str>,
    start_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_at: Option<i64>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kill_at: Option<i64>,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    site_url: Option<&'a str>,
    submitted_at: i64,
    start_by: i64,
    attempts: AttemptsBody<'a>,
    decisions: DecisionsBody<'a>,
}

impl<'a> JobBody<'a> {
    /// How `view` is shown.
    pub(crate) fn new(view: &'a JobView) -> Self {
        let job = &*view.job;
        let end = job.state.end();
        let (deadline, kill_at, keep_until) = match job.state {
            State::Running { deadline, .. } => (Some(deadline), None, None),
            State::Stopping { kill_at, .. } => (None, Some(kill_at), None),
            State::Retained { until, .. } => (None, None, until),
            _ => (None, None, None),
        };
        Self {
            kind: job.kind.as_str(),
            max_duration_sec: job.max_duration.as_secs(),
            runner: &job.image_asked,
            input_data: InputsBody(&job.inputs),
            id: job.id.as_str(),
            resends: job.resends.as_ref().map(domain::JobId::as_str),
            start_at: job.running_at().unwrap_or(job.submitted_at).as_millis(),
            stop_at: end.map(|end| end.at.as_millis()),
            state: job.state.lifecycle().as_str(),
            outcome: end.map(|end| end.outcome.as_str()),
            reason: end.map(|end| end.reason.code()),
            exit_code: end.and_then(|end| end.reason.exit_code()),
            delivery: end.map(|end| delivery_name(end.delivery)),
            unsent_bytes: end.and_then(|end| match end.delivery {
                Delivery::Unsent { bytes } => Some(bytes),
                _ => None,
            }),
            keep_until: keep_until.map(Timestamp::as_millis),
            deadline: deadline.map(Timestamp::as_millis),
            kill_at: kill_at.map(Timestamp::as_millis),
            client: job.client.as_str(),
            site_url: job.site_url.as_ref().map(domain::SiteUrl::as_str),
            submitted_at: job.submitted_at.as_millis(),
            start_by: job.start_by.as_millis(),
            attempts: AttemptsBody(&job.attempts),
            decisions: DecisionsBody(&view.decisions),
        }
    }
}

/// The name of what became of a job's work.
pub(crate) fn delivery_name(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::NeverRan => "never-ran",
        Delivery::Delivered => "delivered",
        Delivery::Unsent { .. } => "unsent",
        Delivery::Unknown => "unknown",
    }
}

/// Inputs with the JSON types they came with.
struct InputsBody<'a>(&'a Inputs);

impl Serialize for InputsBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            match value {
                InputValue::Text(text) => map.serialize_entry(name, text)?,
                InputValue::Json(json) => match serde_json::from_str::<&RawValue>(json) {
                    Ok(json) => map.serialize_entry(name, json)?,
                    Err(_) => map.serialize_entry(name, json)?,
                },
            }
        }
        map.end()
    }
}

struct AttemptsBody<'a>(&'a [Attempt]);

impl Serialize for AttemptsBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|attempt| AttemptBody {
            number: attempt.number,
            image: &attempt.image,
            image_id: attempt.image_id.as_ref().map(domain::Digest::as_str),
            started_at: attempt.started_at.as_millis(),
            running_at: attempt.running_at.map(Timestamp::as_millis),
            ended_at: attempt.ended_at.map(Timestamp::as_millis),
            reason: attempt.reason.map(domain::EndReason::code),
            exit_code: attempt.reason.and_then(domain::EndReason::exit_code),
        }))
    }
}

#[derive(Serialize)]
struct AttemptBody<'a> {
    number: u32,
    #[serde(serialize_with = "as_text")]
    image: &'a ImageRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<&'a str>,
    started_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    running_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
}

fn as_text<S: Serializer>(image: &ImageRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(image)
}

/// Those from which anything could follow.
struct DecisionsBody<'a>(&'a [Decision]);

impl Serialize for DecisionsBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let enforced = self.0.iter().filter(|decision| decision.enforced);
        serializer.collect_seq(enforced.map(|decision| {
            let mut body = DecisionBody::for_owner(decision);
            body.micros = Some(decision.micros);
            body
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use domain::{
        ClientId, DecisionOutcome, End, EndReason, Hook, Job, JobId, JobKind, Outcome,
        RegistrationId,
    };
    use serde_json::{Value, json};

    use super::*;

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn view(state: State) -> JobView {
        let mut attempt = Attempt::new(
            1,
            "localhost:5000/mattermost/calls-recorder:v0.8.13"
                .parse()
                .unwrap(),
            time(10),
        );
        attempt.running_at = Some(time(20));
        let json = |text: &str| InputValue::Json(text.to_owned());
        let job = Job {
            id: JobId::from_random([0; 26]),
            owner: RegistrationId(1),
            client: ClientId::new("site").unwrap(),
            kind: JobKind::Recording,
            image_asked: "mattermost/calls-recorder:v0.8.13".into(),
            site_url_asked: "https://a.example".into(),
            site_url: Some("http://b.example:8065".parse().unwrap()),
            max_duration: Duration::from_secs(60),
            inputs: Inputs::from([
                ("call_id".into(), InputValue::Text("c".into())),
                ("live".into(), json("true")),
                ("options".into(), json(r#"{"a":[1]}"#)),
                ("width".into(), json("1280")),
            ]),
            submitted_at: time(5),
            start_by: time(100_005),
            resends: None,
            attempts: vec![attempt],
            state,
        };
        let decision = Decision {
            at: time(6),
            hook: Hook::ImageSelection,
            attempt: None,
            policy: "image-map".into(),
            component_sha256: "c".into(),
            settings_sha256: "s".into(),
            read: vec![],
            outcome: DecisionOutcome::Answered,
            enforced: true,
            verdict: "use".into(),
            value: Some("localhost:5000/mattermost/calls-recorder:v0.8.13".into()),
            reason: None,
            micros: 17,
        };
        JobView {
            job: Arc::new(job),
            decisions: vec![decision],
        }
    }

    fn shown(state: State) -> Value {
        serde_json::to_value(JobBody::new(&view(state))).unwrap()
    }

    #[test]
    fn a_running_job_has_the_standard_fields_with_their_types_and_no_stop_at() {
        let body = shown(State::Running {
            since: time(20),
            deadline: time(60_020),
        });
        assert_eq!(
            body,
            json!({
                "type": "recording", "max_duration_sec": 60, "runner": "mattermost/calls-recorder:v0.8.13",
                "input_data": {"call_id": "c", "live": true, "options": {"a": [1]}, "width": 1280},
                "id": "aaaaaaaaaaaaaaaaaaaaaaaaaa", "start_at": 20,
                "state": "running", "deadline": 60_020, "client": "site", "site_url": "http://b.example:8065",
                "submitted_at": 5, "start_by": 100_005,
                "attempts": [{
                    "number": 1, "image": "localhost:5000/mattermost/calls-recorder:v0.8.13",
                    "started_at": 10, "running_at": 20
                }],
                "decisions": [{
                    "at": 6, "hook": "image-selection", "policy": "image-map", "outcome": "answered",
                    "verdict": "use", "value": "localhost:5000/mattermost/calls-recorder:v0.8.13", "micros": 17
                }]
            })
        );
    }

    #[test]
    fn a_job_that_sends_in_what_another_left_names_that_one() {
        let mut view = view(State::Preparing);
        let other = JobId::from_random([7; JobId::LEN]);
        Arc::make_mut(&mut view.job).resends = Some(other.clone());
        let body = serde_json::to_value(JobBody::new(&view)).unwrap();
        assert_eq!(body["resends"], json!(other.as_str()));
    }

    #[test]
    fn an_ended_job_tells_how_and_what_is_kept() {
        let end = End {
            at: time(50),
            reason: EndReason::Exited(1),
            outcome: Outcome::Failed,
            delivery: Delivery::Unsent { bytes: 7 },
        };
        let body = shown(State::Retained {
            end,
            until: Some(time(99)),
        });
        for (field, value) in [
            ("stop_at", json!(50)),
            ("state", json!("retained")),
            ("outcome", json!("failed")),
            ("reason", json!("exited")),
            ("exit_code", json!(1)),
            ("delivery", json!("unsent")),
            ("unsent_bytes", json!(7)),
            ("keep_until", json!(99)),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
    }
}
