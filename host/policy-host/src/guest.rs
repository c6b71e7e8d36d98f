//! What one decision can reach: the facts of a job, the policy's settings, and its limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use domain::{Attempt, Delivery, EndReason, JobFacts, JobKind, LAST_START, Timestamp};
use wasmtime::ResourceLimiter;
use wasmtime::component::Resource;

use crate::bindings::offloader::policy::types;
use crate::bindings::wasi::config::store;
use crate::bindings::{AttemptHandle, JobHandle};
use crate::config::{Limits, PolicyGrants};
use crate::failure::Failure;
use crate::wasi::{HANDLES_MAX, Wasi};

/// The state of one decision.
pub(crate) struct Guest {
    facts: Arc<JobFacts>,
    settings: Arc<BTreeMap<String, String>>,
    grants: Arc<PolicyGrants>,
    limits: Limits,
    deadline: Instant,
    host_calls: u32,
    attempts_held: usize,
    memory: u64,
    table_elements: u64,
    read: Vec<&'static str>,
    inputs_read: Vec<String>,
    dirs_read: bool,
    pub(crate) wasi: Option<Box<Wasi>>,
}

impl Guest {
    pub(crate) fn new(
        facts: Arc<JobFacts>,
        settings: Arc<BTreeMap<String, String>>,
        grants: Arc<PolicyGrants>,
        limits: Limits,
        deadline: Instant,
    ) -> Self {
        Self {
            facts,
            settings,
            grants,
            limits,
            deadline,
            host_calls: 0,
            attempts_held: 0,
            memory: 0,
            table_elements: 0,
            read: Vec::new(),
            inputs_read: Vec::new(),
            dirs_read: false,
            wasi: None,
        }
    }

    /// A handle to the job, to pass to the guest.
    pub(crate) fn job() -> Resource<JobHandle> {
        Resource::new_borrow(0)
    }

    /// The decision's time, at which clocks stand unless real ones were granted.
    pub(crate) fn now(&self) -> Timestamp {
        self.facts.now
    }

    pub(crate) fn facts(&self) -> &JobFacts {
        &self.facts
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn grants(&self) -> &PolicyGrants {
        &self.grants
    }

    /// When the decision's time is up.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What a decision failed at whose time is up.
    pub(crate) fn timed_out(&self) -> Failure {
        Failure::Timeout(self.limits.time)
    }

    /// Fails when the decision's time is up by `now`.
    pub(crate) fn check_time(&self, now: Instant) -> Result<(), Failure> {
        if now < self.deadline {
            Ok(())
        } else {
            Err(self.timed_out())
        }
    }

    /// Takes note that something other than a fact of the job is read.
    pub(crate) fn reading(&mut self, what: &'static str) -> &mut Self {
        if !self.read.contains(&what) {
            self.read.push(what);
        }
        self
    }

    /// Takes note that the granted directories are handed out. What is read in them then is not
    /// followed.
    pub(crate) fn reads_dirs(&mut self) {
        self.dirs_read = true;
    }

    /// What was read so far: names of getters, `input:NAME`, and of what was granted `env`, `clock`,
    /// `entropy` and `dir:PATH`.
    pub(crate) fn take_read(&mut self) -> Vec<String> {
        let inputs = self
            .inputs_read
            .drain(..)
            .map(|name| format!("input:{name}"));
        let dirs = self.grants.dirs.iter().filter(|_| self.dirs_read);
        let dirs = dirs.map(|grant| format!("dir:{}", grant.guest_path));
        let mut read: Vec<_> = self
            .read
            .drain(..)
            .map(str::to_owned)
            .chain(inputs)
            .chain(dirs)
            .collect();
        read.sort_unstable();
        read
    }

    pub(crate) fn count_call(&mut self) -> Result<(), Failure> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            return Err(Failure::HostCalls(self.limits.host_calls));
        }
        Ok(())
    }

    fn reads(&mut self, getter: &'static str) -> Result<&JobFacts, Failure> {
        self.count_call()?;
        Ok(&self.reading(getter).facts)
    }

    fn reads_attempt(
        &mut self,
        getter: &'static str,
        attempt: &Resource<AttemptHandle>,
    ) -> wasmtime::Result<&Attempt> {
        let facts = self.reads(getter)?;
        let index = attempt.rep() as usize;
        facts
            .attempts
            .get(index)
            .ok_or_else(|| wasmtime::Error::msg("no such attempt"))
    }

    /// Fails when an answer has texts of more bytes than the policy may pass.
    pub(crate) fn check_answer(&self, bytes: usize) -> Result<(), Failure> {
        self.check_bytes("the answer", bytes)
    }

    fn check_text(&self, what: &'static str, text: &str) -> Result<(), Failure> {
        self.check_bytes(what, text.len())
    }

    fn check_bytes(&self, what: &'static str, bytes: usize) -> Result<(), Failure> {
        let limit = self.limits.output as usize;
        if bytes > limit {
            return Err(Failure::OutputTooLarge { what, bytes, limit });
        }
        Ok(())
    }
}

