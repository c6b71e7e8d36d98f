//! `cargo xtask chaos`: the real daemon and a container engine of its own, and things that happen to
//! them in random order, until time is up or something that was promised does not hold.
//!
//! The seed decides what happens in which order; how far each thing has come when the next one
//! happens is the machine's business.

mod happening;
mod random;
mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use self::happening::Happening;
use self::random::Random;
use self::world::World;
use crate::host;
use crate::layout::Layout;
use crate::stage::build_daemon_with_fault_points;

/// What to do, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// For how many seconds things happen; looking and tidying up come on top
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides what happens; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
}

/// Things that happen between two looks at what became of them.
const ROUND: u64 = 12;

/// Builds what is needed and runs it.
pub(crate) async fn run(layout: &Layout, options: &Options) -> Result<()> {
    host::ensure(layout, host::ENGINE).await?;
    if std::env::var_os("OFFLOADER_FAULTS_BIN").is_none() {
        build_daemon_with_fault_points(layout).await?;
    }
    let seed = options.seed.unwrap_or_else(any_seed);
    happen(Duration::from_secs(options.seconds), seed).await
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64 % 1_000_000
}

/// A minute of it with the daemon that is built already, as a part of the whole test run.
pub(crate) async fn a_minute() -> Result<()> {
    happen(Duration::from_secs(60), any_seed()).await
}

async fn happen(time: Duration, seed: u64) -> Result<()> {
    println!("chaos: seed {seed}, {} seconds", time.as_secs());
    let mut random = Random::new(seed);
    let mut world = World::begin().await?;
    let began = Instant::now();
    let mut happened = 0u64;
    while began.elapsed() < time {
        for _ in 0..ROUND {
            let happening = Happening::pick(&mut random);
            happened += 1;
            println!("{:8.1} {happening}", began.elapsed().as_secs_f64());
            happening.happen(&mut world).await?;
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        }
        verdict(&mut world, seed, began).await?;
    }
    println!(
        "{:8.1} the end: all jobs end and are deleted",
        began.elapsed().as_secs_f64()
    );
    world.wind_up().await?;
    let left = verdict(&mut world, seed, began).await?;
    if left.containers + left.volumes + left.jobs > 0 {
        bail!("chaos with seed {seed}: something is left of what was deleted: {left:?}");
    }
    println!(
        "chaos: seed {seed}, {happened} things happened, {} containers were started, and all that was promised holds",
        left.starts
    );
    Ok(())
}

async fn verdict(
    world: &mut World,
    seed: u64,
    began: Instant,
) -> Result<offloader_system_tests::Agreement> {
    let verdict = world.verdict().await?;
    let at = began.elapsed().as_secs_f64();
    match verdict {
        Ok(agreement) => {
            println!("{at:8.1} the oracle: all agree; {agreement:?}");
            Ok(agreement)
        }
        Err(violations) => {
            for violation in &violations {
                println!("{at:8.1} VIOLATION: {violation}");
            }
            println!("what the daemon said: {}", world.keep_log()?.display());
            bail!("chaos with seed {seed}: {} violations", violations.len())
        }
    }
}
