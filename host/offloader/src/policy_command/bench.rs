//! `offloader policy bench`: how long a decision takes, each in a fresh instance.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use domain::{DecisionOutcome, Hook, JobFacts, Purpose};
use policy_host::PolicyHost;
use policy_host::floor::Floor;
use serde_json::{Value, json};

use super::candidate::{Candidate, Question, ask};
use super::cases::{self, Expected};
use super::facts::Draft;
use super::print;

/// Decisions of one side before it is the other's turn.
const TURN: usize = 250;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The policy: a WebAssembly component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The hook to ask; without it, all that the policy exports.
    #[arg(long, value_name = "HOOK", value_parser = a_hook)]
    hook: Option<Hook>,
    /// How long to measure each hook.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Cases whose settings and jobs to measure with: for each hook the first that asks it.
    #[arg(long, value_name = "CASES")]
    cases: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn a_hook(text: &str) -> Result<Hook, String> {
    let mut hooks = Hook::ALL.into_iter();
    hooks.find(|hook| hook.as_str() == text).ok_or_else(|| {
        let names = Hook::ALL.map(Hook::as_str).join(", ");
        format!("expected one of {names}")
    })
}

/// What a hook is measured with.
struct Setup {
    host: PolicyHost,
    floor: Floor,
    question: Question,
    facts: Arc<JobFacts>,
}

/// Microseconds of decisions, and of bare calls.
#[derive(Default)]
struct Measured {
    decisions: Vec<f64>,
    floor: Vec<f64>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<bool> {
    let candidate = Candidate::open(&options.file)?;
    let inspection = policy_host::inspect(&candidate.bytes)?;
    let hooks = match options.hook {
        Some(hook) if !inspection.hooks.contains(&hook) => {
            anyhow::bail!("{} does not export {hook}", candidate.file())
        }
        Some(hook) => vec![hook],
        None => inspection.hooks,
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let time = Duration::from_secs(options.seconds) / 2;
    let mut results = Vec::new();
    for hook in hooks {
        let setup = Setup::new(&candidate, hook, options)?;
        let alone = setup.measure(1, time)?;
        let busy = setup.measure(processors, time)?;
        results.push((hook, alone, busy));
    }
    let optimized = !cfg!(debug_assertions);
    print(&match options.json {
        true => as_json(candidate.file(), processors, optimized, &results),
        false => as_text(candidate.file(), processors, optimized, &results),
    });
    Ok(true)
}

impl Setup {
    fn new(candidate: &Candidate, hook: Hook, options: &Options) -> anyhow::Result<Self> {
        let purpose = Purpose::Start;
        let mut question = Question { hook, purpose };
        let mut config = candidate.config();
        let mut facts = None;
        if let Some(path) = &options.cases {
            let cases = cases::read(path)?;
            config.grants = cases.grants;
            config.limits = cases.limits;
            let asked = cases
                .cases
                .into_iter()
                .find_map(|case| match case.expected {
                    Expected::Of(of, _) if of.0.hook == hook => Some((case.settings, *of)),
                    _ => None,
                });
            let (settings, (of_case, job)) =
                asked.with_context(|| format!("no case asks {hook}"))?;
            config.settings = settings;
            question = of_case;
            facts = Some(job);
        }
        let facts = match facts {
            Some(facts) => facts,
            None => Draft::default()
                .finish(hook, purpose)
                .map_err(anyhow::Error::msg)?,
        };
        let floor = Floor::new(&candidate.bytes, config.settings.clone())?;
        let host = Candidate::host()?;
        candidate.load(&host, config)?;
        let facts = Arc::new(facts);
        let setup = Self {
            host,
            floor,
            question,
            facts,
        };
        setup.decide()?;
        Ok(setup)
    }

    /// Asks once. A failure is no measurement.
    fn decide(&self) -> anyhow::Result<()> {
        let decision = ask(&self.host, self.question, &self.facts).context("it was not asked")?;
        let reason = decision.reason.unwrap_or_default();
        anyhow::ensure!(
            decision.outcome == DecisionOutcome::Answered,
            "it fails at {}: {reason}; --cases gives settings and a job that it can work with",
            self.question.hook
        );
        Ok(())
    }

    /// Measures on that many threads at once.
    fn measure(&self, threads: usize, time: Duration) -> anyhow::Result<Measured> {
        let end = Instant::now() + time;
        let measured: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.take_turns(end)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            started.into_iter().map(join).collect()
        });
        let mut all = Measured::default();
        for measured in measured {
            let measured = measured?;
            all.decisions.extend(measured.decisions);
            all.floor.extend(measured.floor);
        }
        all.decisions.sort_unstable_by(f64::total_cmp);
        all.floor.sort_unstable_by(f64::total_cmp);
        Ok(all)
    }

