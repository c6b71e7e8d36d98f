//! What runs the jobs: containers of an engine, or components inside this process.

use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use domain::InstanceId;
use engine::{Clock, Runner};
use runner_docker::{DockerConfig, DockerRunner};
use runner_wasi::{WasiConfig, WasiRunner};

use crate::ambient;
use crate::config::{Config, Wasi};
use crate::job_output::LoggingRunner;
use crate::state::StateDir;

/// The runner that the configuration names.
///
/// # Errors
/// When the configuration names something that is not there or makes no sense.
pub(crate) fn make(
    config: &Config,
    instance: &InstanceId,
    state: &StateDir,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Runner>> {
    let runner: Arc<dyn Runner> = match &config.jobs.wasi {
        Some(wasi) => Arc::new(embedded(wasi, state, clock)?),
        None => Arc::new(docker(config, instance.clone())?),
    };
    Ok(if config.jobs.output_logs {
        Arc::new(LoggingRunner::new(runner))
    } else {
        runner
    })
}

fn docker(config: &Config, instance: InstanceId) -> anyhow::Result<DockerRunner> {
    let environment = &config.docker;
    let mut docker = DockerConfig::new(instance);
    docker.host = environment.host.clone();
    docker.tls_verify = environment.tls_verify;
    docker.cert_path = environment.cert_path.clone();
    docker.api_version = environment.api_version.clone();
    docker.pull_stall_timeout = config.jobs.pull_stall_timeout;
    docker.free_bytes = Some(ambient::free_bytes);
    Ok(DockerRunner::connect(docker)?)
}

fn embedded(wasi: &Wasi, state: &StateDir, clock: Arc<dyn Clock>) -> anyhow::Result<WasiRunner> {
    let path = wasi.components.display();
    let components = ambient::open_dir(&wasi.components)
        .with_context(|| format!("cannot open jobs.wasi.components {path}"))?;
    let processors = || thread::available_parallelism().map_or(1, Into::into);
    let threads = wasi
        .threads
        .and_then(|threads| usize::try_from(threads).ok());
    tracing::info!(components = %path, "jobs run inside this service and end with it");
    Ok(WasiRunner::new(WasiConfig {
        components,
        images: wasi.images.clone(),
        jobs: state.jobs()?,
        output_max: wasi.output_max_bytes,
        data_max: wasi.data_max_bytes,
        threads: threads.unwrap_or_else(processors),
        clock,
    })?)
}
