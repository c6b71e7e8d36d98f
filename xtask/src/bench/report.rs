//! What was measured, as a table and as JSON.

use std::fmt;
use std::fs;
use std::thread;

use anyhow::{Context, Result};
use serde::Serialize;

/// Everything that one run measured.
#[derive(Serialize)]
pub(super) struct Report {
    /// Processors of this machine.
    cores: usize,
    /// Programs that wanted to run at once over the last minute before anything was measured. Half a
    /// processor's worth and more makes the results doubtful.
    load_before: f64,
    rows: Vec<Row>,
}

/// One measurement.
#[derive(Serialize)]
pub(super) struct Row {
    /// What was measured.
    pub(super) what: String,
    /// The unit of both values.
    pub(super) unit: &'static str,
    /// What Offloader takes or does.
    pub(super) ours: f64,
    /// What the same costs at least, or what can be done at most.
    pub(super) floor: Option<f64>,
    /// What is aimed at.
    pub(super) goals: Vec<Goal>,
}

/// A bound that a measurement should keep.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Goal {
    /// Of our value.
    AtMost(f64),
    /// Of our value.
    AtLeast(f64),
    /// Of our value divided by the floor.
    RatioAtMost(f64),
    /// Of our value divided by the floor.
    RatioAtLeast(f64),
}

impl Report {
    /// An empty report of this machine as it is now.
    pub(super) fn begin() -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
        let load_before = load
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .context("/proc/loadavg has no number")?;
        let cores = thread::available_parallelism()?.get();
        Ok(Self {
            cores,
            load_before,
            rows: Vec::new(),
        })
    }

    /// Adds a measurement.
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.ours / floor)
    }

    fn meets(&self, goal: Goal) -> bool {
        match goal {
            Goal::AtMost(bound) => self.ours <= bound,
            Goal::AtLeast(bound) => self.ours >= bound,
            Goal::RatioAtMost(bound) => self.ratio().is_some_and(|ratio| ratio <= bound),
            Goal::RatioAtLeast(bound) => self.ratio().is_some_and(|ratio| ratio >= bound),
        }
    }

    fn cells(&self) -> [String; 5] {
        let value = |value| format!("{} {}", number(value), self.unit);
        let none = || "-".to_owned();
        let goal = |goal: &Goal| {
            let met = if self.meets(*goal) { "" } else { " MISSED" };
            match goal {
                Goal::AtMost(bound) => format!("<= {}{met}", value(*bound)),
                Goal::AtLeast(bound) => format!(">= {}{met}", value(*bound)),
                Goal::RatioAtMost(bound) => format!("<= {bound:.2} x{met}"),
                Goal::RatioAtLeast(bound) => format!(">= {bound:.2} x{met}"),
            }
        };
        let goals: Vec<_> = self.goals.iter().map(goal).collect();
        [
            self.what.clone(),
            value(self.ours),
            self.floor.map_or_else(none, value),
            self.ratio()
                .map_or_else(none, |ratio| format!("{ratio:.2} x")),
            if goals.is_empty() {
                none()
            } else {
                goals.join(", ")
            },
        ]
    }
}

/// Three digits that count, or all before the point.
fn number(value: f64) -> String {
    let before_the_point = value.abs().max(1.0).log10() as usize + 1;
    format!("{value:.*}", 3_usize.saturating_sub(before_the_point))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["what", "ours", "floor", "ratio", "goal"].map(str::to_owned);
        let lines: Vec<[String; 5]> = std::iter::once(heads)
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let mut widths = [0; 5];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let [what, ours, floor, ratio, _] = widths;
        for [a, b, c, d, e] in &lines {
            writeln!(f, "{a:what$}  {b:>ours$}  {c:>floor$}  {d:>ratio$}  {e}")?;
        }
        write!(f, "\n{} processors.", self.cores)?;
        if self.load_before > self.cores as f64 / 4.0 {
            write!(
                f,
                " The machine had other work (load {}): do not trust this.",
                self.load_before
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, floor: Option<f64>, goals: Vec<Goal>) -> Row {
        Row {
            what: "it".into(),
            unit: "ms",
            ours,
            floor,
            goals,
        }
    }

    #[test]
    fn goals_bind_the_value_or_its_ratio() {
        let row = row(21.0, Some(20.0), vec![]);
        for (goal, met) in [
            (Goal::AtMost(21.0), true),
            (Goal::AtMost(20.0), false),
            (Goal::AtLeast(21.0), true),
            (Goal::AtLeast(22.0), false),
            (Goal::RatioAtMost(1.05), true),
            (Goal::RatioAtMost(1.04), false),
            (Goal::RatioAtLeast(1.05), true),
            (Goal::RatioAtLeast(1.06), false),
        ] {
            assert_eq!(row.meets(goal), met, "{goal:?}");
        }
    }

    #[test]
    fn a_ratio_without_a_floor_meets_no_goal() {
        let row = row(1.0, None, vec![]);
        assert!(!row.meets(Goal::RatioAtMost(9.0)) && !row.meets(Goal::RatioAtLeast(0.0)));
    }

    #[test]
    fn a_missed_goal_stands_out() {
        let report = Report {
            cores: 2,
            load_before: 0.0,
            rows: vec![
                row(31.0, None, vec![Goal::AtMost(30.0)]),
                row(1.04, Some(1.0), vec![Goal::RatioAtMost(1.05)]),
            ],
        };
        let text = report.to_string();
        assert!(text.contains("<= 30.0 ms MISSED"), "{text}");
        assert!(text.contains("1.04 x  <= 1.05 x\n"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.123, "0.12"),
            (9.99, "9.99"),
            (12.34, "12.3"),
            (345.6, "346"),
            (13_500.4, "13500"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
