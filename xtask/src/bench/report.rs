//! What was measured, as a table and as JSON.

use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use serde_json::json;

/// How long other programs are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A machine that uses no more than this share of itself has nothing else to do.
const QUIET: f64 = 0.1;

/// Everything that one run measured.
#[derive(Serialize)]
pub(super) struct Report {
    /// Processors of this machine.
    cores: usize,
    /// The share (0 to 1) of them that other programs used just before anything was measured or just
    /// after, whichever is more.
    busy: f64,
    rows: Vec<Row>,
}

/// One measurement.
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
    /// An empty report of this machine as it is now, after a look at what else it does.
    pub(super) async fn begin() -> Result<Self> {
        Ok(Self {
            cores: thread::available_parallelism()?.get(),
            busy: busy().await?,
            rows: Vec::new(),
        })
    }

    /// Looks again at what else the machine does, now that everything is measured.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.busy = busy().await?.max(self.busy);
        Ok(())
    }

    /// Adds a measurement.
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

/// The share of the processors that is in use.
async fn busy() -> Result<f64> {
    let before = ProcessorTime::so_far()?;
    tokio::time::sleep(LOOK).await;
    Ok(ProcessorTime::so_far()?.busy_since(&before))
}

/// Time that processors spent since the machine began, in its own unit.
struct ProcessorTime {
    all: f64,
    idle: f64,
}

impl ProcessorTime {
    fn so_far() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").context("reading /proc/stat")?)
            .context("/proc/stat tells no times of processors")
    }

    /// The first line: `cpu`, and times as user, nice, system, idle, waiting for input and output,
    /// interrupts, the same in software, and taken by other machines.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<f64> = line
            .split_whitespace()
            .take(8)
            .filter_map(|time| time.parse().ok())
            .collect();
        Some(Self {
            all: times.iter().sum(),
            idle: times.get(3)? + times.get(4)?,
        })
    }

    fn busy_since(&self, before: &Self) -> f64 {
        1.0 - (self.idle - before.idle) / (self.all - before.all).max(1.0)
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

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let goals: Vec<_> = self
            .goals
            .iter()
            .map(|goal| json!({ "goal": goal, "met": self.meets(*goal) }))
            .collect();
        json!({
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "floor": self.floor,
            "ratio": self.ratio(),
            "goals": goals,
        })
        .serialize(serializer)
    }
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
        if self.busy > QUIET {
            write!(
                f,
                " Other programs used {:.0} % of them: do not trust this.",
                self.busy * 100.0
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
            busy: 0.0,
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
    fn a_program_reads_ratio_and_goals_too() {
        let row = row(3.0, Some(2.0), vec![Goal::RatioAtMost(1.05)]);
        assert_eq!(
            serde_json::to_value(row).unwrap(),
            json!({
                "what": "it", "unit": "ms", "ours": 3.0, "floor": 2.0, "ratio": 1.5,
                "goals": [{ "goal": { "ratio-at-most": 1.05 }, "met": false }],
            })
        );
    }

    #[test]
    fn what_is_not_idle_is_busy() {
        let parse = |text: &str| ProcessorTime::parse(text).unwrap();
        let before = parse("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 1 1 1\n");
        let after = parse("cpu  120 0 60 850 60 0 0 10 9 9\ncpu0 1 1 1 1\n");
        assert_eq!(after.busy_since(&before), 0.4);
        assert!(ProcessorTime::parse("intr 1 2 3 4 5\n").is_none());
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
