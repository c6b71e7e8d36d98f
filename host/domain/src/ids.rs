//! Identifiers. Each has one form, checked where it enters.

use std::fmt;
use std::str::FromStr;

/// A text that is no identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {form}")]
pub struct InvalidId {
    what: &'static str,
    form: &'static str,
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A job's identifier: 26 characters of `[a-z0-9]`, on every backend.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId([u8; Self::LEN]);

impl JobId {
    /// Characters in an identifier.
    pub const LEN: usize = 26;

    /// Makes an identifier out of 26 random bytes.
    ///
    /// 256 is no multiple of 36, so the first four letters come up 8 times in 256 instead of 7;
    /// that leaves over 134 bits.
    #[must_use]
    pub fn from_random(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes.map(|b| ALPHABET[usize::from(b) % ALPHABET.len()]))
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("letters and digits are text")
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobId").field(&self.as_str()).finish()
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let letters = <[u8; Self::LEN]>::try_from(text.as_bytes()).ok();
        let good = letters.filter(|letters| letters.iter().all(|b| ALPHABET.contains(b)));
        good.map(Self).ok_or(InvalidId {
            what: "a job id",
            form: "26 characters of [a-z0-9]",
        })
    }
}

/// Names one installation, so that two that share a container engine leave each other's
/// containers alone: 1 to 32 characters of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(String);

impl InstanceId {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| ALPHABET.contains(&b) || b == b'-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                what: "an instance id",
                form: "1 to 32 characters of [a-z0-9-]",
            })
        }
    }
}

/// The name under which a client authenticates; any text but the empty one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(String);

impl ClientId {
    /// Takes a name; `None` when it is empty.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One registration of a client. A client that unregisters and registers again under the same
/// [`ClientId`] is another registration, and does not own the jobs of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId(pub i64);

macro_rules! display {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
display!(JobId, InstanceId, ClientId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_always_make_a_valid_job_id() {
        for byte in 0..=255 {
            let id = JobId::from_random([byte; JobId::LEN]);
            assert_eq!(id.as_str().parse::<JobId>().unwrap(), id);
        }
    }

    #[test]
    fn job_ids_that_could_reach_a_path_or_another_form_are_refused() {
        for bad in [
            "",
            "../..",
            "abc",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "abcdefghijklmnopqrstuvwxy/",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
