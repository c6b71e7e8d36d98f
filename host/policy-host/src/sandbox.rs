//! The WebAssembly engine: one for all policies, with a pool of slots that instances are made in.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::{offloader, wasi};
use crate::config::{MEMORY_MAX, TABLE_ELEMENTS_MAX};
use crate::guest::Guest;
use crate::ticker::Ticker;

/// Decisions under way at once; more wait their turn.
pub(crate) const SLOTS: u32 = 64;

/// Stack of a guest, host frames included. The threads that decide have 2 MiB.
const STACK: usize = 256 << 10;

/// Bytes of a used slot that are zeroed in place; what lies beyond is given back to the system. A
/// stock policy touches less than this.
const KEEP_RESIDENT: usize = 256 << 10;

/// What all policies share.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
    pub(crate) ticker: Ticker,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(wasmtime::Error),
    #[error("the ticker's thread does not start: {0}")]
    Ticker(#[from] std::io::Error),
}

impl From<wasmtime::Error> for SandboxError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

impl Sandbox {
    pub(crate) fn new() -> Result<Arc<Self>, SandboxError> {
        let engine = Engine::new(config().epoch_interruption(true))?;
        let linker = linker(&engine)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Arc::new(Self {
            engine,
            linker,
            ticker,
        }))
    }
}

/// What every engine of this crate has in common, that of the bare floor too.
pub(crate) fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(SLOTS)
        .total_core_instances(SLOTS * 16)
        .max_core_instances_per_component(16)
        .total_memories(SLOTS)
        .max_memories_per_component(1)
        .max_memory_size(MEMORY_MAX as usize)
        .total_tables(SLOTS * 8)
        .max_tables_per_component(8)
        .table_elements(TABLE_ELEMENTS_MAX as usize)
        .total_stacks(0)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        // Where the kernel can tell which pages were touched, only those are zeroed.
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .max_wasm_stack(STACK);
    config
}

/// Everything that a policy can import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    crate::wasi::add_to_linker(&mut linker)?;
    offloader::policy::types::add_to_linker::<_, Host>(&mut linker, |guest| guest)?;
    wasi::config::store::add_to_linker::<_, Host>(&mut linker, |guest| guest)?;
    Ok(linker)
}

struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut Guest;
}
