//! The policies of the running service: opening what they need, and loading them anew.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use engine::{Clock, PoliciesStatus, PolicyControl, ReloadFailure, ReloadProblem};
use policy_host::{PolicyHost, PolicyHostConfig};
use tokio::signal::unix::Signal;
use tokio::sync::watch;

use crate::ambient;
use crate::config::{Config, Policies as Section};
use crate::config_file::{self, ConfigFileError};
use crate::policy_grants::{self, OwnFiles};
use crate::state::StateDir;
use crate::systemd;
use crate::watching::DirWatch;

/// Looks after the policies in force. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct PolicyKeeper(Arc<Keeper>);

struct Keeper {
    host: Arc<PolicyHost>,
    state: StateDir,
    clock: Arc<dyn Clock>,
    file: PathBuf,
    /// Whether there was a configuration file at the start.
    has_file: bool,
    /// What is in force beside the policies, to tell when the file says something else.
    rest: toml::Table,
    /// Policies are loaded by one at a time.
    turn: tokio::sync::Mutex<()>,
    /// Why the configuration could not be used the last time, if so.
    failure: Mutex<Option<ReloadFailure>>,
    /// The directory to watch, if one is.
    watched: watch::Sender<Option<PathBuf>>,
}

impl PolicyKeeper {
    /// Loads the policies of a configuration that was read from `file`, and begins to see changes
    /// of their directory before that. Blocks.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(
        config: &Config,
        (file, has_file): (PathBuf, bool),
        state: StateDir,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<(Self, Changes)> {
        let section = &config.policies;
        if section.selftest {
            prove_limits()?;
        }
        let watched = watch::Sender::new(watched(section));
        let changes = Changes::begin(watched.subscribe());
        let opened = open(section, &state, &file)?;
        let host = PolicyHost::load(opened, clock.now())?;
        let keeper = Keeper {
            host: Arc::new(host),
            state,
            clock,
            file,
            has_file,
            rest: config.show_rest(),
            turn: tokio::sync::Mutex::default(),
            failure: Mutex::default(),
            watched,
        };
        Ok((Self(Arc::new(keeper)), changes))
    }

    /// What is asked to decide.
    pub(crate) fn host(&self) -> Arc<PolicyHost> {
        Arc::clone(&self.0.host)
    }

    /// Loads policies anew at every `hangup`, and after changes of their directory if the
    /// configuration wants that. Never returns.
    pub(crate) async fn reload_when_told(self, mut hangup: Signal, mut changes: Changes) {
        loop {
            let cause = tokio::select! {
                Some(()) = hangup.recv() => Some("SIGHUP"),
                cause = changes.next() => cause,
            };
            // Before the files are read: what changes from now on is seen.
            changes.watch();
            if let Some(cause) = cause {
                tracing::info!(cause, "reloading policies");
                systemd::reloading();
                // What came of it is in the log.
                let _ = self.reload().await;
                systemd::ready();
            }
        }
    }
}

/// Sees the policies' directory change, if the configuration wants that.
pub(crate) struct Changes {
    dir: watch::Receiver<Option<PathBuf>>,
    watch: Option<DirWatch>,
}

impl Changes {
    fn begin(dir: watch::Receiver<Option<PathBuf>>) -> Self {
        let mut changes = Self { dir, watch: None };
        changes.watch();
        changes
    }

    /// Watches what is at the directory's path now: another directory may have taken the place of
    /// the one that was watched.
    fn watch(&mut self) {
        let dir = self.dir.borrow_and_update().clone();
        self.watch = dir.and_then(|dir| {
            let failed = |error: &notify::Error| {
                tracing::error!(dir = %dir.display(), %error, "the policies' directory is not watched; reload by hand");
            };
            DirWatch::start(&dir).inspect_err(failed).ok()
        });
    }

    /// Why to load policies anew; `None` when only another directory is to be watched.
    async fn next(&mut self) -> Option<&'static str> {
        let settled = async {
            match &self.watch {
                Some(watch) => watch.settled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = settled => Some("the policies' directory changed"),
            Ok(()) = self.dir.changed() => None,
        }
    }
}

#[async_trait]
impl PolicyControl for PolicyKeeper {
    fn status(&self) -> PoliciesStatus {
        let status = self.0.host.status();
        let failure = self.0.failure().clone();
        PoliciesStatus {
            last_failure: failure.or(status.last_failure),
            ..status
        }
    }

    async fn reload(&self) -> Result<PoliciesStatus, ReloadFailure> {
        // A task of its own: it goes on when whoever asked for it hangs up.
        let keeper = self.clone();
        let reload = tokio::spawn(async move {
            let _turn = keeper.0.turn.lock().await;
            let blocking = keeper.clone();
            tokio::task::spawn_blocking(move || blocking.0.reload()).await
        });
        match reload.await.and_then(|done| done) {
            Ok(Ok(())) => Ok(self.status()),
            Ok(Err(failure)) => Err(failure),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(self.0.failed_at_once("the service is ending".to_owned())),
        }
    }
}

