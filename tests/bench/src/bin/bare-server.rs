//! A service on axum that does nothing: the bytes of a file, to everybody who asks.
//!
//! `bare-server ADDRESS FILE`

#![allow(
    clippy::disallowed_methods,
    reason = "a program for measuring opens what it is told to"
)]

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().context("no ADDRESS given")?;
    let file = args.next().context("no FILE given")?;
    let body = std::fs::read(&file).with_context(|| format!("reading {file}"))?;
    let json = HeaderValue::from_static("application/json");
    let answer = move || async move { ([(CONTENT_TYPE, json)], body) };
    let routes = Router::new()
        .route("/version", get(answer.clone()))
        .route("/healthz", get(answer.clone()))
        .route("/jobs/{id}", get(answer));
    let listener = tokio::net::TcpListener::bind(&address).await?;
    axum::serve(listener, routes).await?;
    Ok(())
}
