//! Settings: typed, with every mistake told at once and by its key.
//!
//! A policy reads its settings in one function of the form `fn(&mut Settings) -> Config`, and gives
//! that to [`check`] when it is loaded and to [`read`] when it decides.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::bindings::facts::wasi::config::store;
pub use crate::hooks::settings_check::Problem;
use crate::json::{self, Value};

/// A policy's settings, read once each.
///
/// A getter answers `None` when the setting is not there and also when it is wrong; what was wrong
/// with it is kept for [`Settings::finish`].
#[derive(Debug)]
pub struct Settings {
    values: Vec<(String, String)>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

/// The settings as `configure` understands them.
///
/// # Panics
/// When something is wrong with them, which ends the decision: settings are checked when a policy is
/// loaded, so this is not expected.
pub fn read<C>(configure: fn(&mut Settings) -> C) -> C {
    let mut settings = Settings::from_host();
    let config = configure(&mut settings);
    assert!(settings.finish().is_empty(), "wrong settings");
    config
}

/// Everything that is wrong with the settings, as `configure` understands them.
#[must_use]
pub fn check<C>(configure: fn(&mut Settings) -> C) -> Vec<Problem> {
    let mut settings = Settings::from_host();
    configure(&mut settings);
    settings.finish()
}

impl Settings {
    /// The settings that the configuration gives to this policy.
    ///
    /// # Panics
    /// When the host cannot hand them out.
    #[must_use]
    pub fn from_host() -> Self {
        let Ok(values) = store::get_all() else {
            panic!("no settings")
        };
        Self {
            values,
            known: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Settings for a test.
    #[must_use]
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let values = pairs
            .iter()
            .map(|(k, v)| ((*k).to_string(), (*v).to_string()))
            .collect();
        Self {
            values,
            known: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Everything that was wrong, settings that nobody asked for among it.
    #[must_use]
    pub fn finish(mut self) -> Vec<Problem> {
        for (key, _) in &self.values {
            if !self.known.contains(&key.as_str()) {
                let known = self.known.join(", ");
                let message = format!("unknown setting; there are {known}");
                self.problems.push(Problem {
                    key: key.clone(),
                    message,
                });
            }
        }
        self.problems
    }

    /// Notes something wrong with a setting.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            key: key.into(),
            message: message.into(),
        });
    }

    /// A text, as it is.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.values
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.clone())
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.parse(key, "true or false", |text| text.parse().ok())
    }

    /// A whole number within a range.
    pub fn whole(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.parse(key, &expected, |text| {
            text.parse().ok().filter(|n| range.contains(n))
        })
    }

    /// A number with up to three decimals, in thousandths: `1.5` is 1500. The range is in
    /// thousandths too.
    pub fn decimal(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let expected = format!(
            "a number from {} to {} with up to three decimals",
            thousandths_text(*range.start()),
            thousandths_text(*range.end())
        );
        self.parse(key, &expected, |text| {
            thousandths(text).filter(|n| range.contains(n))
        })
    }

    /// A duration: a whole number and one of `ms`, `s`, `m`, `h` and `d`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parse(key, DURATION, duration)
    }

    /// A list of texts: a JSON array of them.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let list = match self.json(key)? {
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_text().map(String::from))
                .collect(),
            _ => None,
        };
        if list.is_none() {
            self.problem(key, "expected a list of texts, for example [\"a\", \"b\"]");
        }
        list
    }

    /// A table: a JSON object, in the order it was written.
    pub fn table(&mut self, key: &'static str) -> Option<Vec<(String, Value)>> {
        match self.json(key)? {
            Value::Object(members) => Some(members),
            _ => {
                self.problem(key, "expected a table, for example {\"a\": \"b\"}");
                None
            }
        }
    }

    /// A table whose values are texts.
    pub fn texts_by_name(&mut self, key: &'static str) -> Option<Vec<(String, String)>> {
        let mut texts = Vec::new();
        for (name, value) in self.table(key)? {
            match value {
                Value::Text(text) => texts.push((name, text)),
                _ => self.problem(key, format!("{name}: expected a text")),
            }
        }
        Some(texts)
    }

    fn json(&mut self, key: &'static str) -> Option<Value> {
        let text = self.text(key)?;
        json::parse(&text)
            .map_err(|error| self.problem(key, error.to_string()))
            .ok()
    }

    fn parse<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(&text);
        if value.is_none() {
            self.problem(
                key,
                format!("expected {expected}, found \"{}\"", shortened(&text)),
            );
        }
        value
    }
}

/// What a duration looks like, for messages.
pub const DURATION: &str = "a whole number and ms, s, m, h or d, for example 30s";

/// The duration that a text stands for: a whole number and one of `ms`, `s`, `m`, `h` and `d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let decimals = decimals.parse::<u32>().ok()? * [0, 100, 10, 1][decimals.len()];
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(decimals)
}

fn thousandths_text(number: u32) -> String {
    match number % 1000 {
        0 => (number / 1000).to_string(),
        rest => format!("{}.{:03}", number / 1000, rest)
            .trim_end_matches('0')
            .to_string(),
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_typed_values() {
        let mut s = Settings::from_pairs(&[
            ("flag", "true"),
            ("whole", "3"),
            ("decimal", "1.5"),
            ("duration", "2h"),
            ("texts", r#"["a","b"]"#),
            ("table", r#"{"a":"b"}"#),
        ]);
        assert_eq!(s.flag("flag"), Some(true));
        assert_eq!(s.whole("whole", 1..=3), Some(3));
        assert_eq!(s.decimal("decimal", 0..=2000), Some(1500));
        assert_eq!(s.duration("duration"), Some(Duration::from_secs(7200)));
        assert_eq!(
            s.texts("texts"),
            Some(vec!["a".to_string(), "b".to_string()])
        );
        assert_eq!(
            s.texts_by_name("table"),
            Some(vec![("a".to_string(), "b".to_string())])
        );
        assert_eq!(s.text("absent"), None);
        assert_eq!(s.finish(), []);
    }

    #[test]
    fn tells_every_mistake_with_its_key() {
        let mut s = Settings::from_pairs(&[
            ("flag", "yes"),
            ("whole", "4"),
            ("decimal", "0.1234"),
            ("duration", "2 h"),
            ("texts", "[1]"),
            ("table", "{"),
            ("typo", ""),
        ]);
        assert_eq!(s.flag("flag"), None);
        assert_eq!(s.whole("whole", 1..=3), None);
        assert_eq!(s.decimal("decimal", 0..=1500), None);
        assert_eq!(s.duration("duration"), None);
        assert_eq!(s.texts("texts"), None);
        assert_eq!(s.table("table"), None);
        let problems = s.finish();
        let lines: Vec<_> = problems
            .iter()
            .map(|p| format!("{}: {}", p.key, p.message))
            .collect();
        assert_eq!(
            lines,
            [
                "flag: expected true or false, found \"yes\"",
                "whole: expected a whole number from 1 to 3, found \"4\"",
                "decimal: expected a number from 0 to 1.5 with up to three decimals, found \"0.1234\"",
                "duration: expected a whole number and ms, s, m, h or d, for example 30s, found \"2 h\"",
                "texts: expected a list of texts, for example [\"a\", \"b\"]",
                "table: not JSON: expected a key in quotes at byte 1",
                "typo: unknown setting; there are flag, whole, decimal, duration, texts, table",
            ]
        );
    }

    #[test]
    fn durations_have_one_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5h",
            "1h30m",
            "99999999999999999d",
            "1S",
        ] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }
}
