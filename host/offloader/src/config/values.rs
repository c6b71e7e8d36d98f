//! Kinds of values: each function takes a value as it was found, or says what was expected.

use std::time::Duration;

use toml::de::DeValue;

use super::document::Raw;

type Read<T> = Result<T, String>;

fn expected<T>(what: &str, raw: Raw<'_>) -> Read<T> {
    Err(match raw {
        Raw::Text(_) => format!("expected {what}"),
        Raw::Toml(_) => format!("expected {what}, found {}", raw.found()),
    })
}

/// `true` or `false`; in the environment also 1, t, 0, f and the like.
pub(crate) fn boolean(raw: Raw<'_>) -> Read<bool> {
    match raw {
        Raw::Toml(DeValue::Boolean(value)) => Ok(*value),
        Raw::Text("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Raw::Text("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        other => expected("true or false", other),
    }
}

/// Any text.
pub(crate) fn text(raw: Raw<'_>) -> Read<String> {
    match raw {
        Raw::Toml(DeValue::String(text)) => Ok(text.clone().into_owned()),
        Raw::Text(text) => Ok(text.to_owned()),
        other => expected("a string", other),
    }
}

/// A list of texts.
pub(crate) fn texts(raw: Raw<'_>) -> Read<Vec<String>> {
    let Raw::Toml(DeValue::Array(items)) = raw else {
        return expected("a list of strings", raw);
    };
    items
        .iter()
        .map(|item| {
            text(Raw::Toml(item.get_ref())).map_err(|_| "expected a list of strings".to_owned())
        })
        .collect()
}

/// A whole number from `least` on.
pub(crate) fn number(least: u64) -> impl Fn(Raw<'_>) -> Read<u64> {
    move |raw| {
        let parsed = match raw {
            Raw::Toml(DeValue::Integer(number)) => {
                let digits = number.as_str().trim_start_matches('+');
                u64::from_str_radix(digits, number.radix()).ok()
            }
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Toml(_) => return expected("a whole number", raw),
        };
        match parsed {
            Some(number) if number >= least => Ok(number),
            _ if least == 0 => Err("expected a whole number, not negative".into()),
            _ => Err(format!("expected a whole number of at least {least}")),
        }
    }
}

/// A whole number from `least` on that fits 32 bits.
pub(crate) fn number32(least: u64) -> impl Fn(Raw<'_>) -> Read<u32> {
    move |raw| {
        u32::try_from(number(least)(raw)?)
            .map_err(|_| format!("expected a number up to {}", u32::MAX))
    }
}

/// A number of processors, in billionths.
pub(crate) fn cpus(raw: Raw<'_>) -> Read<u64> {
    let text = match raw {
        Raw::Toml(DeValue::Integer(number)) => number.to_string(),
        Raw::Toml(DeValue::Float(number)) => number.as_str().to_owned(),
        _ => return expected("a number of processors", raw),
    };
    match text.parse::<f64>() {
        Ok(cpus) if (0.0..=100_000.0).contains(&cpus) => Ok((cpus * 1e9).round() as u64),
        _ => Err("expected a number of processors, 0 for no limit".into()),
    }
}

/// A length of time: `100s`, `2h`, `1h30m`, `30d`, `50ms`.
pub(crate) fn duration(raw: Raw<'_>) -> Read<Duration> {
    const WANTED: &str = "a duration such as \"100s\", \"2h\" or \"30d\"";
    match raw {
        Raw::Toml(DeValue::String(text)) => {
            parse_duration(text).ok_or_else(|| format!("expected {WANTED}, found {text:?}"))
        }
        Raw::Text(text) => {
            parse_duration(text).ok_or_else(|| format!("expected {WANTED}, found {text:?}"))
        }
        other => expected(WANTED, other),
    }
}

/// A length of time of `least` or more.
pub(crate) fn duration_from(least: Duration) -> impl Fn(Raw<'_>) -> Read<Duration> {
    move |raw| match duration(raw)? {
        duration if duration >= least => Ok(duration),
        _ => Err(format!("expected at least {} s", least.as_secs())),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let millis = match &after[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &after[end..];
    }
    Some(total)
}

/// A number of bytes: `4GiB`, `512MiB`, `64KiB`, `1000`.
pub(crate) fn bytes(raw: Raw<'_>) -> Read<u64> {
    const WANTED: &str = "a size such as \"4GiB\" or \"512MiB\"";
    match raw {
        Raw::Toml(DeValue::Integer(_)) => number(0)(raw),
        Raw::Toml(DeValue::String(text)) => {
            parse_bytes(text).ok_or_else(|| format!("expected {WANTED}, found {text:?}"))
        }
        other => expected(WANTED, other),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// How long failed jobs are kept: one number with one of `m`, `h`, `d`; 0 for ever.
pub(crate) fn retention(raw: Raw<'_>) -> Read<Option<Duration>> {
    const WANTED: &str = "minutes, hours or days such as \"90m\", \"12h\" or \"7d\", at least one minute, or \"0m\" for ever";
    let text = match raw {
        Raw::Toml(DeValue::String(text)) => text.as_ref(),
        Raw::Text(text) => text,
        Raw::Toml(DeValue::Integer(number)) if number.as_str() == "0" => "0",
        Raw::Toml(_) => return expected(WANTED, raw),
    };
    if text == "0" {
        return Ok(None);
    }
    let refused = || format!("expected {WANTED}, found {text:?}");
    let unit = text.chars().last().ok_or_else(refused)?;
    let minutes: u64 = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        _ => return Err(refused()),
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refused());
    }
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(minutes * 60))
        .ok_or_else(refused)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// One of a few words.
pub(crate) fn word<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(Raw<'_>) -> Read<T> {
    move |raw| {
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let wanted = names.join(" or ");
        let Ok(text) = text(raw) else {
            return expected(&wanted, raw);
        };
        let found = choices.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("expected {wanted}, found {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mins(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn retention_is_one_number_and_one_unit() {
        for (text, expected) in [
            ("90m", Some(mins(90))),
            ("2h", Some(mins(120))),
            ("7d", Some(mins(7 * 24 * 60))),
            ("0m", None),
            ("0h", None),
            ("0d", None),
            ("0", None),
        ] {
            assert_eq!(retention(Raw::Text(text)), Ok(expected), "{text}");
        }
        for text in [
            "",
            "m",
            "7",
            "7w",
            "1h30m",
            "-1h",
            "1.5h",
            "30s",
            "7 d",
            "99999999999999999999d",
            "é",
        ] {
            assert!(retention(Raw::Text(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("1h30m"), Some(mins(90)));
        assert_eq!(parse_duration("50ms"), Some(Duration::from_millis(50)));
        assert_eq!(parse_duration("30d"), Some(mins(30 * 24 * 60)));
        for text in [
            "",
            "5",
            "s",
            "5y",
            "5s5",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_bytes("4GiB"), Some(4 << 30));
        assert_eq!(parse_bytes("64 KiB"), Some(64 << 10));
        assert_eq!(parse_bytes("1000"), Some(1000));
        for text in [
            "",
            "GiB",
            "4GB",
            "-1",
            "99999999999999999999",
            "99999999999TiB",
        ] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn the_environment_says_true_in_many_ways() {
        for text in ["1", "t", "true", "TRUE", "True"] {
            assert_eq!(boolean(Raw::Text(text)), Ok(true), "{text}");
        }
        for text in ["yes", "on", "2", "tRUE"] {
            assert!(boolean(Raw::Text(text)).is_err(), "{text}");
        }
    }
}
