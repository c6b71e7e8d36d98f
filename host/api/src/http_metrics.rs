//! Counts requests and tells all metrics.
//!
//! Labels are of few values by construction: routes as they are written down here, never paths.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::Api;
use crate::caller::Administrator;
use crate::error::ApiError;

/// The content type of Prometheus' text format.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const REQUESTS: &str = "offloader_http_requests_total";
const DURATION: &str = "offloader_http_request_duration_seconds";

/// Says what is counted here.
pub(crate) fn describe() {
    describe_counter!(
        REQUESTS,
        "Requests answered, by route, method and class of status."
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time until the head of an answer, by route and method."
    );
}

/// Counts one request.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = name(request.method());
    let began = Instant::now();
    let response = next.run(request).await;
    let duration = began.elapsed();
    let status = class(response.status());
    counter!(REQUESTS, "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    histogram!(DURATION, "route" => route, "method" => method).record(duration);
    response
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// `GET /metrics`
pub(crate) async fn show(State(api): State<Api>, _: Administrator) -> Result<Response, ApiError> {
    let render = api.metrics.as_ref().ok_or_else(ApiError::unknown_path)?;
    Ok(([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], render()).into_response())
}
