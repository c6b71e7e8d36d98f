//! The WebAssembly engine: one for all policies, with a pool of slots that instances are made in.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};
use wasmtime::component::{Component, HasData, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::{offloader, wasi};
use crate::config::{MEMORY_MAX, PolicyGrants, TABLE_ELEMENTS_MAX};
use crate::guest::Guest;
use crate::linked::Linked;
use crate::ticker::Ticker;
use crate::wasi::Reach;

/// Decisions under way at once; more wait their turn.
pub(crate) const SLOTS: u32 = 64;

/// Policies that are loaded at once at most. They have slots of their own, so that neither do they
/// fail for want of one nor do decisions while policies are reloaded.
pub(crate) const LOADERS: u32 = 4;

/// Instances at once.
const INSTANCES: u32 = SLOTS + LOADERS;

/// Stack of a guest, host frames included. The threads that decide have 2 MiB.
const STACK: usize = 256 << 10;

/// Stack of a guest that can wait, with room for what the host does in its calls. Only what is touched
/// takes memory.
const WAITING_STACK: usize = 1 << 20;

/// Bytes of a used slot that are zeroed in place; what lies beyond is given back to the system. A
/// stock policy touches less than this.
const KEEP_RESIDENT: usize = 256 << 10;

/// What all policies share.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    /// For policies without grants beyond inputs.
    inert: Linker<Guest>,
    /// Made for the first policy that can wait.
    waits: OnceLock<Waits>,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(wasmtime::Error),
    #[error("the ticker's thread does not start: {0}")]
    Ticker(#[from] io::Error),
}

impl From<wasmtime::Error> for SandboxError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

impl Sandbox {
    pub(crate) fn new() -> Result<Arc<Self>, SandboxError> {
        let engine = Engine::new(config().epoch_interruption(true))?;
        let inert = linker(&engine, &Reach::default())?;
        let ticker = Ticker::start(&engine)?;
        Ok(Arc::new(Self {
            engine,
            ticker,
            inert,
            waits: OnceLock::new(),
        }))
    }

    /// Links a component with what it was granted, and with the inert likeness of what it was not.
    ///
    /// # Errors
    /// When it imports what there is not, or in another type; or when there are too few threads or
    /// files to give it what it was granted.
    pub(crate) fn link(
        &self,
        component: &Component,
        grants: &PolicyGrants,
    ) -> wasmtime::Result<Linked> {
        let reach = Reach::of(grants)?;
        if reach.is_inert() {
            return Ok(Linked::new(self.inert.instantiate_pre(component)?, None));
        }
        let waits = reach.can_wait().then(|| self.waits()).transpose()?;
        let linker = linker(&self.engine, &reach)?;
        Ok(Linked::new(linker.instantiate_pre(component)?, waits))
    }

    fn waits(&self) -> io::Result<Handle> {
        let waits = match self.waits.get() {
            Some(waits) => waits,
            None => {
                let started = Waits::start()?;
                self.waits.get_or_init(|| started)
            }
        };
        Ok(waits.runtime().handle().clone())
    }
}

/// Where policies wait for files and clocks. Apart from where the service waits: a file that never
/// answers keeps one of these threads, and none of anybody else's.
struct Waits(Option<Runtime>);

impl Waits {
    fn start() -> io::Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(SLOTS as usize)
            .thread_name("policy-waits")
            .enable_time()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("taken by drop only")
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What every engine of this crate has in common, that of the bare floor too.
pub(crate) fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 16)
        .max_core_instances_per_component(16)
        .total_memories(INSTANCES)
        .max_memories_per_component(1)
        .max_memory_size(MEMORY_MAX as usize)
        .total_tables(INSTANCES * 8)
        .max_tables_per_component(8)
        .table_elements(TABLE_ELEMENTS_MAX as usize)
        .total_stacks(INSTANCES)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT)
        // Where the kernel can tell which pages were touched, only those are zeroed.
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .max_wasm_stack(STACK)
        .async_stack_size(WAITING_STACK);
    config
}

/// Everything that a policy with this reach can import.
pub(crate) fn linker(engine: &Engine, reach: &Reach) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    crate::wasi::add_to_linker(&mut linker, reach)?;
    offloader::policy::types::add_to_linker::<_, Host>(&mut linker, |guest| guest)?;
    wasi::config::store::add_to_linker::<_, Host>(&mut linker, |guest| guest)?;
    Ok(linker)
}

struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut Guest;
}
