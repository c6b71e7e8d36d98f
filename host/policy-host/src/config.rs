//! What the configuration says about policies.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cap_std::fs::Dir;

use crate::ArtifactStore;

/// The policies of a site.
#[derive(Debug, Default)]
pub struct PolicyHostConfig {
    /// Where the components are. Needed as soon as there is a policy.
    pub dir: Option<Dir>,
    /// The policies, in the order in which they are asked.
    pub policies: Vec<PolicyConfig>,
    /// Where compiled components are kept; `None` compiles at every start.
    pub artifacts: Option<ArtifactStore>,
    /// Keys whose signatures count.
    pub trusted_keys: Vec<TrustedKey>,
    /// Whether a component without the signature of a trusted key is refused.
    pub require_signature: bool,
    /// After so many failures in a row a policy is not asked any more until policies are loaded
    /// again; `None` asks it for ever.
    pub quarantine_after: Option<NonZeroU32>,
}

/// A minisign public key that the site trusts.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// What it is called when something is said about it: its file.
    pub name: String,
    /// The text of the public key, as minisign writes it: two lines or the second alone.
    pub text: String,
}

/// One policy.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// Its name in decisions and logs; no two have the same.
    pub name: String,
    /// Its file, below the policies' directory.
    pub component: String,
    /// sha256 that the file must have, as 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// The file of its signature, below the policies' directory; else one named after the component,
    /// with `.minisig` at its end, counts if it is there.
    pub signature: Option<String>,
    /// What follows when it fails.
    pub on_failure: OnFailure,
    /// Whether its answers have an effect.
    pub mode: Mode,
    /// When it cannot be loaded, it is left out instead of failing the start.
    pub optional: bool,
    /// Settings by key. A structured one is JSON text.
    pub settings: BTreeMap<String, String>,
    /// What it may see beyond what every policy sees.
    pub grants: PolicyGrants,
    /// What of its grants could not be had, for people. A policy that lacks any is not loaded.
    pub lacking: Vec<String>,
    /// What it may use up.
    pub limits: Limits,
}

impl PolicyConfig {
    /// A policy without settings and grants, with the defaults for the rest.
    #[must_use]
    pub fn new(name: impl Into<String>, component: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            component: component.into(),
            sha256: None,
            signature: None,
            on_failure: OnFailure::default(),
            mode: Mode::default(),
            optional: false,
            settings: BTreeMap::new(),
            grants: PolicyGrants::default(),
            lacking: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// What a policy may see beyond what every policy sees.
#[derive(Debug, Clone, Default)]
pub struct PolicyGrants {
    /// Names of job inputs in lower case. Secret inputs are not among the facts, so naming one here
    /// shows nothing.
    pub inputs: BTreeSet<String>,
    /// Variables of its environment, with their values.
    pub env: BTreeMap<String, String>,
    /// Directories that it can reach.
    pub dirs: Vec<DirGrant>,
    /// Clocks that go, instead of standing at the decision's time.
    pub real_clock: bool,
    /// Random bytes of the system, instead of bytes that follow from the decision.
    pub real_entropy: bool,
}

/// A directory that a policy can reach.
#[derive(Debug, Clone)]
pub struct DirGrant {
    /// Its path as the policy sees it.
    pub guest_path: String,
    /// The directory.
    pub dir: Arc<Dir>,
    /// Whether the policy may change what is in it.
    pub write: bool,
}

/// What follows when a policy fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The careful answer: image-selection and site-url deny, retry gives up, retention keeps.
    #[default]
    FailClosed,
    /// As if it had no opinion.
    Skip,
}

/// Whether a policy's answers have an effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They have.
    #[default]
    Enforce,
    /// It is asked and its answer logged; nothing follows from it.
    Monitor,
}

/// A word that is not among those expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnknownWord {
    expected: &'static str,
}

impl OnFailure {
    /// Its word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailClosed => "fail-closed",
            Self::Skip => "skip",
        }
    }
}

