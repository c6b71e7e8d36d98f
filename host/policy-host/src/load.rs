//! From a file to a policy that can be asked: read once, pin, contract, compile, imports, exports,
//! settings. What was verified is what is compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cap_std::fs::Dir;
use domain::{JobFacts, JobKind, Timestamp};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::artifacts::Artifacts;
use crate::chain::Identity;
use crate::config::{PolicyConfig, PolicyGrants, PolicyHostConfig};
use crate::failure::Failure;
use crate::generation::{Generation, Loaded};
use crate::guest::Guest;
use crate::hooks::{self, Exports, WrongExport};
use crate::linked::Linked;
use crate::load_error::{LoadError, LoadErrors, LoadProblem};
use crate::policy::{Policy, log_output, new_store};
use crate::sandbox::{Sandbox, SandboxError};

mod interfaces;

use interfaces::{export_problem, import_problem, not_a_component};

/// The version of the contract that this host speaks.
pub(crate) const CONTRACT_VERSION: &str = "0.1.0";

/// A policy's settings are checked in more time than it has for a decision: this happens once.
const SETTINGS_CHECK_TIME: Duration = Duration::from_secs(1);

/// Makes generations. What all of them share is made with the first policy, so that a site without
/// policies pays nothing.
#[derive(Default)]
pub(crate) struct Loader {
    sandbox: Option<Arc<Sandbox>>,
}

impl Loader {
    /// Loads all policies of a configuration, those that can be beside each other. What is wrong with
    /// an optional one is an error only if there is a generation before, which is complete.
    pub(crate) fn load(
        &mut self,
        config: PolicyHostConfig,
        previous: Option<&Generation>,
        now: Timestamp,
    ) -> Result<Generation, LoadErrors> {
        let quarantine_after = config.quarantine_after;
        let loaded = if config.policies.is_empty() {
            Vec::new()
        } else {
            self.load_policies(config, previous)?
        };
        for Loaded { policy, .. } in &loaded {
            let hooks: Vec<_> = policy.hooks.iter().map(|hook| hook.as_str()).collect();
            tracing::info!(
                policy = policy.identity.name,
                hooks = hooks.join(","),
                mode = policy.identity.mode.as_str(),
                sha256 = policy.identity.component_sha256,
                "policy loaded"
            );
        }
        Ok(Generation::new(previous, now, loaded, quarantine_after))
    }

