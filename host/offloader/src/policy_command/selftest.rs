//! `offloader policy selftest`: whether the limits of the sandbox bite on this machine.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use policy_host::SelftestReport;
use serde_json::json;

use super::print;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<bool> {
    let report = policy_host::selftest();
    print(&match options.json {
        true => as_json(&report),
        false => as_text(&report),
    });
    Ok(report.passed())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn as_text(report: &SelftestReport) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = if check.passed { "ok" } else { "FAIL" };
        let _ = writeln!(
            text,
            "{mark:<5} {}: expected {}, saw {}",
            check.name, check.expected, check.seen
        );
    }
    if let Some((median, longest)) = report.overshoot {
        let _ = writeln!(
            text,
            "endless decisions ended {:.2} ms after their time was up, at most {:.2} ms",
            millis(median),
            millis(longest)
        );
    }
    text + match report.passed() {
        true => "every limit bites",
        false => "A LIMIT DOES NOT BITE: do not run policies here that you do not trust",
    }
}

fn as_json(report: &SelftestReport) -> String {
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "expected": check.expected,
                "seen": check.seen,
                "passed": check.passed,
            })
        })
        .collect();
    let (median, longest) = report.overshoot.unzip();
    json!({
        "passed": report.passed(),
        "checks": checks,
        "overshoot_median_ms": median.map(millis),
        "overshoot_longest_ms": longest.map(millis),
    })
    .to_string()
}
