//! The policies in force, and what they decided about a job.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use domain::{Hook, Timestamp};
use engine::{PoliciesStatus, PolicyStatus, ReloadFailure, ReloadProblem};
use serde::Serialize;

use super::jobs::owned;
use super::{JobPath, json};
use crate::Api;
use crate::audit;
use crate::auth::Caller;
use crate::caller::Administrator;
use crate::decision_body::DecisionBody;
use crate::error::ApiError;

#[derive(Serialize)]
struct StatusBody<'a> {
    generation: u64,
    loaded_at: i64,
    policies: Vec<PolicyBody<'a>>,
    /// What is wrong with optional policies that the service does without.
    left_out: Vec<ProblemBody<'a>>,
    /// Null unless the last load failed.
    last_failure: Option<FailureBody<'a>>,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    at: i64,
    problems: Vec<ProblemBody<'a>>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    /// Null where it is about the configuration as a whole.
    policy: Option<&'a str>,
    step: &'static str,
    message: &'a str,
}

/// [`FailureBody`] in the form of an error.
#[derive(Serialize)]
struct RefusedBody<'a> {
    error: String,
    code: &'static str,
    #[serde(flatten)]
    failure: FailureBody<'a>,
}

#[derive(Serialize)]
struct PolicyBody<'a> {
    name: &'a str,
    component: &'a str,
    component_sha256: &'a str,
    settings_sha256: &'a str,
    signed_by: Option<&'a str>,
    hooks: Vec<&'static str>,
    mode: &'static str,
    on_failure: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantined_since: Option<i64>,
    limits: LimitsBody,
    grants: GrantsBody<'a>,
    counters: CountersBody,
}

#[derive(Serialize)]
struct LimitsBody {
    component_size_bytes: u64,
    time_ms: u64,
    memory_bytes: u64,
    table_elements: u32,
    host_calls: u32,
    output_bytes: u32,
    log_bytes: u32,
}

#[derive(Serialize)]
struct GrantsBody<'a> {
    inputs: &'a [String],
    env: &'a [String],
    dirs: Vec<DirBody<'a>>,
    real_clock: bool,
    real_entropy: bool,
}

#[derive(Serialize)]
struct DirBody<'a> {
    r#as: &'a str,
    write: bool,
}

#[derive(Serialize)]
struct CountersBody {
    decisions: u64,
    failures: u64,
    failures_in_a_row: u32,
}

impl<'a> StatusBody<'a> {
    fn new(status: &'a PoliciesStatus) -> Self {
        Self {
            generation: status.generation,
            loaded_at: status.loaded_at.as_millis(),
            policies: status.policies.iter().map(PolicyBody::new).collect(),
            left_out: status.left_out.iter().map(ProblemBody::new).collect(),
            last_failure: status.last_failure.as_ref().map(FailureBody::new),
        }
    }
}

impl<'a> FailureBody<'a> {
    fn new(failure: &'a ReloadFailure) -> Self {
        Self {
            at: failure.at.as_millis(),
            problems: failure.problems.iter().map(ProblemBody::new).collect(),
        }
    }
}

impl<'a> ProblemBody<'a> {
    fn new(problem: &'a ReloadProblem) -> Self {
        Self {
            policy: problem.policy.as_deref(),
            step: problem.step,
            message: &problem.message,
        }
    }
}

impl<'a> PolicyBody<'a> {
    fn new(policy: &'a PolicyStatus) -> Self {
        let (limits, grants, counters) = (&policy.limits, &policy.grants, &policy.counters);
        let dirs = grants.dirs.iter().map(|(path, write)| DirBody {
            r#as: path,
            write: *write,
        });
        Self {
            name: &policy.name,
            component: &policy.component,
            component_sha256: &policy.component_sha256,
            settings_sha256: &policy.settings_sha256,
            signed_by: policy.signed_by.as_deref(),
            hooks: policy.hooks.iter().copied().map(Hook::as_str).collect(),
            mode: policy.mode,
            on_failure: policy.on_failure,
            state: match policy.quarantined_since {
                None => "active",
                Some(_) => "quarantined",
            },
            quarantined_since: policy.quarantined_since.map(Timestamp::as_millis),
            limits: LimitsBody {
                component_size_bytes: limits.component_size_bytes,
                time_ms: limits.time_ms,
                memory_bytes: limits.memory_bytes,
                table_elements: limits.table_elements,
                host_calls: limits.host_calls,
                output_bytes: limits.output_bytes,
                log_bytes: limits.log_bytes,
            },
            grants: GrantsBody {
                inputs: &grants.inputs,
                env: &grants.env,
                dirs: dirs.collect(),
                real_clock: grants.real_clock,
                real_entropy: grants.real_entropy,
            },
            counters: CountersBody {
                decisions: counters.decisions,
                failures: counters.failures,
                failures_in_a_row: counters.failures_in_a_row,
            },
        }
    }
}

/// `GET /policies`
pub(super) async fn show(State(api): State<Api>, _: Administrator) -> Response {
    json(&StatusBody::new(&api.policies.status()))
}

/// `POST /policies/reload`
pub(super) async fn reload(State(api): State<Api>, Administrator(from): Administrator) -> Response {
    const ACT: &str = "reload-policies";
    match api.policies.reload().await {
        Ok(status) => {
            audit::record(
                from,
                ACT,
                &format!("generation {}", status.generation),
                "ok",
            );
            json(&StatusBody::new(&status))
        }
        Err(failure) => {
            audit::record(from, ACT, "", "failed");
            let body = RefusedBody {
                error: failure.to_string(),
                code: "422",
                failure: FailureBody::new(&failure),
            };
            (StatusCode::UNPROCESSABLE_ENTITY, json(&body)).into_response()
        }
    }
}

#[derive(Serialize)]
struct DecisionsBody<'a> {
    decisions: Vec<DecisionBody<'a>>,
}

/// `GET /jobs/{id}/decisions`: its owner sees those from which anything could follow.
pub(super) async fn decisions(
    State(api): State<Api>,
    JobPath(id): JobPath,
    caller: Caller,
) -> Result<Response, ApiError> {
    let view = owned(&api, &id, &caller).await?;
    let all = view.decisions.iter();
    let decisions = match caller {
        Caller::Admin => all.map(DecisionBody::for_administrator).collect(),
        Caller::Client(_) => all
            .filter(|decision| decision.enforced)
            .map(DecisionBody::for_owner)
            .collect(),
    };
    Ok(json(&DecisionsBody { decisions }))
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
