//! The configuration: a TOML file in the form that sites already have, environment variables over
//! it, and our own keys beside.
//!
//! Everything that is wrong is found in one go, each with its place and what was expected.

mod api;
mod document;
mod environment;
mod gate;
mod jobs;
mod logger;
mod metrics;
mod policies;
mod show;
mod store;
pub(crate) mod values;
mod wasi;

use std::fmt;
use std::path::PathBuf;

use ::gate::{Gate, Grants};
use toml::de::DeTable;

pub(crate) use api::{Api, ListenAddress, TlsFiles};
pub(crate) use document::{Place, Problem, Raw, Reader, Section, UnknownKeys};
pub(crate) use environment::Environment;
pub(crate) use jobs::Jobs;
pub(crate) use logger::{FileLog, Logger};
pub(crate) use metrics::Metrics;
pub(crate) use policies::{GrantedDir, Policies, Policy, limits, settings};
pub(crate) use store::Store;
pub(crate) use wasi::Wasi;

/// All that the service is told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) api: Api,
    pub(crate) store: Store,
    pub(crate) jobs: Jobs,
    pub(crate) logger: Logger,
    pub(crate) metrics: Metrics,
    pub(crate) grants: Grants,
    pub(crate) policies: Policies,
    pub(crate) docker: Docker,
    pub(crate) modes: Modes,
}

/// Rules that the environment switches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Modes {
    /// `DEV_MODE`: a developer's machine.
    pub(crate) dev: bool,
    /// `TEST_MODE`: any runner may be asked for.
    pub(crate) test: bool,
}

/// What Docker's own clients read from the environment.
#[derive(Debug, Default)]
pub(crate) struct Docker {
    pub(crate) host: Option<String>,
    pub(crate) tls_verify: bool,
    pub(crate) cert_path: Option<PathBuf>,
    pub(crate) api_version: Option<String>,
}

/// The configuration and what to tell about it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Problem>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub(crate) struct Problems {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// The configuration file: how it is called in messages, and its text if it is there.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: Option<&'a str>,
}

/// Reads the configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn load(source: Source<'_>, environment: &Environment) -> Result<Loaded, Problems> {
    let text = source.text.unwrap_or_default();
    let reader = Reader::new(source.name, text, environment);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error
            .span()
            .map_or(Place::Nowhere, |span| reader.line(span.start));
        reader.problem(place, "", error.message().replace('\n', ", "));
    }
    // What is read of a broken document is not worth talking about.
    if !errors.is_empty() {
        let (problems, warnings) = reader.finish();
        return Err(Problems { problems, warnings });
    }
    let config = read(&reader, document.get_ref(), source.text.is_some());
    let (problems, warnings) = reader.finish();
    if problems.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(Problems { problems, warnings })
    }
}

fn read<'a>(reader: &'a Reader<'a>, document: &'a DeTable<'a>, has_file: bool) -> Config {
    let root = reader.root(document);
    let modes = Modes {
        dev: switch(reader, "DEV_MODE"),
        test: switch(reader, "TEST_MODE"),
    };
    let jobs = jobs::read(&root);
    let config = Config {
        api: api::read(&root),
        store: store::read(&root),
        logger: logger::read(&root, has_file),
        metrics: metrics::read(&root),
        grants: gate::read(&root, &jobs.image_registry, modes),
        policies: policies::read(&root),
        docker: docker(reader),
        modes,
        jobs,
    };
    check_grants(reader, &config.grants);
    root.finish();
    config
}

fn switch(reader: &Reader<'_>, variable: &str) -> bool {
    let Some(value) = reader.environment().get(variable) else {
        return false;
    };
    values::boolean(Raw::Text(value)).unwrap_or_else(|message| {
        reader.problem(Place::Environment(variable.to_owned()), "", message);
        false
    })
}

fn docker(reader: &Reader<'_>) -> Docker {
    let value = |variable| reader.environment().get(variable).map(str::to_owned);
    Docker {
        host: value("DOCKER_HOST"),
        tls_verify: value("DOCKER_TLS_VERIFY").is_some(),
        cert_path: value("DOCKER_CERT_PATH").map(PathBuf::from),
        api_version: value("DOCKER_API_VERSION"),
    }
}

/// The gate knows what may never be granted; its complaints get their place here.
fn check_grants(reader: &Reader<'_>, grants: &Grants) {
    let Ok(anybody) = "check".parse() else { return };
    let mut default_told = false;
    for invalid in Gate::new(grants.clone(), anybody)
        .err()
        .into_iter()
        .flatten()
    {
        // Where no registries are granted by name, the one of the jobs is.
        let key = match invalid.setting.as_str() {
            "gate.registries" if !reader.has("gate.registries") => "jobs.image_registry",
            key => key,
        };
        if key == "jobs.image_registry" && std::mem::replace(&mut default_told, true) {
            continue;
        }
        reader.problem(reader.place(key), key, invalid.problem);
    }
}

#[cfg(test)]
mod tests;
