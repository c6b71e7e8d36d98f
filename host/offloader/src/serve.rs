//! Wiring: opens what the service needs, puts the floors together, serves, and ends cleanly.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{ApiConfig, AuthSettings, Build};
use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use engine::{Clock as _, Engine, EngineConfig, Policies, Ports, Registrations, Store};
use gate::Gate;
use store::{SetAside, SqliteStore, StoreConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ambient;
use crate::clock::SteadyClock;
use crate::config::Config;
use crate::connections::{self, Limits};
use crate::policies::{Changes, PolicyKeeper};
use crate::runner::Embedded;
use crate::state::StateDir;
use crate::{listen, metrics, runner, systemd};

/// How long answers under way may take when the service ends.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long the engine may take to save everything when the service ends.
const LAST_COMMITS: Duration = Duration::from_secs(30);

/// A service that is ready to answer.
pub(crate) struct Service {
    engine: Engine,
    router: Router,
    listener: TcpListener,
    limits: Limits,
    tls: Option<RustlsConfig>,
    /// Where metrics are shown without authentication, and what shows them.
    metrics: Option<(TcpListener, Router)>,
    policies: PolicyKeeper,
    policy_changes: Changes,
    /// Where jobs end with the service.
    embedded: Option<Embedded>,
    signals: Signals,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Some(signal(SignalKind::hangup())?),
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Opens everything. Nothing is served and no container touched before all of it is there. `file`
/// is where the configuration was read from, and whether there was such a file.
///
/// # Errors
/// The first thing that cannot be had.
pub(crate) async fn start(config: Config, file: (PathBuf, bool)) -> anyhow::Result<Service> {
    let signals = Signals::watch().context("cannot watch for signals")?;
    ambient::raise_file_limit();
    let state = StateDir::open(&config.store.directory)?;
    if state.has_standard_store() {
        tracing::info!("the standard service's store is in the state directory; it is left alone");
    }
    let store = Arc::new(open_store(&state)?);
    let clock = resume_time(&store).await?;
    // Before anything that counts.
    let render_metrics = match config.metrics.enable {
        true => Some(metrics::install(env!("CARGO_PKG_VERSION"), clock.now())?),
        false => None,
    };
    let tls = config
        .api
        .tls
        .as_ref()
        .map(listen::tls)
        .transpose()?
        .map(RustlsConfig::from_config);
    let instance = match config.jobs.instance.clone() {
        Some(instance) => instance,
        None => state.instance()?,
    };
    let (runner, embedded) = runner::make(&config, &instance, &state, clock.clone())?;
    let (policies, policy_changes) = PolicyKeeper::load(&config, file, state, clock.clone())?;
    let gate = Gate::new(config.grants, instance.clone()).map_err(|invalid| {
        let invalid: Vec<_> = invalid.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(invalid.join("\n"))
    })?;
    let listener = listen::listen(&config.api.listen).await?;
    let address = listener
        .local_addr()
        .context("the listening socket has no address")?;
    let metrics = match (&config.metrics.listen, &render_metrics) {
        (Some(address), Some(render)) => {
            let router = metrics::router(Arc::clone(render));
            Some((listen::listen(address).await?, router))
        }
        _ => None,
    };

    let ports = Ports {
        runner,
        store: Arc::clone(&store) as Arc<dyn Store>,
        policies: policies.host() as Arc<dyn Policies>,
        clock: clock.clone(),
    };
    let engine_config = EngineConfig {
        instance: instance.clone(),
        slots: if config.modes.dev {
            engine::Slots::default()
        } else {
            config.jobs.slots()
        },
        min_free_bytes: config.jobs.min_free_bytes,
        start_timeout: config.jobs.start_timeout,
        failed_retention: config.jobs.failed_jobs_retention,
        history_retention: config.jobs.history_retention,
        strays: config.jobs.strays,
    };
    let engine = Engine::start(engine_config, gate, ports)
        .await
        .context("cannot take up the jobs of the store")?;
    let router = api::router(ApiConfig {
        engine: engine.clone(),
        registrations: store as Arc<dyn Registrations>,
        policies: Arc::new(policies.clone()),
        metrics: render_metrics,
        clock,
        auth: AuthSettings {
            allow_self_registration: config.api.allow_self_registration,
            self_registration_networks: config.api.self_registration_networks,
            self_registration_clients: config.api.self_registration_clients,
            admin_secret: config.api.admin_secret,
            session_lifetime: config.api.session_lifetime,
        },
        start_timeout: config.jobs.start_timeout,
        build: Build {
            version: env!("CARGO_PKG_VERSION"),
            hash: option_env!("OFFLOADER_BUILD_HASH").unwrap_or_default(),
            date: option_env!("OFFLOADER_BUILD_DATE").unwrap_or_default(),
        },
    })?;
    tracing::info!(%address, tls = tls.is_some(), %instance, state = %config.store.directory.display(), "listening");
    Ok(Service {
        engine,
        router,
        listener,
        limits: Limits {
            connections: config.api.max_connections,
            idle: connections::IDLE,
        },
        tls,
        metrics,
        policies,
        policy_changes,
        embedded,
        signals,
    })
}

impl Service {
    /// Serves until a signal says to end. Then no new call is taken, those under way get their
    /// answer, and all that happened is saved. Containers go on running; jobs inside this service
    /// are asked to end, and have some time to.
    ///
    /// # Errors
    /// When serving itself fails.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let handle = Handle::new();
        let mut serving = tokio::spawn(connections::serve(
            self.listener,
            self.tls,
            self.router,
            self.limits,
            handle.clone(),
        ));
        // Both end with the process: nothing depends on how.
        if let Some((listener, router)) = self.metrics {
            let serving = connections::serve(listener, None, router, self.limits, Handle::new());
            tokio::spawn(serving);
        }
        if let Some(hangup) = self.signals.hangup.take() {
            let changes = self.policy_changes;
            tokio::spawn(self.policies.reload_when_told(hangup, changes));
        }
        systemd::ready();
        tokio::select! {
            signal = self.signals.next() => match self.embedded {
                Some(_) => tracing::info!(signal, "ending; jobs are asked to end"),
                None => tracing::info!(signal, "ending; jobs in containers go on running"),
            },
            ended = &mut serving => return ended.context("serving failed")?.context("serving failed"),
        }
        systemd::stopping();
        handle.graceful_shutdown(Some(LAST_ANSWERS));
        let ending = async {
            // First of all, so that the engine learns how they end, and saves it.
            if let Some(embedded) = &self.embedded {
                embedded.end().await;
            }
            if tokio::time::timeout(LAST_COMMITS, self.engine.shutdown())
                .await
                .is_err()
            {
                tracing::warn!(
                    "not everything could be saved in time; the next start finds out the rest"
                );
            }
            serving.await
        };
        tokio::select! {
            served = ending => served.context("serving failed")?.context("serving failed")?,
            signal = self.signals.next() => anyhow::bail!("{signal} again: ended at once"),
        }
        tracing::info!("ended");
        Ok(())
    }
}

/// Opens the store. One that is damaged is set aside: the containers of the jobs in it are found
/// again by their labels.
fn open_store(state: &StateDir) -> anyhow::Result<SqliteStore> {
    let path = state.store();
    let (store, set_aside) =
        SqliteStore::open_or_set_aside(StoreConfig { path }, ambient::wall_clock())?;
    if let Some(SetAside { path, detail }) = set_aside {
        tracing::error!(
            set_aside = %path.display(), detail,
            "THE STORE WAS DAMAGED. It was set aside, and a new one begun: clients have to register \
             again, containers of jobs are found by their labels, and the history is in what was set aside"
        );
    }
    Ok(store)
}

/// The service's time, going on from its last start, and kept for the next one. It begins anew,
/// with the wall clock, when no job depends on it.
async fn resume_time(store: &SqliteStore) -> anyhow::Result<Arc<SteadyClock>> {
    let idle = store.unfinished(None).await?.is_empty();
    let last = store.clock_mark()?.filter(|_| !idle);
    let clock = SteadyClock::start(last.as_ref());
    // Without it the wall clock is believed at the next start.
    if let Err(error) = store.save_clock_mark(clock.mark()).await {
        tracing::warn!(%error, "the time could not be kept for the next start");
    }
    Ok(clock)
}
