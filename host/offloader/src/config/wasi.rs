//! `[jobs.wasi]`: components that run inside the service in place of containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use domain::ImageRef;
use toml::de::DeValue;

use super::document::{Section, UnknownKeys};
use super::values::{bytes, duration, number32, text};

/// The embedded runner.
#[derive(Debug)]
pub(crate) struct Wasi {
    /// The directory that components are named in.
    pub(crate) components: PathBuf,
    /// From image to component.
    pub(crate) images: BTreeMap<String, String>,
    /// Bytes of a job's output that are kept.
    pub(crate) output_max_bytes: u64,
    /// Bytes that a job may have on `/data`; 0 is no limit.
    pub(crate) data_max_bytes: u64,
    /// Threads that jobs compute on; `None` is one for each processor.
    pub(crate) threads: Option<u32>,
    /// How long jobs may take to end when the service does.
    pub(crate) shutdown_timeout: Duration,
}

const OUTPUT_MAX: u64 = 10 << 20;
/// Room for a long recording. What jobs write is on the disk that the store is on.
const DATA_MAX: u64 = 8 << 30;
/// Well below the time that systemd gives a service to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The section, which has to be there when `wanted`.
pub(super) fn read(jobs: &Section<'_>, wanted: bool) -> Option<Wasi> {
    let wasi = jobs.section("wasi", UnknownKeys::Refuse);
    let components = wasi.get("components", text).map(PathBuf::from);
    let images = images(&wasi.section("images", UnknownKeys::Refuse));
    let output_max_bytes = wasi.get("output_max", bytes).unwrap_or(OUTPUT_MAX);
    let data_max_bytes = wasi.get("data_max", bytes).unwrap_or(DATA_MAX);
    let threads = wasi.get("threads", number32(1));
    let shutdown_timeout = wasi
        .get("shutdown_timeout", duration)
        .unwrap_or(SHUTDOWN_TIMEOUT);
    if wanted {
        let missing = |name: &'static str, message: &str| {
            let reader = wasi.reader();
            reader.problem(reader.place("jobs.api_type"), &wasi.key(name), message);
        };
        if components.is_none() {
            missing("components", "expected the directory of the components");
        }
        if images.is_empty() {
            missing(
                "images",
                "expected a table from image to component: { \"mattermost/calls-recorder:v0.8.13\" = \"recorder.wasm\" }",
            );
        }
    }
    wasi.finish();
    let components = components.filter(|_| wanted)?;
    Some(Wasi {
        components,
        images,
        output_max_bytes,
        data_max_bytes,
        threads,
        shutdown_timeout,
    })
}

fn images(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut images = BTreeMap::new();
    for (image, place, value) in section.entries() {
        let key = section.key(image);
        match (image.parse::<ImageRef>(), value) {
            (Ok(image), DeValue::String(file)) if !file.is_empty() => {
                images.insert(image.to_string(), file.to_string());
            }
            (Ok(_), _) => section
                .reader()
                .problem(place, &key, "expected the file of a component"),
            (Err(error), _) => section.reader().problem(place, &key, error.to_string()),
        }
    }
    images
}
