//! A decision of each stock policy, beside the same component on bare WebAssembly.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Bench;
use super::report::{Goal, Report, Row};
use crate::process::{command, output};

/// What the program `decisions` says about one policy.
#[derive(Deserialize)]
struct Measured {
    policy: String,
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
    let mut decisions = command(bench.tool("examples/decisions"));
    let said = output(decisions.arg(&bench.policies)).await?;
    let all: Vec<Measured> =
        serde_json::from_str(&said).with_context(|| format!("decisions says {said}"))?;
    for Measured {
        policy,
        ours_us: ours,
        floor_us: floor,
    } in all
    {
        let name = policy.trim_end_matches(".wasm").replace('_', "-");
        let mut add = |quantile, ours, floor, goals| {
            report.add(Row {
                what: format!("decision of {name}, {quantile}"),
                unit: "us",
                ours,
                floor: Some(floor),
                goals,
            });
        };
        add(
            "p50",
            ours.p50,
            floor.p50,
            vec![Goal::RatioAtMost(1.2), Goal::AtMost(15.0)],
        );
        add("p99", ours.p99, floor.p99, vec![Goal::AtMost(40.0)]);
        add("p99.9", ours.p999, floor.p999, vec![]);
    }
    Ok(())
}
