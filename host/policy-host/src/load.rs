//! From a file to a policy that can be asked: verify, imports and exports, compile, settings, probe.
//! What was verified is what is compiled.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cap_std::fs::Dir;
use domain::Timestamp;
use wasmtime::component::Component;

use crate::artifacts::Artifacts;
use crate::chain::Identity;
use crate::config::{PolicyConfig, PolicyHostConfig};
use crate::generation::{Generation, Loaded};
use crate::hooks::{Exports, WrongExport};
use crate::load_error::{LoadError, LoadErrors, LoadProblem};
use crate::metrics;
use crate::policy::Policy;
use crate::probe::probe;
use crate::sandbox::{LOADERS, SLOTS, Sandbox, SandboxError};
use crate::trust::Trust;

pub(crate) mod interfaces;
mod settings;
mod verify;

use interfaces::Interfaces;
use settings::{check_settings, settings_sha256};
use verify::{Verified, verify};

/// The version of the contract that this host speaks.
pub(crate) const CONTRACT_VERSION: &str = "0.1.0";

/// Makes generations. What all of them share is made with the first policy, so that a site without
/// policies pays nothing.
#[derive(Default)]
pub(crate) struct Loader {
    sandbox: Option<Arc<Sandbox>>,
    said_not_writable: AtomicBool,
}

impl Loader {
    /// Loads all policies of a configuration, some of them beside each other. An optional one can be
    /// left out where the generation before does without it too, or where there is none before.
    pub(crate) fn load(
        &mut self,
        config: PolicyHostConfig,
        previous: Option<&Generation>,
        now: Timestamp,
    ) -> Result<Generation, LoadErrors> {
        let quarantine_after = config.quarantine_after;
        let trust = Trust::new(&config.trusted_keys, config.require_signature)
            .map_err(LoadErrors::of_all)?;
        let (loaded, left_out) = if config.policies.is_empty() {
            Default::default()
        } else {
            self.load_policies(config, &trust, previous, now)?
        };
        loaded.iter().for_each(tell);
        for error in &left_out {
            tracing::error!(%error, "an optional policy is left out");
        }
        let left_out = left_out.iter().map(LoadError::told).collect();
        Ok(Generation::new(
            previous,
            now,
            loaded,
            left_out,
            quarantine_after,
        ))
    }

    /// The policies, and what is wrong with those that are left out.
    fn load_policies(
        &mut self,
        config: PolicyHostConfig,
        trust: &Trust,
        previous: Option<&Generation>,
        now: Timestamp,
    ) -> Result<(Vec<Loaded>, Vec<LoadError>), LoadErrors> {
        let fail = |problem| LoadErrors::of_all(vec![problem]);
        let Some(dir) = &config.dir else {
            return Err(fail(LoadProblem::NoDirectory));
        };
        let sandbox = self
            .sandbox()
            .map_err(|error| fail(LoadProblem::Sandbox(error.to_string())))?;
        let artifacts = config
            .artifacts
            .map(|store| Artifacts::new(store, &sandbox.engine, &self.said_not_writable));
        let load = Load {
            dir,
            artifacts: artifacts.as_ref(),
            sandbox: &sandbox,
            trust,
            previous,
            now,
        };

        let mut policies = Vec::new();
        let mut left_out = Vec::new();
        let mut errors = Vec::new();
        for (config, result) in config.policies.iter().zip(load.all(&config.policies)) {
            match result {
                Ok(policy) => policies.push(policy),
                Err(problems) => {
                    let named = problems.into_iter().map(|problem| LoadError {
                        policy: Some(config.name.clone()),
                        problem,
                    });
                    let can_do_without =
                        previous.is_none_or(|previous| previous.left_out(&config.name));
                    if config.optional && can_do_without {
                        left_out.extend(named);
                    } else {
                        errors.extend(named);
                    }
                }
            }
        }
        if !errors.is_empty() {
            return Err(LoadErrors(errors));
        }
        if let Some(artifacts) = &artifacts {
            // What was in force until now was used until now.
            let before = previous.into_iter().flat_map(Generation::policies);
            let loaded = policies.iter().map(|loaded| &loaded.policy);
            let used: BTreeSet<_> = loaded
                .chain(before)
                .map(|policy| policy.identity.component_sha256.as_str())
                .collect();
            artifacts.prune(|sha256| used.contains(sha256), now);
        }
        Ok((policies, left_out))
    }

    fn sandbox(&mut self) -> Result<Arc<Sandbox>, SandboxError> {
        let sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => {
                metrics::slots(SLOTS);
                Sandbox::new()?
            }
        };
        Ok(Arc::clone(self.sandbox.insert(sandbox)))
    }
}

