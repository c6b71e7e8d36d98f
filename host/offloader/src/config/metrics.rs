//! `[metrics]`: whether the service counts what it does, and where it shows that.

use super::api::ListenAddress;
use super::document::{Section, UnknownKeys};
use super::values::{boolean, text};

/// What is measured, and who may see it.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Whether anything is measured.
    pub(crate) enable: bool,
    /// Where metrics are shown without authentication, beside the API's `GET /metrics`.
    pub(crate) listen: Option<ListenAddress>,
}

pub(super) fn read(root: &Section<'_>) -> Metrics {
    let section = root.section("metrics", UnknownKeys::Refuse);
    let metrics = Metrics {
        enable: section.get("enable", boolean).unwrap_or(true),
        listen: section
            .get("listen_address", |raw| match text(raw)? {
                text if text.is_empty() => Ok(None),
                text => ListenAddress::parse(&text)
                    .map(Some)
                    .ok_or_else(|| format!("expected HOST:PORT, :PORT or nothing, found {text:?}")),
            })
            .flatten(),
    };
    section.finish();
    metrics
}
