//! Why the gate refused.

use std::fmt;

/// Who wanted what was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The client, with what it sent.
    Client,
    /// The policy of that name, with what it proposed.
    Policy(String),
}

/// A refusal: who wanted what, the rule it breaks and what an operator can do about it.
///
/// Never holds a secret: a value is quoted only where it is an image, a URL or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Who wanted it.
    pub origin: Origin,
    /// What is refused, for example `input SITE_URL` or `image evil/x:v1`; empty where `why` is a
    /// sentence of its own.
    pub subject: String,
    /// Why, for people.
    pub why: String,
    /// The configuration key that decides about it, for example `gate.recording.images`; empty
    /// where no setting can allow it.
    pub setting: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            _ if self.subject.is_empty() => f.write_str(&self.why)?,
            Origin::Client => write!(f, "{} refused: {}", self.subject, self.why)?,
            Origin::Policy(name) => write!(
                f,
                "{} (proposed by policy {name}) refused: {}",
                self.subject, self.why
            )?,
        }
        if !self.setting.is_empty() {
            write!(f, " (see {})", self.setting)?;
        }
        Ok(())
    }
}