fn tell(loaded: &Loaded) {
    let Loaded {
        policy,
        signed_by,
        unused_grants,
        ..
    } = loaded;
    let hooks: Vec<_> = policy.hooks.iter().map(|hook| hook.as_str()).collect();
    tracing::info!(
        policy = policy.identity.name,
        hooks = hooks.join(","),
        mode = policy.identity.mode.as_str(),
        sha256 = policy.identity.component_sha256,
        signed_by,
        "policy loaded"
    );
    if !unused_grants.is_empty() {
        tracing::warn!(
            policy = policy.identity.name,
            grants = unused_grants.join(","),
            "a policy was granted what it makes no use of"
        );
    }
}

/// What the policies of one load have in common.
#[derive(Clone, Copy)]
struct Load<'a> {
    dir: &'a Dir,
    artifacts: Option<&'a Artifacts<'a>>,
    sandbox: &'a Arc<Sandbox>,
    trust: &'a Trust,
    previous: Option<&'a Generation>,
    now: Timestamp,
}

impl Load<'_> {
    /// Loads policies, as many at once as there are processors and slots for it. Answers in their
    /// order.
    fn all(self, policies: &[PolicyConfig]) -> Vec<Result<Loaded, Vec<LoadProblem>>> {
        let mut names = BTreeSet::new();
        let entries = policies.iter().enumerate().map(|(index, policy)| {
            let is_first = names.insert(policy.name.as_str());
            (index, policy, is_first)
        });
        let entries = Mutex::new(entries);
        let next = || {
            entries
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next()
        };
        let work = || {
            let mut done = Vec::new();
            while let Some((index, policy, is_first)) = next() {
                done.push((index, self.load(policy, is_first)));
            }
            done
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers = processors.min(LOADERS as usize).min(policies.len());
        let mut results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| {
                let done = thread.join();
                done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.flatten().collect()
        });
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

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
        problems.extend(config.lacking.iter().cloned().map(LoadProblem::Grant));
        match verify(self.dir, config, self.trust) {
            Ok(verified) if problems.is_empty() => self.policy(config, verified),
            Ok(_) => Err(problems),
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    /// What becomes of a verified file.
    fn policy(self, config: &PolicyConfig, verified: Verified) -> Result<Loaded, Vec<LoadProblem>> {
        // Before anything is compiled, which is what costs.
        let interfaces = Interfaces::read(&verified.bytes)
            .map_err(|error| vec![LoadProblem::Compile(error.message().to_owned())])?;
        let problems = interfaces.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let component = self.compiled(&verified).map_err(|problem| vec![problem])?;
        let linked = self.sandbox.link(&component, &config.grants);
        let instances = linked.map_err(|error| vec![LoadProblem::Imports(format!("{error:#}"))])?;
        let exports = Exports::find(&component).map_err(wrong_export)?;
        let hooks = exports.hooks();
        if hooks.is_empty() {
            return Err(vec![LoadProblem::NoHook]);
        }
        let policy = Policy {
            identity: Identity {
                name: config.name.clone(),
                component_sha256: hex::encode(verified.sha256),
                settings_sha256: settings_sha256(&config.settings),
                on_failure: config.on_failure,
                mode: config.mode,
            },
            hooks,
            limits: config.limits,
            settings: Arc::new(config.settings.clone()),
            grants: Arc::new(config.grants.clone()),
            exports,
            instances,
            sandbox: Arc::clone(self.sandbox),
        };
        check_settings(&policy)?;
        probe(&policy, self.now)?;
        Ok(Loaded {
            policy,
            component: config.component.clone(),
            signed_by: verified.signed_by,
            unused_grants: interfaces.unused(&config.grants),
        })
    }

    /// Compiles, or takes what was compiled before.
    fn compiled(self, verified: &Verified) -> Result<Component, LoadProblem> {
        let Verified { bytes, sha256, .. } = verified;
        let engine = &self.sandbox.engine;
        let kept = || self.artifacts?.load(engine, sha256);
        if let Some(component) = self.compiled_before(sha256).or_else(kept) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, bytes)
            .map_err(|error| LoadProblem::Compile(error.root_cause().to_string()))?;
        if let Some(artifacts) = self.artifacts {
            artifacts.save(sha256, &component);
        }
        Ok(component)
    }

    /// A component that the generation before has compiled already.
    fn compiled_before(self, sha256: &[u8; 32]) -> Option<Component> {
        let sha256 = hex::encode(sha256);
        let mut policies = self.previous?.policies();
        let same = policies.find(|policy| policy.identity.component_sha256 == sha256)?;
        Some(same.instances.component().clone())
    }
}

fn wrong_export(WrongExport { interface, detail }: WrongExport) -> Vec<LoadProblem> {
    vec![LoadProblem::Export { interface, detail }]
}