    fn take_turns(&self, end: Instant) -> anyhow::Result<Measured> {
        let mut measured = Measured::default();
        let mut warm = false;
        // The first turn of each warms up, and each has at least one that counts.
        while Instant::now() < end || measured.decisions.is_empty() {
            let mut turn = Measured::default();
            for _ in 0..TURN {
                let begin = Instant::now();
                self.decide()?;
                turn.decisions.push(micros_since(begin));
            }
            for _ in 0..TURN {
                let begin = Instant::now();
                self.floor.call(self.question.hook, &self.facts)?;
                turn.floor.push(micros_since(begin));
            }
            if std::mem::replace(&mut warm, true) {
                measured.decisions.extend(turn.decisions);
                measured.floor.extend(turn.floor);
            }
        }
        Ok(measured)
    }
}

fn micros_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}

/// The smallest value that this share of all are not above.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

type OfHook = (Hook, Measured, Measured);

fn as_text(file: &str, processors: usize, optimized: bool, results: &[OfHook]) -> String {
    let mut lines = vec![format!(
        "{file}: microseconds for a decision in a fresh instance"
    )];
    if !optimized {
        lines.push(
            "This program was built without optimization: it is slower than it can be.".into(),
        );
    }
    for (hook, alone, busy) in results {
        lines.push(format!(
            "\n{:<28}{:>10}{:>10}{:>10}",
            hook.as_str(),
            "p50",
            "p99",
            "p99.9"
        ));
        let all = format!("all {processors} processors");
        for (how, measured) in [("alone", alone), (all.as_str(), busy)] {
            let figures = |name: &str, of: &dyn Fn(f64) -> f64| {
                let figures = QUANTILES.map(|(_, share)| format!("{:>10.1}", of(share)));
                format!("  {name:<26}{}", figures.concat())
            };
            let (decisions, floor) = (&measured.decisions, &measured.floor);
            lines.push(figures(how, &|share| quantile(decisions, share)));
            lines.push(figures("  bare WebAssembly", &|share| {
                quantile(floor, share)
            }));
            lines.push(figures("  ratio", &|share| {
                quantile(decisions, share) / quantile(floor, share)
            }));
        }
        let counts = (alone.decisions.len(), busy.decisions.len());
        lines.push(format!("  of {} and {} decisions", counts.0, counts.1));
    }
    lines.join("\n")
}

fn as_json(file: &str, processors: usize, optimized: bool, results: &[OfHook]) -> String {
    let figures = |sorted: &[f64]| -> Value {
        let figure = |(name, share): (&str, f64)| (name.to_owned(), quantile(sorted, share).into());
        Value::Object(QUANTILES.into_iter().map(figure).collect())
    };
    let measured = |m: &Measured| {
        json!({
            "decisions": m.decisions.len(),
            "decision_us": figures(&m.decisions),
            "floor_us": figures(&m.floor),
        })
    };
    let hooks: Vec<_> = results
        .iter()
        .map(|(hook, alone, busy)| {
            json!({
                "hook": hook.as_str(),
                "alone": measured(alone),
                "all_processors": measured(busy),
            })
        })
        .collect();
    json!({
        "file": file,
        "processors": processors,
        "optimized": optimized,
        "hooks": hooks,
    })
    .to_string()
}
