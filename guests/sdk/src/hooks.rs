//! The hooks: a trait each, and what it answers with.

use alloc::string::String;
use core::time::Duration;

use crate::Denial;

/// Which image an attempt uses.
pub mod image_selection {
    pub use crate::bindings::image_selection::exports::offloader::policy::image_selection::{
        Choice, Guest as ImageSelection, Purpose, Verdict,
    };
}

/// Under which URL the job reaches its site.
pub mod site_url {
    pub use crate::bindings::site_url::exports::offloader::policy::site_url::{
        Choice, Guest as SiteUrl, Verdict,
    };
}

/// Whether another attempt follows a failed one.
pub mod retry {
    pub use crate::bindings::retry::exports::offloader::policy::retry::{
        Again, Guest as Retry, Verdict,
    };
}

/// What happens to the data of an ended job.
pub mod retention {
    pub use crate::bindings::retention::exports::offloader::policy::retention::{
        Guest as Retention, Period, Verdict,
    };
}

/// Whether the settings make sense.
pub mod settings_check {
    pub use crate::bindings::settings_check::exports::offloader::policy::settings_check::{
        Guest as SettingsCheck, Problem,
    };
}

fn denial(code: &str, message: impl Into<String>) -> Denial {
    Denial {
        code: code.into(),
        message: message.into(),
    }
}

/// A duration as the contract has it; one that is too long is the longest there is.
fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl image_selection::Verdict {
    /// This image instead, with the reason for people.
    pub fn choose(image: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Use(image_selection::Choice {
            image: image.into(),
            reason: Some(reason.into()),
        })
    }

    /// No image; with a code for tools and what people are told.
    pub fn deny(code: &str, message: impl Into<String>) -> Self {
        Self::Deny(denial(code, message))
    }
}

impl site_url::Verdict {
    /// This URL instead, with the reason for people.
    pub fn choose(url: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Use(site_url::Choice {
            url: url.into(),
            reason: Some(reason.into()),
        })
    }

    /// No URL; with a code for tools and what people are told.
    pub fn deny(code: &str, message: impl Into<String>) -> Self {
        Self::Deny(denial(code, message))
    }
}

impl retry::Verdict {
    /// Another attempt after a while, with the reason for people.
    pub fn after(delay: Duration, reason: impl Into<String>) -> Self {
        Self::Retry(retry::Again {
            after: millis(delay),
            reason: Some(reason.into()),
        })
    }

    /// No other attempt, with the reason for people.
    pub fn give_up(reason: impl Into<String>) -> Self {
        Self::GiveUp(Some(reason.into()))
    }
}

impl retention::Verdict {
    /// Keeps the data for a while, with the reason for people.
    pub fn keep_for(duration: Duration, reason: impl Into<String>) -> Self {
        Self::KeepFor(retention::Period {
            duration: millis(duration),
            reason: Some(reason.into()),
        })
    }
}
