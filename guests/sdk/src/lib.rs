//! What a policy for Offloader is written with.
//!
//! A policy answers questions about recording and transcribing jobs: it implements the trait of each
//! hook it has an opinion on, names those hooks in [`export!`], and is compiled to a WebAssembly
//! component. The host makes a fresh instance for every question, so there is no state to keep and
//! memory is given back as a whole.
//!
//! | hook | trait | asked |
//! |---|---|---|
//! | image-selection | [`image_selection::ImageSelection`] | which image an attempt uses |
//! | site-url | [`site_url::SiteUrl`] | under which URL the job reaches its site |
//! | retry | [`retry::Retry`] | whether another attempt follows a failed one |
//! | retention | [`retention::Retention`] | what happens to the data of an ended job |
//! | settings-check | [`SettingsCheck`] | whether the settings make sense, once when it is loaded |
//!
//! # A complete policy
//!
//! It keeps what the site never received, for as long as its only setting says.
//!
//! ```
//! // Without the standard library a policy is small and imports nothing that it does not use.
//! #![cfg_attr(target_family = "wasm", no_std)]
//! extern crate alloc;
//!
//! use alloc::vec::Vec;
//! use core::time::Duration;
//!
//! use offloader_policy_sdk::retention::{Retention, Verdict};
//! use offloader_policy_sdk::settings::{self, Problem, Settings};
//! use offloader_policy_sdk::{Delivery, Job, SettingsCheck};
//!
//! struct KeepUnsent;
//!
//! /// Reads the settings. Used by the check and by the decision, so that they cannot differ.
//! fn configure(settings: &mut Settings) -> Duration {
//!     let week = Duration::from_secs(7 * 24 * 60 * 60);
//!     settings.duration("keep").unwrap_or(week)
//! }
//!
//! impl SettingsCheck for KeepUnsent {
//!     fn check_settings() -> Vec<Problem> {
//!         settings::check(configure)
//!     }
//! }
//!
//! impl Retention for KeepUnsent {
//!     fn decide_retention(job: &Job) -> Verdict {
//!         match job.delivery() {
//!             Delivery::Unsent => Verdict::keep_for(settings::read(configure), "not delivered"),
//!             _ => Verdict::Pass,
//!         }
//!     }
//! }
//!
//! offloader_policy_sdk::export!(KeepUnsent: retention, settings_check);
//! offloader_policy_sdk::small_runtime!();
//! # fn main() {}
//! ```
//!
//! In its Cargo.toml: `[lib] crate-type = ["cdylib"]`. Built with
//! `cargo build --release --target wasm32-wasip2`.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

#[doc(hidden)]
#[cfg(any(target_family = "wasm", test))]
pub mod arena;
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, unsafe_code, clippy::all)]
pub mod bindings;
mod export;
pub mod hooks;
pub mod json;
mod names;
pub mod settings;

#[doc(inline)]
pub use bindings::facts::offloader::policy::types::{
    Attempt, Delivery, Denial, FailureReason, Job, Kind,
};
#[doc(inline)]
pub use hooks::{image_selection, retention, retry, settings_check::SettingsCheck, site_url};

#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub mod runtime;
