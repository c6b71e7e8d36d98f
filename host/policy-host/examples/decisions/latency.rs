//! Decisions, in turns with the same components on bare WebAssembly.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use domain::Purpose;
use engine::Policies as _;
use offloader_policy_host::PolicyHost;
use offloader_policy_host::floor::Floor;
use serde_json::{Value, json};

use crate::stock::{NOW, STOCK, Stock, configuration, decide, facts};
use crate::{micros_since, quantiles};

/// Turns of both sides.
const ROUNDS: usize = 40;
/// Decisions in a turn.
const BATCH: usize = 1000;
/// Turns before anything counts.
const WARM_UP: usize = 2;

/// A decision of each stock policy, while as many threads do nothing else.
pub(crate) fn each(dir: &Path, threads: usize) -> Result<Vec<Value>> {
    let measure = |stock: &Stock| -> Result<Value> {
        let config = configuration(dir, vec![stock.config()], None)?;
        let host = PolicyHost::load(config, NOW)?;
        let floor = stock.floor(dir)?;
        let facts = Arc::new(facts()?);
        stock.check(&host, &facts)?;
        floor.call(stock.hook, &facts)?;
        let mut measured = in_turns(
            threads,
            BATCH,
            || drop(decide(&host, stock.hook, &facts)),
            || floor.call(stock.hook, &facts).expect("it did before"),
        );
        measured["policy"] = stock.file.into();
        Ok(measured)
    };
    let context = |stock| measure(stock).context(stock.file);
    STOCK.iter().map(context).collect()
}

/// The four hooks of one job, one after the other.
pub(crate) fn four_hooks(dir: &Path) -> Result<Value> {
    let (host, facts) = (all(dir)?, Arc::new(facts()?));
    let floors: Vec<(&Stock, Floor)> = STOCK
        .iter()
        .map(|stock| {
            stock.check(&host, &facts)?;
            Ok((stock, stock.floor(dir)?))
        })
        .collect::<Result<_>>()?;
    Ok(in_turns(
        1,
        BATCH / STOCK.len(),
        || {
            for stock in &STOCK {
                drop(decide(&host, stock.hook, &facts));
            }
        },
        || {
            for (stock, floor) in &floors {
                floor.call(stock.hook, &facts).expect("it does alone");
            }
        },
    ))
}

/// The four hooks of one job as the service asks them: each decision on a thread that may be blocked.
pub(crate) fn through_the_port(dir: &Path) -> Result<Value> {
    let (host, facts) = (all(dir)?, facts()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()?;
    let times = runtime.block_on(async {
        let mut times = Vec::new();
        for _ in 0..BATCH * WARM_UP {
            let begin = Instant::now();
            drop(host.select_image(&facts, Purpose::Start).await);
            drop(host.select_site_url(&facts).await);
            drop(host.retry(&facts).await);
            drop(host.retention(&facts).await);
            times.push(micros_since(begin));
        }
        times
    });
    Ok(quantiles(times))
}

fn all(dir: &Path) -> Result<PolicyHost> {
    let policies = STOCK.iter().map(Stock::config).collect();
    Ok(PolicyHost::load(configuration(dir, policies, None)?, NOW)?)
}

/// Times of both sides in microseconds, measured in turns by as many threads at once.
fn in_turns(
    threads: usize,
    batch: usize,
    ours: impl Fn() + Sync,
    floor: impl Fn() + Sync,
) -> Value {
    let barrier = Barrier::new(threads);
    let turn = |side: &dyn Fn(), times: &mut Vec<f64>| {
        barrier.wait();
        for _ in 0..batch {
            let begin = Instant::now();
            side();
            times.push(micros_since(begin));
        }
    };
    let work = || {
        let (mut our_times, mut floor_times) = (Vec::new(), Vec::new());
        for round in 0..WARM_UP + ROUNDS {
            if round == WARM_UP {
                our_times.clear();
                floor_times.clear();
            }
            turn(&ours, &mut our_times);
            turn(&floor, &mut floor_times);
        }
        (our_times, floor_times)
    };
    let (ours, floor): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).unzip()
    });
    json!({
        "ours_us": quantiles(ours.concat()),
        "floor_us": quantiles(floor.concat()),
    })
}