impl Mode {
    /// Its word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

impl FromStr for OnFailure {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "fail-closed" => Ok(Self::FailClosed),
            "skip" => Ok(Self::Skip),
            _ => Err(UnknownWord {
                expected: "\"fail-closed\" or \"skip\"",
            }),
        }
    }
}

impl FromStr for Mode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "monitor" => Ok(Self::Monitor),
            _ => Err(UnknownWord {
                expected: "\"enforce\" or \"monitor\"",
            }),
        }
    }
}

/// What a policy may use up: each in one decision, but for the size of its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its file. 1 KiB to 64 MiB.
    pub component_size: u64,
    /// Time by the wall, instantiation included. 1 ms to 10 s.
    pub time: Duration,
    /// Bytes of linear memory, all memories together. 64 KiB to 64 MiB.
    pub memory: u64,
    /// Elements of tables, all tables together. At most 20,000.
    pub table_elements: u32,
    /// Calls of getters and of settings. 1 to 10,000,000.
    pub host_calls: u32,
    /// Bytes of the texts of one answer together, and of each text passed to a getter. 1 KiB to 1 MiB.
    pub output: u32,
    /// Bytes of stdout, and of stderr, that are logged; more are counted and cut. At most 1 MiB.
    pub log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_size: 16 << 20,
            time: Duration::from_millis(50),
            memory: 16 << 20,
            table_elements: 10_000,
            host_calls: 10_000,
            output: 64 << 10,
            log: 8 << 10,
        }
    }
}

/// The most memory that a policy may be given: the size of a slot in the pool.
pub(crate) const MEMORY_MAX: u64 = 64 << 20;
/// The most table elements that a policy may be given, all tables together.
pub(crate) const TABLE_ELEMENTS_MAX: u32 = 20_000;

impl Limits {
    /// The limits that are out of range, as `NAME: what was expected`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let ranges: [(&str, u128, RangeInclusive<u128>, &str); 7] = [
            (
                "component_size",
                self.component_size.into(),
                1_024..=64 << 20,
                "1KiB to 64MiB",
            ),
            (
                "time",
                self.time.as_micros(),
                1_000..=10_000_000,
                "1ms to 10s",
            ),
            (
                "memory",
                self.memory.into(),
                65_536..=MEMORY_MAX.into(),
                "64KiB to 64MiB",
            ),
            (
                "table_elements",
                self.table_elements.into(),
                0..=TABLE_ELEMENTS_MAX.into(),
                "0 to 20000",
            ),
            (
                "host_calls",
                self.host_calls.into(),
                1..=10_000_000,
                "1 to 10000000",
            ),
            (
                "output",
                self.output.into(),
                1_024..=1 << 20,
                "1KiB to 1MiB",
            ),
            ("log", self.log.into(), 0..=1 << 20, "0 to 1MiB"),
        ];
        ranges
            .into_iter()
            .filter(|(_, value, range, _)| !range.contains(value))
            .map(|(name, _, _, expected)| format!("{name}: expected {expected}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range() {
        assert_eq!(Limits::default().problems(), [] as [&str; 0]);
    }

    #[test]
    fn every_limit_out_of_range_is_told() {
        let limits = Limits {
            component_size: 65 << 20,
            time: Duration::from_secs(11),
            memory: 1,
            table_elements: 20_001,
            host_calls: 0,
            output: 10,
            log: 2 << 20,
        };
        let names: Vec<_> = limits
            .problems()
            .iter()
            .map(|p| p.split(':').next().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "component_size",
                "time",
                "memory",
                "table_elements",
                "host_calls",
                "output",
                "log"
            ]
        );
    }

    #[test]
    fn words_are_told() {
        assert_eq!("skip".parse(), Ok(OnFailure::Skip));
        assert_eq!("fail-closed".parse(), Ok(OnFailure::FailClosed));
        assert_eq!("monitor".parse(), Ok(Mode::Monitor));
        let error = "open".parse::<OnFailure>().unwrap_err();
        assert_eq!(error.to_string(), "expected \"fail-closed\" or \"skip\"");
    }
}