    fn load_policies(
        &mut self,
        config: PolicyHostConfig,
        previous: Option<&Generation>,
    ) -> Result<Vec<Loaded>, LoadErrors> {
        let Some(dir) = &config.dir else {
            return Err(LoadErrors::of_all(LoadProblem::NoDirectory));
        };
        let sandbox = self
            .sandbox()
            .map_err(|error| LoadErrors::of_all(LoadProblem::Sandbox(error.to_string())))?;
        let artifacts = config
            .artifacts
            .map(|store| Artifacts::new(store, &sandbox.engine));
        let load = Load {
            dir,
            artifacts: artifacts.as_ref(),
            sandbox: &sandbox,
            previous,
        };

        let mut names = BTreeSet::new();
        let is_first: Vec<bool> = config
            .policies
            .iter()
            .map(|p| names.insert(p.name.as_str()))
            .collect();
        let results: Vec<_> = thread::scope(|scope| {
            let start = |(policy, is_first)| scope.spawn(move || load.load(policy, is_first));
            let threads: Vec<_> = config.policies.iter().zip(is_first).map(start).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });

        let mut policies = Vec::new();
        let mut errors = Vec::new();
        for (config, result) in config.policies.iter().zip(results) {
            match result {
                Ok(policy) => policies.push(policy),
                Err(problems) => {
                    let named = problems.into_iter().map(|problem| LoadError {
                        policy: Some(config.name.clone()),
                        problem,
                    });
                    if config.optional && previous.is_none() {
                        named.for_each(
                            |error| tracing::error!(%error, "an optional policy is left out"),
                        );
                    } else {
                        errors.extend(named);
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(policies)
        } else {
            Err(LoadErrors(errors))
        }
    }

    fn sandbox(&mut self) -> Result<Arc<Sandbox>, SandboxError> {
        let sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => Sandbox::new()?,
        };
        Ok(Arc::clone(self.sandbox.insert(sandbox)))
    }
}

/// What the policies of one load have in common.
#[derive(Clone, Copy)]
struct Load<'a> {
    dir: &'a Dir,
    artifacts: Option<&'a Artifacts>,
    sandbox: &'a Arc<Sandbox>,
    previous: Option<&'a Generation>,
}

impl Load<'_> {
    fn load(
        self,
        config: &PolicyConfig,
        is_first_of_its_name: bool,
    ) -> Result<Loaded, Vec<LoadProblem>> {
        let mut problems: Vec<_> = config
            .limits
            .problems()
            .into_iter()
            .map(LoadProblem::Limit)
            .collect();
        if config.name.is_empty() {
            problems.push(LoadProblem::Name("is empty"));
        }
        if !is_first_of_its_name {
            problems.push(LoadProblem::Name("another policy has it"));
        }
        match self.component(config) {
            Ok((component, sha256)) if problems.is_empty() => {
                self.policy(config, &component, sha256)
            }
            Ok(_) => Err(problems),
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    /// The compiled component, and the sha256 of its file.
    fn component(self, config: &PolicyConfig) -> Result<(Component, String), LoadProblem> {
        let bytes = self.read(&config.component, config.limits.component_size)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let found = hex::encode(digest);
        if let Some(pinned) = &config.sha256 {
            if pinned.len() != 64 || !pinned.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(LoadProblem::PinForm);
            }
            if !pinned.eq_ignore_ascii_case(&found) {
                return Err(LoadProblem::Pin {
                    found,
                    pinned: pinned.clone(),
                });
            }
        }
        if let Some(what) = not_a_component(&bytes) {
            return Err(LoadProblem::NotComponent {
                file: config.component.clone(),
                what,
            });
        }
        if let Some(component) = self.compiled_before(&found) {
            return Ok((component, found));
        }
        let engine = &self.sandbox.engine;
        if let Some(component) = self
            .artifacts
            .and_then(|artifacts| artifacts.load(engine, &digest))
        {
            return Ok((component, found));
        }
        let component = Component::from_binary(engine, &bytes)
            .map_err(|error| LoadProblem::Compile(error.root_cause().to_string()))?;
        if let Some(artifacts) = self.artifacts {
            artifacts.save(&digest, &component);
        }
        Ok((component, found))
    }

    /// A component that the generation before has compiled already.
    fn compiled_before(self, sha256: &str) -> Option<Component> {
        let mut policies = self.previous?.policies();
        let same = policies.find(|policy| policy.identity.component_sha256 == sha256)?;
        Some(same.instances.component().clone())
    }

    fn read(self, file: &str, limit: u64) -> Result<Vec<u8>, LoadProblem> {
        let fail = |error| LoadProblem::Read {
            file: file.to_owned(),
            error,
        };
        let opened = self.dir.open(file).map_err(fail)?;
        let mut bytes = Vec::new();
        opened
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        if bytes.len() as u64 > limit {
            return Err(LoadProblem::TooLarge {
                file: file.to_owned(),
                limit,
            });
        }
        Ok(bytes)
    }

    fn policy(
        self,
        config: &PolicyConfig,
        component: &Component,
        component_sha256: String,
    ) -> Result<Loaded, Vec<LoadProblem>> {
        self.check_interfaces(component)?;
        let linked = self.sandbox.link(component, &config.grants);
        let instances = linked.map_err(|error| vec![LoadProblem::Imports(format!("{error:#}"))])?;
        let exports = Exports::find(component).map_err(wrong_export)?;
        let hooks = exports.hooks();
        if hooks.is_empty() {
            return Err(vec![LoadProblem::NoHook]);
        }
        let settings = Arc::new(config.settings.clone());
        let grants = Arc::new(config.grants.clone());
        self.check_settings(config, &settings, &grants, &instances, &exports)?;
        let policy = Policy {
            identity: Identity {
                name: config.name.clone(),
                component_sha256,
                settings_sha256: settings_sha256(&settings),
                on_failure: config.on_failure,
                mode: config.mode,
            },
            hooks,
            limits: config.limits,
            settings,
            grants,
            exports,
            instances,
            sandbox: Arc::clone(self.sandbox),
        };
        Ok(Loaded {
            policy,
            component: config.component.clone(),
            signed_by: None,
        })
    }

    /// Every import is of the contract's version or of the base set; every export that has the
    /// contract's name is in it.
    fn check_interfaces(self, component: &Component) -> Result<(), Vec<LoadProblem>> {
        let engine = &self.sandbox.engine;
        let types = component.component_type();
        let imports = types
            .imports(engine)
            .filter_map(|(name, _)| import_problem(name));
        let exports = types
            .exports(engine)
            .filter_map(|(name, _)| export_problem(name));
        let problems: Vec<_> = imports.chain(exports).collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Makes an instance once, compares its exports with the contract, and asks about its settings.
    fn check_settings(
        self,
        config: &PolicyConfig,
        settings: &Arc<BTreeMap<String, String>>,
        grants: &Arc<PolicyGrants>,
        instances: &Linked,
        exports: &Exports,
    ) -> Result<(), Vec<LoadProblem>> {
        let fail = |failure: Failure| vec![LoadProblem::from(failure)];
        let mut limits = config.limits;
        limits.time = limits.time.max(SETTINGS_CHECK_TIME);
        let deadline = Instant::now() + limits.time;
        let _deciding = self.sandbox.ticker.decide(deadline);
        let guest = Guest::new(
            Arc::new(nothing()),
            Arc::clone(settings),
            Arc::clone(grants),
            limits,
            deadline,
        );
        let mut store = new_store(self.sandbox, guest);
        let instance = instances.instance(&mut store).map_err(fail)?;
        exports
            .check_types(&mut store, &instance)
            .map_err(wrong_export)?;
        let checked = match &exports.settings_check {
            None => Ok(Vec::new()),
            Some(function) => instances
                .call(function, &mut store, &instance, ())
                .and_then(|(problems,)| hooks::setting_problems(problems, store.data())),
        };
        if let Some(wasi) = store.data_mut().wasi.take() {
            log_output(&config.name, &wasi.output());
        }
        let problems = checked.map_err(fail)?;
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems
            .into_iter()
            .map(|(key, message)| LoadProblem::Setting { key, message })
            .collect())
    }
}

fn wrong_export(WrongExport { interface, detail }: WrongExport) -> Vec<LoadProblem> {
    vec![LoadProblem::Export { interface, detail }]
}

/// Keys and values with their lengths, in the order of the keys.
fn settings_sha256(settings: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for text in settings.iter().flat_map(|(key, value)| [key, value]) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Settings are checked without a job. None is passed, so that nothing of this is seen but the time.
fn nothing() -> JobFacts {
    let never = Timestamp::from_millis(0);
    JobFacts {
        id: String::new(),
        client: String::new(),
        kind: JobKind::Recording,
        image_asked: String::new(),
        image_chosen: String::new(),
        site_url_asked: String::new(),
        site_url_chosen: String::new(),
        max_duration: Duration::ZERO,
        submitted_at: never,
        now: never,
        start_by: never,
        attempts: Vec::new(),
        delivery: None,
        inputs: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_settings_tells_keys_from_values() {
        let digest = |pairs: &[(&str, &str)]| {
            settings_sha256(
                &pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        assert_eq!(
            digest(&[("a", "b"), ("c", "d")]),
            digest(&[("c", "d"), ("a", "b")])
        );
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(digest(&[("a", "b")]), digest(&[]));
    }
}
