//! What the configuration says about the embedded runner.

use std::collections::BTreeMap;
use std::sync::Arc;

use cap_std::fs::Dir;
use domain::InstanceId;
use engine::Clock;

/// The embedded runner.
pub struct WasiConfig {
    /// Whose jobs these are: only what carries this name is listed.
    pub instance: InstanceId,
    /// Where the components are.
    pub components: Dir,
    /// From `REGISTRY/NAME[:TAG][@DIGEST]`, as the gate permits images, to a file below
    /// `components`.
    pub images: BTreeMap<String, String>,
    /// Where jobs have their data and output: a directory of this runner's own.
    pub jobs: Dir,
    /// Bytes of a job's stdout and stderr that are kept; what comes after them is not.
    pub output_max: u64,
    /// Bytes that a job may have on `/data`, where each file and directory counts for 4 KiB at
    /// least; it is killed when it has more. 0 is no limit.
    pub data_max: u64,
    /// Jobs that run at once, at most: what they run in is reserved for them.
    pub jobs_max: u32,
    /// Threads that jobs run on; at least 1.
    pub threads: usize,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The runner could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WasiError {
    /// The WebAssembly engine does not start.
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    /// The threads do not start.
    #[error("the threads of jobs do not start: {0}")]
    Threads(#[from] std::io::Error),
}
