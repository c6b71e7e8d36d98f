//! What administrators see of the loaded policies and ask of them: the port behind `GET /policies`
//! and `POST /policies/reload`.

use async_trait::async_trait;
use domain::{Hook, Timestamp};

/// Looks after the loaded policies.
#[async_trait]
pub trait PolicyControl: Send + Sync + 'static {
    /// The policies in force and how they fare.
    fn status(&self) -> PoliciesStatus;

    /// Reads and loads the policies anew, and puts them in force together; on failure those in force
    /// stay.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    async fn reload(&self) -> Result<PoliciesStatus, ReloadFailure>;
}

/// The policies in force, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoliciesStatus {
    /// Counts loads that succeeded: 1 after the start.
    pub generation: u64,
    /// When this generation was loaded.
    pub loaded_at: Timestamp,
    /// The policies.
    pub policies: Vec<PolicyStatus>,
    /// What is wrong with optional policies that are configured and were left out.
    pub left_out: Vec<ReloadProblem>,
    /// Why the last load failed, if it did; the generation before it stayed.
    pub last_failure: Option<ReloadFailure>,
}

/// Policies could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policies were not reloaded; those in force stay")]
pub struct ReloadFailure {
    /// When it was tried.
    pub at: Timestamp,
    /// What was wrong.
    pub problems: Vec<ReloadProblem>,
}

/// One thing that kept policies from being loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadProblem {
    /// The policy that it is about; `None` when it is about the configuration as a whole.
    pub policy: Option<String>,
    /// Where on the way it was: `configuration`, `verify`, `compile`, `imports`, `settings` or
    /// `probe`.
    pub step: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

/// A loaded policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Its configured name.
    pub name: String,
    /// Its file, below the policies' directory.
    pub component: String,
    /// sha256 of the component, hexadecimal.
    pub component_sha256: String,
    /// sha256 of its settings, hexadecimal.
    pub settings_sha256: String,
    /// The trusted key whose signature it carries.
    pub signed_by: Option<String>,
    /// The hooks that it exports.
    pub hooks: Vec<Hook>,
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    /// `fail-closed` or `skip`.
    pub on_failure: &'static str,
    /// Since when it is in quarantine: not asked, because it had failed too often in a row.
    pub quarantined_since: Option<Timestamp>,
    /// What it may use up.
    pub limits: PolicyLimits,
    /// What it was granted.
    pub grants: GrantedToPolicy,
    /// What it did since it was loaded.
    pub counters: PolicyCounters,
}

/// What a policy may use up in one decision, but for the size of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Bytes of its file.
    pub component_size_bytes: u64,
    /// Time by the wall, in milliseconds.
    pub time_ms: u64,
    /// Bytes of linear memory.
    pub memory_bytes: u64,
    /// Elements of tables.
    pub table_elements: u32,
    /// Calls of the host.
    pub host_calls: u32,
    /// Bytes of an answer's texts.
    pub output_bytes: u32,
    /// Bytes of each output stream that are logged.
    pub log_bytes: u32,
}

/// What a policy was granted. Names only: values may be nobody else's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantedToPolicy {
    /// Inputs of jobs.
    pub inputs: Vec<String>,
    /// Variables of the environment.
    pub env: Vec<String>,
    /// Directories, as the policy sees them, and whether it may write there.
    pub dirs: Vec<(String, bool)>,
    /// The real time.
    pub real_clock: bool,
    /// Real randomness.
    pub real_entropy: bool,
}

/// What a policy did since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyCounters {
    /// Decisions asked of it, failed ones included.
    pub decisions: u64,
    /// Those that failed.
    pub failures: u64,
    /// Failures since it last answered.
    pub failures_in_a_row: u32,
}
