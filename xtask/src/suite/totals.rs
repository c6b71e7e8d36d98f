//! The sum of what the test binaries report.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// How many tests there were, over all binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds a line of cargo test's output, if it is a binary's result:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    pub(super) fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let mut words = part.split(' ');
            let (Some(Ok(number)), Some(what)) =
                (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl Totals {
    /// Takes away tests that skipped themselves: their binaries count them as passed.
    pub(super) fn without(&mut self, skipped: usize) {
        self.passed = self.passed.saturating_sub(skipped as u64);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tests passed, {} failed, {} ignored",
            self.passed, self.failed, self.ignored
        )
    }
}

/// The names that tests wrote down when they skipped themselves.
pub(super) fn skipped(file: &Path) -> Result<Vec<String>> {
    match fs::read_to_string(file) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_binaries_are_added_up_and_other_lines_are_not() {
        let mut totals = Totals::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2s",
            "test a::b ... ok",
            "5 passed; by word of mouth",
        ] {
            totals.add(line);
        }
        totals.without(2);
        assert_eq!(
            totals,
            Totals {
                passed: 3,
                failed: 1,
                ignored: 1
            }
        );
    }

    #[test]
    fn no_file_means_none_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skips");
        assert!(skipped(&file).unwrap().is_empty());
        fs::write(&file, "one\ntwo\n").unwrap();
        assert_eq!(skipped(&file).unwrap(), ["one", "two"]);
    }
}
