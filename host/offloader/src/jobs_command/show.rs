//! Jobs as people read them.

use std::fmt::Write as _;

use domain::{JobId, Timestamp};
use engine::in_words;
use serde_json::Value;

/// JSON, for programs and the curious.
pub(crate) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A line a job.
pub(crate) fn table(jobs: &[Value], now: Timestamp) -> String {
    let head = [
        "ID",
        "TYPE",
        "STATE",
        "REASON",
        "SUBMITTED",
        "UNSENT",
        "KEPT UNTIL",
        "CLIENT",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(jobs.iter().map(|job| {
        [
            text(job, "id"),
            kind(job),
            text(job, "state"),
            text(job, "reason"),
            time(job, "submitted_at"),
            unsent(job),
            kept_until(job, now),
            text(job, "client"),
        ]
    }));
    let widths: [usize; 8] = std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    let mut shown = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(shown, "{}", line.trim_end());
    }
    shown
}

/// All that matters of one job.
pub(crate) fn job(job: &Value, now: Timestamp) -> String {
    let mut shown = String::new();
    let mut line = |name: &str, value: String| {
        if value != NOTHING {
            let _ = writeln!(shown, "{name:<13} {value}");
        }
    };
    for field in [
        "id",
        "type",
        "resends",
        "state",
        "outcome",
        "reason",
        "exit_code",
        "delivery",
    ] {
        line(field, text(job, field));
    }
    line("unsent", unsent(job));
    line("kept until", kept_until(job, now));
    for field in ["client", "site_url", "runner"] {
        line(field, text(job, field));
    }
    for field in ["submitted_at", "start_at", "deadline", "kill_at", "stop_at"] {
        line(field, time(job, field));
    }
    for attempt in list(job, "attempts") {
        let when = format!(
            "{} to {}",
            time(attempt, "running_at"),
            time(attempt, "ended_at")
        );
        let (image, reason) = (text(attempt, "image"), text(attempt, "reason"));
        line("attempt", format!("{image}, ran {when}, {reason}"));
    }
    for decision in list(job, "decisions") {
        let (hook, policy) = (text(decision, "hook"), text(decision, "policy"));
        let (verdict, value) = (text(decision, "verdict"), text(decision, "value"));
        line("decision", format!("{hook}: {policy}: {verdict} {value}"));
    }
    shown
}

/// What follows a request to stop.
pub(crate) fn stopped(job: &Value) -> String {
    let kill_at = match time(job, "kill_at") {
        time if time == NOTHING => String::new(),
        time => format!("; it is killed at {time} if it has not ended by then"),
    };
    format!("{} is {}{kill_at}\n", text(job, "id"), text(job, "state"))
}

/// What is gone.
pub(crate) fn deleted(id: &JobId, gone: Option<&Value>) -> String {
    match gone.map(|gone| (unsent(gone), text(gone, "delivery"))) {
        Some((unsent, _)) if unsent == "unknown" => {
            format!("{id} is deleted; nobody knows whether its work had been sent in\n")
        }
        Some((unsent, _)) if unsent != NOTHING => {
            format!("{id} is deleted, with {unsent} of work that was not sent in\n")
        }
        Some((_, delivery)) => format!("{id} is deleted; its work: {delivery}\n"),
        None => format!("{id} is deleted\n"),
    }
}

/// What was begun.
pub(crate) fn resending(id: &JobId, resend: &JobId) -> String {
    format!(
        "job {resend} sends in what {id} left; `offloader jobs logs --follow {resend}` tells how it goes\n"
    )
}

/// What came of it.
pub(crate) fn resent(id: &JobId) -> String {
    format!("all that {id} left is delivered\n")
}

/// What is in a file now.
pub(crate) fn fetched(file: &str, bytes: u64) -> String {
    let size = match size(bytes) {
        size if bytes < 1024 => size,
        size => format!("{size} ({bytes} bytes)"),
    };
    format!("{}: {size}\n", printable(file))
}

/// What stands for nothing.
const NOTHING: &str = "-";

