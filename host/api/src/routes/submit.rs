//! `POST /jobs`: a job is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::{InputValue, JobKind};
use engine::Submission;
use gate::Gate;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::json;
use crate::Api;
use crate::auth::Caller;
use crate::decode::{self, Fields};
use crate::error::ApiError;
use crate::job_body::JobBody;

/// Characters of the longest `Idempotency-Key`.
const LONGEST_KEY: usize = 255;
/// Seconds of the longest job: a year.
const LONGEST_JOB: u64 = 365 * 24 * 60 * 60;

pub(super) async fn submit(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let idempotency_key = idempotency_key(&headers)?;
    let request = Request::check(
        Fields::parse(&decode::read(body).await?)?,
        api.engine.gate(),
    )?;
    let (owner, client) = caller.owner(&api);
    let kind = request.kind;
    let submission = Submission {
        owner,
        client,
        kind,
        body_sha256: request.digest(),
        runner: request.runner,
        max_duration: request.max_duration,
        inputs: request
            .inputs
            .into_iter()
            .map(|(name, value)| (name, input(value)))
            .collect(),
        idempotency_key,
    };
    // When the client hangs up this future is dropped, and with it the wish that the job starts.
    match api.engine.submit(submission).await {
        Ok(view) => Ok(json(&JobBody::new(&view))),
        Err(error) => Err(ApiError::submit(kind, api.start_timeout, &error)),
    }
}

/// The header that other clients than the plugin repeat a request with.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match key.to_str() {
        Ok(key) if (1..=LONGEST_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::bad_request(
            "invalid Idempotency-Key: should be 1 to 255 ASCII characters",
        )),
    }
}

/// A request whose form is right.
struct Request {
    kind: JobKind,
    runner: String,
    max_duration: Duration,
    inputs: BTreeMap<String, Value>,
}

impl Request {
    /// Checks the form, in the order in which the standard service does.
    fn check(mut fields: Fields, gate: &Gate) -> Result<Self, ApiError> {
        let kind = fields.text("type")?;
        let runner = fields.text("runner")?;
        let seconds = fields.integer("max_duration_sec")?;
        let inputs = fields.object("input_data")?;
        if kind.is_empty() {
            return Err(ApiError::bad_request(
                "invalid Type value: should not be empty",
            ));
        }
        gate.runner(&runner)
            .map_err(|refusal| ApiError::bad_request(format!("invalid Runner value: {refusal}")))?;
        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
        let Some(seconds) = seconds else {
            return Err(ApiError::bad_request(
                "invalid MaxDurationSec value: should be positive",
            ));
        };
        if seconds > LONGEST_JOB {
            return Err(ApiError::bad_request(format!(
                "invalid MaxDurationSec value: should be at most {LONGEST_JOB}"
            )));
        }
        let kind = kind
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid Type value: {kind:?}")))?;
        let inputs = inputs.into_iter().collect();
        Ok(Self {
            kind,
            runner,
            max_duration: Duration::from_secs(seconds),
            inputs,
        })
    }

    /// sha256 of what the request means: the same for another order of its fields.
    fn digest(&self) -> String {
        let inputs: Map<String, Value> = self.inputs.clone().into_iter().collect();
        let meaning = json!([
            self.kind.as_str(),
            self.runner,
            self.max_duration.as_secs(),
            inputs
        ]);
        hex::encode(Sha256::digest(meaning.to_string()))
    }
}

/// A value of `input_data`. A whole number reads the same however it was written.
fn input(value: Value) -> InputValue {
    match value {
        Value::String(text) => InputValue::Text(text),
        Value::Number(number) => InputValue::Json(plain(&number)),
        other => InputValue::Json(other.to_string()),
    }
}

fn plain(number: &serde_json::Number) -> String {
    /// Whole numbers up to here are exact in 64-bit floats.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_type_and_numbers_are_plain() {
        for (json, expected) in [
            ("\"a\"", InputValue::Text("a".into())),
            ("true", InputValue::Json("true".into())),
            ("null", InputValue::Json("null".into())),
            ("1280", InputValue::Json("1280".into())),
            ("1.28e3", InputValue::Json("1280".into())),
            ("-0.5", InputValue::Json("-0.5".into())),
            ("[1, {\"b\": 2}]", InputValue::Json("[1,{\"b\":2}]".into())),
        ] {
            assert_eq!(
                input(serde_json::from_str(json).unwrap()),
                expected,
                "{json}"
            );
        }
    }

    #[test]
    fn the_digest_tells_meaning_and_not_order() {
        let request = |inputs: &str, seconds| Request {
            kind: JobKind::Recording,
            runner: "r".into(),
            max_duration: Duration::from_secs(seconds),
            inputs: serde_json::from_str(inputs).unwrap(),
        };
        let digest = request(r#"{"a":1,"b":{"c":1,"d":2}}"#, 1).digest();
        assert_eq!(digest, request(r#"{"b":{"d":2,"c":1},"a":1}"#, 1).digest());
        assert_ne!(digest, request(r#"{"a":1,"b":{"c":1,"d":3}}"#, 1).digest());
        assert_ne!(digest, request(r#"{"a":1,"b":{"c":1,"d":2}}"#, 2).digest());
        assert_eq!(digest.len(), 64);
    }
}