impl types::Host for &mut Guest {}

impl types::HostJob for &mut Guest {
    fn id(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.reads("id")?.id.clone())
    }

    fn client(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.reads("client")?.client.clone())
    }

    fn kind(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<types::Kind> {
        Ok(match self.reads("kind")?.kind {
            JobKind::Recording => types::Kind::Recording,
            JobKind::Transcribing => types::Kind::Transcribing,
        })
    }

    fn image_asked(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.reads("image-asked")?.image_asked.clone())
    }

    fn image_chosen(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.reads("image-chosen")?.image_chosen.clone())
    }

    fn site_url_asked(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.reads("site-url-asked")?.site_url_asked.clone())
    }

    fn site_url_chosen(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.reads("site-url-chosen")?.site_url_chosen.clone())
    }

    fn max_duration(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<u64> {
        Ok(millis(self.reads("max-duration")?.max_duration))
    }

    fn submitted_at(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<u64> {
        Ok(timestamp(self.reads("submitted-at")?.submitted_at))
    }

    fn asked_at(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<u64> {
        Ok(timestamp(self.reads("asked-at")?.now))
    }

    fn attempts(
        &mut self,
        _: Resource<JobHandle>,
    ) -> wasmtime::Result<Vec<Resource<AttemptHandle>>> {
        let count = self.reads("attempts")?.attempts.len();
        self.attempts_held += count;
        if self.attempts_held > HANDLES_MAX {
            return Err(Failure::Handles.into());
        }
        Ok((0..count)
            .map(|index| Resource::new_own(index as u32))
            .collect())
    }

    fn ever_ran(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<bool> {
        Ok(self.reads("ever-ran")?.ever_ran())
    }

    fn time_left_to_start(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<u64> {
        let facts = self.reads("time-left-to-start")?;
        Ok(millis(facts.start_by.minus(LAST_START).after(facts.now)))
    }

    fn delivery(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<types::Delivery> {
        Ok(match self.reads("delivery")?.delivery {
            None => types::Delivery::Undecided,
            Some(Delivery::NeverRan) => types::Delivery::NeverRan,
            Some(Delivery::Delivered) => types::Delivery::Delivered,
            Some(Delivery::Unsent { .. }) => types::Delivery::Unsent,
            Some(Delivery::Unknown) => types::Delivery::Unknown,
        })
    }

    fn bytes_left(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<Option<u64>> {
        Ok(match self.reads("bytes-left")?.delivery {
            Some(Delivery::Unsent { bytes }) => Some(bytes),
            _ => None,
        })
    }

    fn input(&mut self, _: Resource<JobHandle>, name: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        self.check_text("the name of an input", &name)?;
        if !self.grants.inputs.contains(&name) {
            return Ok(None);
        }
        let mut value = self.facts.inputs.get(&name).cloned();
        // Clients write inputs: none of them is to make a policy fail, which others are asked for too.
        if let Some(bytes) = value.as_ref().map(String::len)
            && bytes > self.limits.output as usize
        {
            let limit = self.limits.output;
            tracing::debug!(
                job = self.facts.id,
                name,
                bytes,
                limit,
                "a policy is not shown an input that is too long"
            );
            value = None;
        }
        if !self.inputs_read.contains(&name) {
            self.inputs_read.push(name);
        }
        Ok(value)
    }

    fn drop(&mut self, _: Resource<JobHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostAttempt for &mut Guest {
    fn number(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<u32> {
        Ok(self.reads_attempt("attempt.number", &attempt)?.number)
    }

    fn image(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<String> {
        Ok(self
            .reads_attempt("attempt.image", &attempt)?
            .image
            .to_string())
    }

    fn started_at(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<u64> {
        Ok(timestamp(
            self.reads_attempt("attempt.started-at", &attempt)?
                .started_at,
        ))
    }

    fn running_at(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<Option<u64>> {
        Ok(self
            .reads_attempt("attempt.running-at", &attempt)?
            .running_at
            .map(timestamp))
    }

    fn ended_at(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<Option<u64>> {
        Ok(self
            .reads_attempt("attempt.ended-at", &attempt)?
            .ended_at
            .map(timestamp))
    }

    fn failure(
        &mut self,
        attempt: Resource<AttemptHandle>,
    ) -> wasmtime::Result<Option<types::FailureReason>> {
        Ok(self
            .reads_attempt("attempt.failure", &attempt)?
            .reason
            .and_then(failure_reason))
    }

    fn exit_code(&mut self, attempt: Resource<AttemptHandle>) -> wasmtime::Result<Option<i32>> {
        let reason = self.reads_attempt("attempt.exit-code", &attempt)?.reason;
        Ok(reason.and_then(EndReason::exit_code))
    }

    fn drop(&mut self, _: Resource<AttemptHandle>) -> wasmtime::Result<()> {
        self.attempts_held = self.attempts_held.saturating_sub(1);
        Ok(())
    }
}

impl store::Host for &mut Guest {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        self.count_call()?;
        self.check_text("the key of a setting", &key)?;
        Ok(Ok(self.settings.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        self.count_call()?;
        Ok(Ok(self
            .settings
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}

/// Refusing to grow is not an answer that a guest gets: wanting more than it may have ends the
/// decision, with a reason of its own.
impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory - current as u64 + desired as u64;
        if total > self.limits.memory {
            return Err(Failure::Memory(self.limits.memory).into());
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements - current as u64 + desired as u64;
        if total > u64::from(self.limits.table_elements) {
            return Err(Failure::Table(self.limits.table_elements).into());
        }
        self.table_elements = total;
        Ok(true)
    }
}

pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The contract's timestamps begin in 1970.
pub(crate) fn timestamp(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(0)
}

fn failure_reason(reason: EndReason) -> Option<types::FailureReason> {
    use types::FailureReason as R;
    Some(match reason {
        EndReason::Completed => return None,
        EndReason::Exited(_) => R::Exited,
        EndReason::OutOfMemory => R::OutOfMemory,
        EndReason::Deadline => R::Deadline,
        EndReason::StoppedByAdmin => R::StoppedByAdmin,
        EndReason::KilledAfterGrace => R::KilledAfterGrace,
        EndReason::ImageUnreachable => R::ImageUnreachable,
        EndReason::ImageStalled => R::ImageStalled,
        EndReason::ImageUnauthorized => R::ImageUnauthorized,
        EndReason::ImageNotFound => R::ImageNotFound,
        EndReason::ImageRefused => R::ImageRefused,
        EndReason::StartFailed => R::StartFailed,
        EndReason::StartTimeout => R::StartTimeout,
        EndReason::Interrupted => R::Interrupted,
        EndReason::RuntimeLost => R::RuntimeLost,
        EndReason::RemovedByHand => R::RemovedByHand,
    })
}
