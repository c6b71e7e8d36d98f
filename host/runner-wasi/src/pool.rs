//! Memories, tables and stacks that are used again: mapping them for each job anew costs several
//! times what a short job itself does, and holds up the threads of all others meanwhile.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// With more jobs at once than this they would not fit into the address space, which each of their
/// memories takes 4 GiB of.
const JOBS_MAX: u32 = 1000;

/// Memories that a component can have.
const MEMORIES_MAX: u32 = 4;

/// Tables that a component can have.
const TABLES_MAX: u32 = 16;

/// Modules that a component can consist of.
const MODULES_MAX: u32 = 64;

/// Bytes of what describes a component and its modules at run time: some for each function.
const DESCRIPTION_MAX: usize = 64 << 20;

/// Bytes of a memory or table that are cleared in place for the next job; more is given back.
const KEPT_RESIDENT: usize = 256 << 10;

/// An engine that keeps what jobs run in for others after them, where so many jobs let it.
pub(super) fn engine(
    mut config: Config,
    jobs_max: u32,
    table_elements_max: usize,
) -> wasmtime::Result<Engine> {
    if jobs_max <= JOBS_MAX {
        config.allocation_strategy(pool(jobs_max, table_elements_max));
        match Engine::new(&config) {
            Ok(engine) => return Ok(engine),
            // The address space is limited: by ulimit, say.
            Err(error) => {
                tracing::warn!(%error, jobs_max, "no memory can be reserved for jobs: each takes its own")
            }
        }
    }
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

fn pool(jobs_max: u32, table_elements_max: usize) -> PoolingAllocationConfig {
    // A job that is to be gone may still be there when another has its place.
    let jobs_max = jobs_max * 2;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(jobs_max)
        .total_stacks(jobs_max)
        .total_memories(jobs_max * MEMORIES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .total_tables(jobs_max * TABLES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(table_elements_max)
        .total_core_instances(jobs_max * MODULES_MAX)
        .max_core_instances_per_component(MODULES_MAX)
        .max_core_instance_size(DESCRIPTION_MAX)
        .max_component_instance_size(DESCRIPTION_MAX)
        .linear_memory_keep_resident(KEPT_RESIDENT)
        .table_keep_resident(KEPT_RESIDENT)
        .pagemap_scan(Enabled::Auto)
        // What was used before is used again before what never was.
        .max_unused_warm_slots(0);
    pool
}
