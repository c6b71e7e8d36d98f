//! Lives through many simulated histories, and tells of those that go wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use offloader_engine::simulation::{Mutation, simulate};

const USAGE: &str = "simulate [--histories N] [--seed FIRST] [--threads T] [--keep-going] [--show SEED] [--mutations]

  --histories N   how many (default 100000), of the seeds FIRST, FIRST + 1, …
  --seed FIRST    (default 0)
  --threads T     (default 1)
  --keep-going    go on after the first that goes wrong, and count what goes wrong how
  --show SEED     print the history of this seed, and live through no other
  --mutations     break the engine in every way there is, and count the histories until it is noticed";

struct Options {
    histories: u64,
    seed: u64,
    threads: u64,
    keep_going: bool,
    show: Option<u64>,
    mutations: bool,
}

fn options() -> Option<Options> {
    let mut options = Options {
        histories: 100_000,
        seed: 0,
        threads: 1,
        keep_going: false,
        show: None,
        mutations: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next()?.parse().ok();
        match argument.as_str() {
            "--histories" => options.histories = number()?,
            "--seed" => options.seed = number()?,
            "--threads" => options.threads = number()?.max(1),
            "--show" => options.show = Some(number()?),
            "--keep-going" => options.keep_going = true,
            "--mutations" => options.mutations = true,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let good = if options.mutations {
        break_it(&options)
    } else if let Some(seed) = options.show {
        show(seed);
        true
    } else {
        run(&options)
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn show(seed: u64) {
    for line in simulate(seed, None, true).lines {
        println!("{line}");
    }
}

/// What went wrong, without the names and numbers of one history.
fn kind_of(violation: &str) -> String {
    let plain = |c: char| c.is_ascii_digit() || c == ':';
    let words = violation
        .split_whitespace()
        .filter(|word| word.len() < 26 && !word.contains(plain));
    words.take(14).collect::<Vec<_>>().join(" ")
}

fn run(options: &Options) -> bool {
    let (next, effects) = (AtomicU64::new(options.seed), AtomicU64::new(0));
    let end = options.seed + options.histories;
    let wrong = Mutex::new(BTreeMap::<String, (u64, u64)>::new());
    let began = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let history = simulate(seed, None, false);
            effects.fetch_add(history.effects, Ordering::Relaxed);
            if let Some(violation) = history.violation {
                let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                let entry = wrong.entry(kind_of(&violation)).or_insert((seed, 0));
                entry.1 += 1;
                if !options.keep_going {
                    next.store(end, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(work);
        }
    });
    let lived = next.into_inner().min(end) - options.seed;
    let seconds = began.elapsed().as_secs_f64();
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{lived} histories from seed {} on, {} effects, {seconds:.1} s, {:.0} histories/s on {} threads",
        options.seed,
        effects.into_inner(),
        lived as f64 / seconds,
        options.threads
    );
    for (kind, (seed, times)) in &wrong {
        println!("{times:>6} x {kind}: seed {seed}");
    }
    if let Some((seed, _)) = wrong.values().next().filter(|_| !options.keep_going) {
        show(*seed);
    }
    wrong.is_empty()
}

fn break_it(options: &Options) -> bool {
    let mut noticed = true;
    for mutation in Mutation::ALL {
        let seeds = options.seed..options.seed + options.histories;
        let found = seeds.clone().find_map(|seed| {
            let violation = simulate(seed, Some(mutation), false).violation?;
            Some((seed - options.seed + 1, violation))
        });
        match found {
            Some((histories, violation)) => {
                println!("{mutation:?}: noticed in history {histories}: {violation}");
            }
            None => {
                println!(
                    "{mutation:?}: NOT noticed in {} histories",
                    options.histories
                );
                noticed = false;
            }
        }
    }
    noticed
}
