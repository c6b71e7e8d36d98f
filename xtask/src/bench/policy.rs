//! What policies take: decisions beside the same component on bare WebAssembly, loads, swaps, the end
//! of those that do not end by themselves, and memory.

use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Bench;
use super::memory::{MEGABYTE, proportional_kib};
use super::report::{Goal, Report, Row};
use crate::guests::{POLICIES, file_name};
use crate::process::{command, output};

/// What the program `decisions` says.
#[derive(Deserialize)]
struct Measured {
    alone: Vec<Decisions>,
    busy: Vec<Decisions>,
    four_hooks: Beside,
    port_us: Quantiles,
    load_from_source_ms: Quantiles,
    load_from_artifacts_ms: Quantiles,
    swap_settings_ms: Quantiles,
    swap_component_ms: Quantiles,
    overshoot_ms: Quantiles,
}

#[derive(Deserialize)]
struct Decisions {
    policy: String,
    #[serde(flatten)]
    beside: Beside,
}

/// Ours, beside bare WebAssembly.
#[derive(Deserialize)]
struct Beside {
    ours_us: Quantiles,
    floor_us: Quantiles,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
}

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let (dir, scratch) = (bench.dir("policies")?, bench.dir("scratch")?);
    let stock = POLICIES.map(|policy| bench.policies.join(file_name(policy)));
    for component in stock.iter().chain([&bench.hostile]) {
        let name = component.file_name().context("a path without a name")?;
        fs::copy(component, dir.join(name))
            .with_context(|| format!("copying {}", component.display()))?;
    }
    let decisions = || {
        let mut decisions = command(bench.tool("examples/decisions"));
        decisions.arg(&dir).arg(&scratch);
        decisions
    };
    let said = output(&mut decisions()).await?;
    let measured: Measured =
        serde_json::from_str(&said).with_context(|| format!("decisions says {said}"))?;
    add_times(measured, report);

    let mut resident = Vec::new();
    for count in [0, 1, 10, 100] {
        let said = output(decisions().arg(count.to_string())).await?;
        resident.push((count, proportional_kib(&said)? * 1024.0 / MEGABYTE));
    }
    let [(_, nothing), (_, first), ref more @ ..] = resident[..] else {
        unreachable!("both were just measured");
    };
    report.add(Row {
        what: "memory of the first policy, the engine's own included".to_owned(),
        unit: "MB",
        ours: first - nothing,
        floor: None,
        goals: vec![],
    });
    for (count, total) in more {
        report.add(Row {
            what: format!("memory of each further one of {count} policies"),
            unit: "MB",
            ours: (total - first) / f64::from(count - 1),
            floor: None,
            goals: vec![Goal::AtMost(0.5)],
        });
    }
    Ok(())
}

fn add_times(measured: Measured, report: &mut Report) {
    for (decisions, when) in [(measured.alone, ""), (measured.busy, ", all cores busy")] {
        for Decisions { policy, beside } in decisions {
            let name = policy.trim_end_matches(".wasm").replace('_', "-");
            let goals = match when {
                "" => vec![Goal::RatioAtMost(1.2), Goal::AtMost(15.0)],
                _ => vec![Goal::RatioAtMost(1.2)],
            };
            let slowest = match when {
                "" => vec![Goal::AtMost(40.0)],
                _ => vec![],
            };
            beside.add(&format!("decision of {name}{when}"), goals, slowest, report);
        }
    }
    let hundred = || vec![Goal::AtMost(100.0)];
    let (four, port) = (measured.four_hooks, measured.port_us);
    four.add("four hooks of a job", hundred(), vec![], report);
    let millis = [
        (
            "four policies loaded from source",
            measured.load_from_source_ms,
            vec![],
            vec![],
        ),
        (
            "four policies loaded from artifacts",
            measured.load_from_artifacts_ms,
            vec![],
            vec![],
        ),
        (
            "swap of settings to first decision",
            measured.swap_settings_ms,
            hundred(),
            vec![],
        ),
        (
            "swap of a component to first decision",
            measured.swap_component_ms,
            hundred(),
            vec![],
        ),
        (
            "end of an endless decision after its limit",
            measured.overshoot_ms,
            vec![],
            vec![Goal::AtMost(2.0)],
        ),
    ];
    port.add(
        "four hooks as the service asks them",
        "us",
        hundred(),
        vec![],
        report,
    );
    for (what, times, goals, slowest) in millis {
        times.add(what, "ms", goals, slowest, report);
    }
}

impl Beside {
    fn add(self, what: &str, goals: Vec<Goal>, slowest: Vec<Goal>, report: &mut Report) {
        let Self {
            ours_us: ours,
            floor_us: floor,
        } = self;
        let rows = [
            ("p50", ours.p50, floor.p50, goals),
            ("p99", ours.p99, floor.p99, slowest),
            ("p99.9", ours.p999, floor.p999, vec![]),
        ];
        for (quantile, ours, floor, goals) in rows {
            report.add(Row {
                what: format!("{what}, {quantile}"),
                unit: "us",
                ours,
                floor: Some(floor),
                goals,
            });
        }
    }
}

impl Quantiles {
    fn add(
        self,
        what: &str,
        unit: &'static str,
        goals: Vec<Goal>,
        slowest: Vec<Goal>,
        report: &mut Report,
    ) {
        for (quantile, ours, goals) in [("p50", self.p50, goals), ("p99", self.p99, slowest)] {
            report.add(Row {
                what: format!("{what}, {quantile}"),
                unit,
                ours,
                floor: None,
                goals,
            });
        }
    }
}
