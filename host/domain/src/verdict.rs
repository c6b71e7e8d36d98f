//! What policies are asked, what they see and what they may answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::{Attempt, Delivery, JobKind, Timestamp};

/// A question that policies can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Which image an attempt uses.
    ImageSelection,
    /// Under which URL the job reaches the site.
    SiteUrl,
    /// Whether another attempt follows a failed one.
    Retry,
    /// What happens to the data of an ended job.
    Retention,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 4] = [
        Self::ImageSelection,
        Self::SiteUrl,
        Self::Retry,
        Self::Retention,
    ];

    /// The hook's name, as the contract's interface is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageSelection => "image-selection",
            Self::SiteUrl => "site-url",
            Self::Retry => "retry",
            Self::Retention => "retention",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an image is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To start a job.
    Start,
    /// To have it at hand when a job comes (`POST /jobs/init`).
    Prefetch,
}

/// What a policy can learn about a job, before grants narrow it down.
///
/// For a prefetch there is no job yet: `id` and the site URLs are empty, `attempts` too, and
/// `max_duration` is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The job's identifier.
    pub id: String,
    /// The client's name.
    pub client: String,
    /// What the job does.
    pub kind: JobKind,
    /// The image asked for.
    pub image_asked: String,
    /// The image chosen so far in the chain of policies, or settled on when past that hook.
    pub image_chosen: String,
    /// The site URL asked for.
    pub site_url_asked: String,
    /// The site URL chosen so far, or settled on when past that hook.
    pub site_url_chosen: String,
    /// How long the job may run.
    pub max_duration: Duration,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When the question is asked: the only clock a policy has.
    pub now: Timestamp,
    /// After this time no container of it is started.
    pub start_by: Timestamp,
    /// Its attempts so far, the first one first.
    pub attempts: Vec<Attempt>,
    /// What became of the work; `None` while that is open.
    pub delivery: Option<Delivery>,
    /// Inputs as text by lower-case name, without the secret ones.
    pub inputs: BTreeMap<String, String>,
}

impl JobFacts {
    /// Whether any container of the job ever ran.
    #[must_use]
    pub fn ever_ran(&self) -> bool {
        self.attempts.iter().any(|a| a.running_at.is_some())
    }
}

/// A refusal by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// A short code of the policy's own, for tools.
    pub code: String,
    /// What people are told.
    pub message: String,
}

/// What a chain of image-selection or site-url policies settled on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Nobody minds: what was asked for.
    AsAsked,
    /// This text instead; the gate has yet to accept it.
    Use(String),
    /// Nothing.
    Deny(Denial),
}

/// What the retry policies settled on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryVerdict {
    /// Nobody has an opinion, which means no other attempt.
    Pass,
    /// No other attempt.
    GiveUp,
    /// Another attempt after this long.
    RetryAfter(Duration),
}

/// What the retention policies settled on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionVerdict {
    /// Nobody has an opinion: delivered work goes, failed work stays as configured.
    Pass,
    /// Remove the data now.
    Delete,
    /// Keep it this long.
    KeepFor(Duration),
    /// Keep it until somebody deletes the job.
    Keep,
}

/// How asking one policy went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecisionOutcome {
    /// It answered.
    Answered,
    /// It trapped.
    Trap,
    /// Its time ran out.
    Timeout,
    /// It wanted more memory than it may have.
    Memory,
    /// It wanted larger tables than it may have.
    Table,
    /// It ran out of stack.
    Stack,
    /// It called the host too often.
    HostCalls,
    /// Its answer was larger than it may be.
    OutputTooLarge,
    /// Its answer made no sense.
    OutputMalformed,
    /// It ended its own program.
    Exit,
    /// It could not be instantiated.
    Load,
    /// It was not asked: it had failed too often in a row.
    Quarantined,
}

impl DecisionOutcome {
    /// Every outcome.
    pub const ALL: [Self; 12] = [
        Self::Answered,
        Self::Trap,
        Self::Timeout,
        Self::Memory,
        Self::Table,
        Self::Stack,
        Self::HostCalls,
        Self::OutputTooLarge,
        Self::OutputMalformed,
        Self::Exit,
        Self::Load,
        Self::Quarantined,
    ];

    /// The outcome's name in lower case with dashes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::Stack => "stack",
            Self::HostCalls => "host-calls",
            Self::OutputTooLarge => "output-too-large",
            Self::OutputMalformed => "output-malformed",
            Self::Exit => "exit",
            Self::Load => "load",
            Self::Quarantined => "quarantined",
        }
    }
}

/// One policy asked once: the record that stays with the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// When it was asked.
    pub at: Timestamp,
    /// What it was asked.
    pub hook: Hook,
    /// About which attempt; `None` where there was none yet.
    pub attempt: Option<u32>,
    /// The policy's configured name.
    pub policy: String,
    /// sha256 of the component, hexadecimal.
    pub component_sha256: String,
    /// sha256 of its settings, hexadecimal.
    pub settings_sha256: String,
    /// Names of the getters and inputs that it read, sorted.
    pub read: Vec<String>,
    /// How asking went.
    pub outcome: DecisionOutcome,
    /// Whether anything could follow from it: not so for a policy that is only monitored.
    pub enforced: bool,
    /// `pass`, `use`, `deny`, `give-up`, `retry`, `delete`, `keep-for` or `keep`: what took effect
    /// in the chain, also where the policy failed and `on_failure` answered for it.
    pub verdict: String,
    /// What the verdict carries: an image, a URL, a delay or duration in milliseconds.
    pub value: Option<String>,
    /// The policy's reason, the denial's message, or what went wrong.
    pub reason: Option<String>,
    /// How long the decision took, in microseconds.
    pub micros: u64,
}

/// What a chain of policies settled on, and how it came to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling<V> {
    /// The verdict of the chain.
    pub verdict: V,
    /// The policy whose answer that is; `None` when nobody minded.
    pub by: Option<String>,
    /// Each policy that was asked, in order.
    pub decisions: Vec<Decision>,
}
