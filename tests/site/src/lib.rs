//! A stand-in for a Mattermost server with the Calls plugin.
//!
//! [`Site`] is the server that the recorder and transcriber containers talk to: the recording page,
//! the call's live sound, the status route with its refusals, chunked uploads, attachments.
//! [`Plugin`] is the plugin's other face: the client that drives a job service, in the order and
//! with the timers of the real one. A recorded call is three lines:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use offloader_test_site::{CallOptions, DEFAULT_TEXT, Plugin, PluginOptions, Site, SiteOptions, Speech};
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! let site = Site::start(
//!     SiteOptions::new("127.0.0.1:0".parse()?, "results"),
//!     Speech::spoken(DEFAULT_TEXT).await?,
//! ).await?;
//! let plugin = Plugin::new(&site, PluginOptions::new("http://127.0.0.1:4545"));
//! plugin.activate().await?;
//! let report = plugin.record(CallOptions::default()).await.finished().await;
//! assert!(report.errors.is_empty(), "{:?}", report.errors);
//! # Ok(()) }
//! ```
//!
//! The rules themselves live in one file without clocks or sockets, `rules.rs`.
#![allow(
    clippy::disallowed_methods,
    reason = "a test server outside the daemon: it owns its results folder and its clock"
)]

mod audio;
mod bots;
mod call;
mod events;
mod ids;
mod page;
mod plugin;
mod report;
mod rules;
mod server;
mod service;
mod speech;
mod uploads;
mod words;

pub use call::{Call, CallOptions, RecorderSettings, TranscriberSettings};
pub use events::{Event, Happening};
pub use plugin::{Plugin, PluginError, PluginOptions};
pub use report::{Artifact, CallReport, JobReport, JobType};
pub use server::{Site, SiteError, SiteOptions};
pub use service::{Answer, JobService, ServiceError};
pub use speech::{DEFAULT_TEXT, Speech, SpeechError};
pub use words::{words, words_heard};