impl Keeper {
    // A panic while it is locked cannot leave it half changed.
    fn failure(&self) -> MutexGuard<'_, Option<ReloadFailure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reload(&self) -> Result<(), ReloadFailure> {
        let (section, config) = match self.configuration() {
            Ok(read) => read,
            Err(problems) => return Err(self.not_configured(problems)),
        };
        *self.failure() = None;
        let now = self.clock.now();
        if self.host.reload(config, now).is_err() {
            let told = self.host.status().last_failure;
            return Err(told.unwrap_or_else(|| self.failed_at_once(String::new())));
        }
        let wanted = watched(&section);
        self.watched.send_if_modified(|watched| {
            let other = *watched != wanted;
            *watched = wanted;
            other
        });
        let status = self.host.status();
        let names: Vec<_> = status.policies.iter().map(|p| p.name.as_str()).collect();
        tracing::info!(
            generation = status.generation,
            policies = names.join(","),
            "policies reloaded"
        );
        Ok(())
    }

    /// What the file says about policies now, and all that they need opened.
    fn configuration(&self) -> Result<(Section, PolicyHostConfig), Vec<String>> {
        let (loaded, has_file) = config_file::read(&self.file).map_err(|error| match error {
            ConfigFileError::Wrong(wrong) => {
                wrong.problems.iter().map(ToString::to_string).collect()
            }
            error @ ConfigFileError::Unreadable { .. } => vec![error.to_string()],
        })?;
        // Without a file the defaults hold, and these have no policies: that nobody means.
        if self.has_file && !has_file {
            return Err(vec![format!("{} is gone", self.file.display())]);
        }
        for warning in &loaded.warnings {
            tracing::warn!("configuration: {warning}");
        }
        if loaded.config.show_rest() != self.rest {
            tracing::warn!(
                "the configuration has changed outside [policies] too; that takes a restart"
            );
        }
        let section = loaded.config.policies;
        let opened = open(&section, &self.state, &self.file);
        let opened = opened.map_err(|error| vec![format!("{error:#}")])?;
        Ok((section, opened))
    }

    fn not_configured(&self, messages: Vec<String>) -> ReloadFailure {
        for message in &messages {
            tracing::error!("policies are not reloaded; those in force stay: {message}");
        }
        self.host.reload_refused();
        let failure = self.failed(messages);
        *self.failure() = Some(failure.clone());
        failure
    }

    fn failed_at_once(&self, message: String) -> ReloadFailure {
        self.failed(vec![message])
    }

    fn failed(&self, messages: Vec<String>) -> ReloadFailure {
        let problem = |message| ReloadProblem {
            policy: None,
            step: "configuration",
            message,
        };
        ReloadFailure {
            at: self.clock.now(),
            problems: messages.into_iter().map(problem).collect(),
        }
    }
}

/// Tries to break out of the sandbox.
///
/// # Errors
/// When a limit does not bite: then nothing is served.
fn prove_limits() -> anyhow::Result<()> {
    let report = policy_host::selftest();
    let broken = report.checks.iter().filter(|check| !check.passed);
    let broken: Vec<_> = broken
        .map(|check| format!("{}: {}", check.name, check.seen))
        .collect();
    anyhow::ensure!(
        broken.is_empty(),
        "the sandbox does not hold on this machine: {}",
        broken.join("; ")
    );
    let overshoot_us = report.overshoot.map(|(_, longest)| longest.as_micros());
    tracing::info!(
        overshoot_us,
        "the limits of the sandbox hold on this machine"
    );
    Ok(())
}

/// The directory that is to be watched, if one is.
fn watched(section: &Section) -> Option<PathBuf> {
    section.dir.clone().filter(|_| section.watch)
}

/// Opens what policies need.
fn open(section: &Section, state: &StateDir, config: &Path) -> anyhow::Result<PolicyHostConfig> {
    if section.policies.is_empty() {
        return Ok(PolicyHostConfig::default());
    }
    let dir = section.dir.as_ref().map(|dir| {
        ambient::open_dir(dir)
            .with_context(|| format!("cannot open policies.dir {}", dir.display()))
    });
    // Without a place for compiled policies the service works; it only starts slower.
    let artifacts = state
        .artifacts()
        .inspect_err(|error| tracing::warn!("compiled policies are not kept: {error:#}"))
        .ok();
    let own = OwnFiles {
        state: state.path(),
        config,
    };
    Ok(PolicyHostConfig {
        dir: dir.transpose()?,
        policies: policy_grants::grant(section, own),
        artifacts,
        trusted_keys: policy_grants::trusted_keys(section)?,
        require_signature: section.require_signature,
        quarantine_after: section.quarantine_after,
    })
}
