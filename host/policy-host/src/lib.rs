//! Site policy in WebAssembly: loads components, asks them, and holds them to their limits.
//!
//! A policy proposes and never acts: what a chain of policies settled on is an [`engine::Policies`]
//! ruling, which the gate then checks. This crate answers for the asking. Every decision gets a fresh
//! instance that sees the facts of one job, its settings and nothing else of the world; a policy that
//! breaks a limit or its word has failed, and its `on_failure` says what follows.
//!
//! From the outside in:
//!
//! - [`PolicyHost`] is the port: it runs the chain of policies of each hook (`chain`, pure).
//! - `generation` is what is loaded together and swapped as a whole, and how each policy fares.
//! - `policy` asks one policy once; `hooks` knows what each hook passes and takes.
//! - `guest` is what an instance can reach: getters on the job, its settings, and `wasi`, the base set
//!   that compiled programs import whether they use it or not: inert, but for what was granted.
//! - `linked` is a component with that, and calls it in the way that what it can reach asks for.
//! - `sandbox` is the WebAssembly engine with its pool, `ticker` the clock that ends long decisions.
//! - `load` takes a file through its steps: it is verified (pin and signature, `trust`), compiled, held
//!   against the contract, asked about its settings and then about sample jobs (`probe`); `artifacts`
//!   keeps what was compiled.
//! - `metrics` counts.
//!
//! No type of the WebAssembly engine crosses this crate's public face.

mod artifacts;
mod bindings;
mod chain;
mod config;
mod failure;
pub mod floor;
mod generation;
mod guest;
mod hooks;
mod host;
mod inspect;
mod linked;
mod load;
mod load_error;
mod metrics;
mod policy;
mod probe;
mod sandbox;
mod selftest;
mod ticker;
mod trust;
mod wasi;

pub use artifacts::ArtifactStore;
pub use config::{
    DirGrant, Limits, Mode, OnFailure, PolicyConfig, PolicyGrants, PolicyHostConfig, TrustedKey,
    UnknownWord,
};
pub use host::PolicyHost;
pub use inspect::{GrantNeed, InspectError, Inspection, inspect};
pub use load_error::{LoadError, LoadErrors, LoadProblem, LoadStep};
pub use selftest::{SelftestCheck, SelftestReport, selftest};
pub use trust::SignatureProblem;