/// A text without what a terminal would act on: names come from clients.
pub(crate) fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn time(value: &Value, field: &str) -> String {
    let at = value[field].as_i64();
    let at = at.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map_or_else(
        || NOTHING.to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

/// What a job does; one that sends in what another left is marked.
fn kind(job: &Value) -> String {
    match &job["resends"] {
        Value::Null => text(job, "type"),
        _ => text(job, "type") + ", again",
    }
}

/// How much was not sent in, and whether it is gone by now. That nobody could look is told too.
/// What another job left counts there.
fn unsent(job: &Value) -> String {
    if !job["resends"].is_null() {
        return NOTHING.to_owned();
    }
    let left = match (job["unsent_bytes"].as_u64(), job["delivery"].as_str()) {
        (Some(bytes), _) => size(bytes),
        (None, Some("unknown")) => "unknown".to_owned(),
        _ => return NOTHING.to_owned(),
    };
    match job["state"].as_str() {
        Some("removing" | "removed") => format!("{left}, gone"),
        _ => left,
    }
}

fn kept_until(job: &Value, now: Timestamp) -> String {
    let until = job["keep_until"].as_i64().map(Timestamp::from_millis);
    match (job["state"].as_str(), until) {
        (Some("retained"), None) => "for ever".to_owned(),
        (_, None) => NOTHING.to_owned(),
        (_, Some(until)) => {
            let left = match until.after(now) {
                left if left.is_zero() => "due".to_owned(),
                left => format!("{} left", in_words(left)),
            };
            format!("{} ({left})", time(job, "keep_until"))
        }
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_tells_what_is_unsent_and_when_it_goes() {
        let job = |id: &str, about: Value| {
            let mut job =
                json!({ "id": id, "type": "recording", "submitted_at": 0, "client": "c" });
            let fields = job.as_object_mut().unwrap();
            fields.extend(about.as_object().unwrap().clone());
            job
        };
        let jobs = [
            job(
                "days",
                json!({
                    "state": "retained", "reason": "exited", "delivery": "unsent",
                    "unsent_bytes": 73_400_320, "keep_until": 10 * 86_400_000_u64,
                    "client": "a\u{1b}[2Jb"
                }),
            ),
            job(
                "due",
                json!({ "state": "retained", "delivery": "unsent", "unsent_bytes": 512, "keep_until": 1000 }),
            ),
            job(
                "ever",
                json!({ "state": "retained", "delivery": "unknown" }),
            ),
            job(
                "sent",
                json!({ "state": "retained", "delivery": "delivered", "keep_until": 90_060_000 }),
            ),
            job(
                "lost",
                json!({ "state": "removed", "delivery": "unsent", "unsent_bytes": 1536 }),
            ),
            job("runs", json!({ "state": "running" })),
            job(
                "again",
                json!({ "state": "retained", "delivery": "unsent", "unsent_bytes": 512, "resends": "due", "keep_until": 60_000 }),
            ),
        ];
        let now = Timestamp::from_millis(60_000);
        let table = table(&jobs, now);
        let column = |title: &str, next: &str| -> Vec<String> {
            let head = table.lines().next().unwrap();
            let (from, to) = (head.find(title).unwrap(), head.find(next).unwrap());
            let cell = |line: &str| line.chars().skip(from).take(to - from).collect::<String>();
            table
                .lines()
                .skip(1)
                .map(|line| cell(line).trim().to_owned())
                .collect()
        };
        assert_eq!(
            column("UNSENT", "KEPT UNTIL"),
            [
                "70.0 MiB",
                "512 B",
                "unknown",
                "-",
                "1.5 KiB, gone",
                "-",
                "-"
            ],
            "{table}"
        );
        assert!(table.contains("again  recording, again  "), "{table}");
        assert_eq!(
            column("KEPT UNTIL", "CLIENT"),
            [
                "1970-01-11 00:00:00Z (9 days left)",
                "1970-01-01 00:00:01Z (due)",
                "for ever",
                "1970-01-02 01:01:00Z (25 hours left)",
                "-",
                "-",
                "1970-01-01 00:01:00Z (due)",
            ],
            "{table}"
        );
        assert!(
            table.ends_with("  c\n") && table.contains("a\u{fffd}[2Jb"),
            "{table}"
        );
        let shown = super::job(&jobs[0], now);
        assert!(
            shown.contains("unsent        70.0 MiB\n")
                && shown.contains("kept until    1970-01-11 00:00:00Z (9 days left)\n"),
            "{shown}"
        );
    }

    #[test]
    fn what_was_fetched_is_told_by_name_and_size() {
        assert_eq!(fetched("a.tar", 512), "a.tar: 512 B\n");
        assert_eq!(
            fetched("a\u{7}.tar", 1536),
            "a\u{fffd}.tar: 1.5 KiB (1536 bytes)\n"
        );
    }

    #[test]
    fn a_deletion_by_force_tells_what_went() {
        let id: JobId = "abcdefghijklmnopqrstuvwxyz".parse().unwrap();
        let gone = json!({ "delivery": "unsent", "unsent_bytes": 512 });
        assert!(deleted(&id, Some(&gone)).contains("with 512 B of work that was not sent in"));
        let gone = json!({ "delivery": "unknown" });
        assert!(deleted(&id, Some(&gone)).contains("nobody knows"));
        let gone = json!({ "delivery": "delivered" });
        assert!(deleted(&id, Some(&gone)).contains("its work: delivered"));
        assert_eq!(deleted(&id, None), format!("{id} is deleted\n"));
    }
}
