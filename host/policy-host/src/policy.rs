//! One loaded policy, asked once at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use domain::{Hook, JobFacts};
use wasmtime::{Store, UpdateDeadline};

use crate::chain::{Asked, Identity, Said, Verdict as _};
use crate::config::{Limits, PolicyGrants};
use crate::failure::Failure;
use crate::guest::Guest;
use crate::hooks::{Exports, Question};
use crate::linked::Linked;
use crate::sandbox::Sandbox;
use crate::wasi::HANDLES_MAX;

/// A policy that is ready to be asked.
pub(crate) struct Policy {
    pub(crate) identity: Identity,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) limits: Limits,
    pub(crate) settings: Arc<BTreeMap<String, String>>,
    pub(crate) grants: Arc<PolicyGrants>,
    pub(crate) exports: Exports,
    pub(crate) instances: Linked,
    pub(crate) sandbox: Arc<Sandbox>,
}

impl Policy {
    /// Asks in a fresh instance, and gives its slot back.
    pub(crate) fn ask<Q: Question>(&self, question: Q, facts: Arc<JobFacts>) -> Asked<Q::Verdict> {
        let begin = Instant::now();
        let deadline = begin + self.limits.time;
        let deciding = self.sandbox.ticker.decide(deadline);
        let guest = Guest::new(
            facts,
            Arc::clone(&self.settings),
            Arc::clone(&self.grants),
            self.limits,
            deadline,
        );
        let mut store = new_store(&self.sandbox, guest);
        let answer = self.answer(question, &mut store);
        let read = store.data_mut().take_read();
        let wasi = store.data_mut().wasi.take();
        drop(store);
        drop(deciding);
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(wasi) = wasi {
            log_output(&self.identity.name, &wasi.output());
        }
        Asked {
            answer,
            read,
            micros,
        }
    }

    fn answer<Q: Question>(
        &self,
        question: Q,
        store: &mut Store<Guest>,
    ) -> Result<Said<Q::Verdict>, Failure> {
        let instance = self.instances.instance(store)?;
        let said = self
            .instances
            .put(question, &self.exports, store, &instance)?;
        let bytes = said.verdict.bytes() + said.reason.as_ref().map_or(0, String::len);
        store.data().check_answer(bytes)?;
        // An answer that came too late in a host call has met no epoch on its way.
        store.data().check_time(Instant::now())?;
        Ok(said)
    }
}

/// A store that holds its guest to its limits.
pub(crate) fn new_store(sandbox: &Sandbox, guest: Guest) -> Store<Guest> {
    // Bounds what one call can copy into the host; nothing that a guest can hold is larger, except
    // lists that name the same bytes again and again.
    let fuel = usize::try_from(guest.limits().memory).unwrap_or(usize::MAX);
    let mut store = Store::new(&sandbox.engine, guest);
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(fuel);
    // Those that it holds, and those that it passes in one call: of these there are no more than it
    // holds, unless it names the same one again and again.
    store.set_max_component_handles(4 * HANDLES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        store.data().check_time(Instant::now())?;
        Ok(UpdateDeadline::Continue(1))
    });
    store
}

/// What a policy writes becomes log lines with its name.
pub(crate) fn log_output(policy: &str, output: &[(&'static str, crate::wasi::Written)]) {
    for (stream, written) in output {
        for line in String::from_utf8_lossy(&written.bytes).lines() {
            tracing::info!(policy, stream, "{line}");
        }
        if written.cut > 0 {
            tracing::warn!(
                policy,
                stream,
                bytes = written.cut,
                "a policy wrote more than is logged"
            );
        }
    }
}
