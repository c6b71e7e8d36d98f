//! What a program that measures says, turn by turn.

use anyhow::{Context, Result};
use offloader_bench::Sample;
use serde_json::Value;
use tokio::process::Command;

use crate::process::output;

/// JSON objects with the same numbers in each.
#[derive(Default)]
pub(super) struct Turns(Vec<Value>);

impl Turns {
    /// Runs the program once more.
    pub(super) async fn add(&mut self, program: &mut Command) -> Result<()> {
        let said = output(program).await?;
        let said = serde_json::from_str(&said).with_context(|| format!("it says {said}"))?;
        self.0.push(said);
        Ok(())
    }

    /// The median of a number over all turns.
    pub(super) fn median(&self, key: &str) -> Result<f64> {
        let number = |said: &Value| said[key].as_f64().with_context(|| format!("no {key}"));
        let numbers: Result<Vec<_>> = self.0.iter().map(number).collect();
        Ok(Sample::new(numbers?).quantile(0.5))
    }
}
