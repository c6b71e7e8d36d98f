//! How long policies take: a decision, each in a fresh instance, beside the same component on bare
//! WebAssembly; a load, a swap, and what never ends by itself. `cargo xtask bench policy` runs it.
//!
//! - `decisions DIRECTORY SCRATCH` prints times as JSON; the first directory holds the stock policies
//!   and `misbehave.wasm`, what is in the second is of no use afterwards.
//! - `decisions DIRECTORY SCRATCH COUNT` loads so many policies, asks each once, and prints how much
//!   memory this process has then, as the kernel tells it.

#![allow(
    clippy::disallowed_methods,
    reason = "a program for measuring opens what it is told to"
)]

mod latency;
mod life;
mod stock;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use offloader_bench::Sample;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [dir, scratch] => times(Path::new(dir), Path::new(scratch)),
        [dir, scratch, count] => {
            let _host = life::many(Path::new(dir), Path::new(scratch), count.parse()?)?;
            print!("{}", std::fs::read_to_string("/proc/self/smaps_rollup")?);
            Ok(())
        }
        _ => bail!("usage: decisions DIRECTORY SCRATCH [COUNT]"),
    }
}

fn times(dir: &Path, scratch: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let measured = json!({
        "alone": latency::each(dir, 1)?,
        "busy": latency::each(dir, cores)?,
        "four_hooks": latency::four_hooks(dir)?,
        "port_us": latency::through_the_port(dir)?,
        "load_from_source_ms": life::load(dir, None)?,
        "load_from_artifacts_ms": life::load(dir, Some(scratch))?,
        "swap_settings_ms": life::swap_settings(dir, scratch)?,
        "swap_component_ms": life::swap_component(dir, scratch)?,
        "overshoot_ms": life::overshoot(dir)?,
    });
    println!("{measured}");
    Ok(())
}

fn micros_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}

fn millis_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

fn quantiles(values: Vec<f64>) -> Value {
    let sample = Sample::new(values);
    json!({
        "p50": sample.quantile(0.5),
        "p99": sample.quantile(0.99),
        "p99.9": sample.quantile(0.999),
    })
}
