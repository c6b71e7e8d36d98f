//! Metrics: the recorder behind the `metrics` facade, and what the process tells about itself.
//!
//! Everything that counts something does so through the facade; only here is it known that the
//! numbers end up in Prometheus' text format.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{METRICS_CONTENT_TYPE, RenderMetrics};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use domain::Timestamp;
use metrics::{Unit, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::ambient;

/// Buckets of durations, in seconds: a decision of a policy takes microseconds, a slow request
/// seconds.
const SECONDS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
    5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Buckets of metrics called `offloader_job_…`, in seconds: a job takes from seconds to a day.
const JOB_SECONDS: &[f64] = &[
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0,
    28_800.0, 86_400.0,
];

/// How often measured durations are sorted into their buckets; else that waits until somebody asks.
const UPKEEP: Duration = Duration::from_secs(5);

const MEMORY: &str = "process_resident_memory_bytes";
const FILES: &str = "process_open_fds";
const STARTED: &str = "process_start_time_seconds";
const BUILD: &str = "offloader_build_info";

/// Begins to measure, for the whole process. Needs a runtime, for the upkeep.
///
/// # Errors
/// When something measures already.
pub(crate) fn install(version: &'static str, now: Timestamp) -> anyhow::Result<RenderMetrics> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Prefix("offloader_job_".into()), JOB_SECONDS)
        })
        .context("the buckets of metrics")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("cannot measure anything")?;

    describe_gauge!(MEMORY, Unit::Bytes, "Memory of the process that is in RAM.");
    describe_gauge!(FILES, "Files and sockets that the process has open.");
    describe_gauge!(
        STARTED,
        Unit::Seconds,
        "When the process started, in Unix time."
    );
    describe_gauge!(BUILD, "1; the labels say what is running.");
    gauge!(STARTED).set(now.as_millis() as f64 / 1e3);
    gauge!(BUILD, "version" => version).set(1.0);

    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(Arc::new(move || {
        if let Some(process) = ambient::process() {
            gauge!(MEMORY).set(process.resident_bytes as f64);
            gauge!(FILES).set(f64::from(process.open_files));
        }
        handle.render()
    }))
}

/// `GET /metrics` for an address of its own, where everybody may ask.
pub(crate) fn router(render: RenderMetrics) -> Router {
    let show = get(async move || ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], render()));
    Router::new().route("/metrics", show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn durations_of_microseconds_and_of_hours_can_be_told_apart() {
        let render = install("1.2.3", Timestamp::from_millis(1_500)).unwrap();
        metrics::histogram!("offloader_policy_decision_duration_seconds").record(12e-6);
        metrics::histogram!("offloader_job_duration_seconds").record(5_000.0);
        let text = render();
        for line in [
            "offloader_policy_decision_duration_seconds_bucket{le=\"0.00001\"} 0",
            "offloader_policy_decision_duration_seconds_bucket{le=\"0.000025\"} 1",
            "offloader_job_duration_seconds_bucket{le=\"3600\"} 0",
            "offloader_job_duration_seconds_bucket{le=\"7200\"} 1",
            "offloader_build_info{version=\"1.2.3\"} 1",
            "process_start_time_seconds 1.5",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}\n{text}"))
                .trim()
                .parse::<f64>()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(install("1.2.3", Timestamp::from_millis(0)).is_err());
    }
}
