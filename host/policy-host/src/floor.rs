//! What a decision costs at least: the same component on bare WebAssembly, for comparison.
//!
//! An instance from the same kind of pool with the same imports is made, called and dropped. There is
//! no limit on it, no deadline, no record and no chain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Hook, JobFacts, Purpose};
use wasmtime::component::Component;
use wasmtime::{Engine, Store};

use crate::config::{Limits, PolicyGrants};
use crate::guest::Guest;
use crate::hooks::{self, Exports, Question};
use crate::linked::Linked;
use crate::sandbox;
use crate::wasi::Reach;

/// A component without the host around it.
pub struct Floor {
    engine: Engine,
    instances: Linked,
    exports: Exports,
    settings: Arc<BTreeMap<String, String>>,
    grants: Arc<PolicyGrants>,
}

/// The component could not be made ready or be called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FloorError(String);

impl Floor {
    /// Compiles a component.
    ///
    /// # Errors
    /// When it is not a policy.
    pub fn new(component: &[u8], settings: BTreeMap<String, String>) -> Result<Self, FloorError> {
        let ready = || {
            let engine = Engine::new(&sandbox::config())?;
            let linker = sandbox::linker(&engine, &Reach::default())?;
            let instances = linker.instantiate_pre(&Component::from_binary(&engine, component)?)?;
            Ok((engine, Linked::new(instances, None)))
        };
        let (engine, instances) =
            ready().map_err(|error: wasmtime::Error| FloorError(format!("{error:#}")))?;
        let exports =
            Exports::find(instances.component()).map_err(|wrong| FloorError(wrong.detail))?;
        Ok(Self {
            engine,
            instances,
            exports,
            settings: Arc::new(settings),
            grants: Arc::default(),
        })
    }

    /// Makes an instance and asks it once.
    ///
    /// # Errors
    /// When it fails, or does not export that hook.
    pub fn call(&self, hook: Hook, facts: &Arc<JobFacts>) -> Result<(), FloorError> {
        if !self.exports.hooks().contains(&hook) {
            return Err(FloorError(format!("exports no {hook}")));
        }
        match hook {
            Hook::ImageSelection => self.put(hooks::ImageSelection(Purpose::Start), facts),
            Hook::SiteUrl => self.put(hooks::SiteUrl, facts),
            Hook::Retry => self.put(hooks::Retry, facts),
            Hook::Retention => self.put(hooks::Retention, facts),
        }
    }

    fn put<Q: Question>(&self, question: Q, facts: &Arc<JobFacts>) -> Result<(), FloorError> {
        let limits = Limits {
            host_calls: u32::MAX,
            ..Limits::default()
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let guest = Guest::new(
            Arc::clone(facts),
            Arc::clone(&self.settings),
            Arc::clone(&self.grants),
            limits,
            deadline,
        );
        let mut store = Store::new(&self.engine, guest);
        let said = self.instances.instance(&mut store).and_then(|instance| {
            self.instances
                .put(question, &self.exports, &mut store, &instance)
        });
        said.map(drop)
            .map_err(|failure| FloorError(failure.to_string()))
    }
}
