//! A bare route that answers a fixed body: what the job API is measured against.
//!
//!     bare_route 127.0.0.1:4546 body.json
#![allow(
    clippy::disallowed_methods,
    reason = "a measuring tool reads the file it is given"
)]

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, file] = &arguments[..] else {
        eprintln!("usage: bare_route ADDRESS FILE");
        std::process::exit(2);
    };
    let body: &'static [u8] = std::fs::read(file)?.leak();
    let answer = move || async move { ([(CONTENT_TYPE, "application/json")], body) };
    let router = Router::new().route("/jobs/{id}", get(answer));
    axum::serve(tokio::net::TcpListener::bind(address).await?, router).await
}
