//! What runs the jobs: containers of an engine, or components inside this process.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use domain::InstanceId;
use engine::{Clock, Runner};
use runner_docker::{DockerConfig, DockerRunner};
use runner_wasi::{WasiConfig, WasiRunner};

use crate::ambient;
use crate::config::{Config, Wasi};
use crate::job_output::LoggingRunner;
use crate::state::StateDir;

/// Jobs that end with this service.
pub(crate) struct Embedded {
    runner: Arc<WasiRunner>,
    shutdown_timeout: Duration,
}

impl Embedded {
    /// Lets the jobs end, for as long as they are given. No other starts meanwhile.
    pub(crate) async fn end(&self) {
        let lost = self.runner.shut_down(self.shutdown_timeout).await;
        if lost > 0 {
            tracing::warn!(lost, "jobs did not end in jobs.wasi.shutdown_timeout");
        }
    }
}

/// The runner that the configuration names, and once more where its jobs end with this service.
///
/// # Errors
/// When the configuration names something that is not there or makes no sense.
pub(crate) fn make(
    config: &Config,
    instance: &InstanceId,
    state: &StateDir,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(Arc<dyn Runner>, Option<Embedded>)> {
    let (runner, embedded): (Arc<dyn Runner>, _) = match &config.jobs.wasi {
        Some(wasi) => {
            let runner = Arc::new(wasi_runner(config, wasi, instance.clone(), state, clock)?);
            let shutdown_timeout = wasi.shutdown_timeout;
            (
                Arc::clone(&runner) as _,
                Some(Embedded {
                    runner,
                    shutdown_timeout,
                }),
            )
        }
        None => (Arc::new(docker(config, instance.clone())?), None),
    };
    let runner = if config.jobs.output_logs {
        Arc::new(LoggingRunner::new(runner))
    } else {
        runner
    };
    Ok((runner, embedded))
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

fn wasi_runner(
    config: &Config,
    wasi: &Wasi,
    instance: InstanceId,
    state: &StateDir,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<WasiRunner> {
    let path = wasi.components.display();
    let components = ambient::open_dir(&wasi.components)
        .with_context(|| format!("cannot open jobs.wasi.components {path}"))?;
    let processors = || thread::available_parallelism().map_or(1, Into::into);
    let threads = wasi
        .threads
        .and_then(|threads| usize::try_from(threads).ok());
    tracing::info!(components = %path, "jobs run inside this service and end with it");
    Ok(WasiRunner::new(WasiConfig {
        instance,
        components,
        images: wasi.images.clone(),
        jobs: state.jobs()?,
        output_max: wasi.output_max_bytes,
        data_max: wasi.data_max_bytes,
        jobs_max: config.jobs.max_concurrent_jobs,
        threads: threads.unwrap_or_else(processors),
        clock,
    })?)
}
