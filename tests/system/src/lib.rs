//! A harness around the real offloader binary, for tests that see it as its clients do.
//!
//! `cargo xtask test` builds the binary and prepares container engine and registry, and passes them
//! on as environment variables (see [`need_engine`] and [`Setup::new`]). A plain `cargo test` takes
//! the binary that `cargo build -p offloader` made.
//!
//! ```no_run
//! # use offloader_system_tests::{KEY, Setup};
//! # async fn test() {
//! let setup = Setup::new().config("jobs.max_concurrent_jobs = 1");
//! let daemon = setup.start().await;
//! let answer = daemon.client("site", KEY).list().await.unwrap();
//! assert_eq!(answer.status, 200);
//! # }
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "tests start the daemon and look at what it leaves, with plain means"
)]

mod daemon;
mod dockerd;
mod engine;
mod line;
mod oracle;
mod policies;
pub mod process;
mod registry;

pub use daemon::{ADMIN_SECRET, Daemon, Ended, KEY, Setup, binary, binary_with_fault_points};
pub use dockerd::{Dockerd, Place, mount_small, ping};
pub use engine::{TestEngine, need_engine, skipped};
pub use line::{Line, Passing};
pub use oracle::{Agreement, Oracle, Submission, Told, Violations};
pub use policies::{job_probe, policy_file};
pub use registry::{Registry, free_port};
