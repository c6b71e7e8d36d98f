//! Jobs as people read them.

use std::fmt::Write as _;

use domain::JobId;
use serde_json::Value;

/// JSON, for programs and the curious.
pub(crate) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A line a job.
pub(crate) fn table(jobs: &[Value]) -> String {
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
            text(job, "type"),
            text(job, "state"),
            text(job, "reason"),
            time(job, "submitted_at"),
            unsent(job),
            kept_until(job),
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
pub(crate) fn job(job: &Value) -> String {
    let mut shown = String::new();
    let mut line = |name: &str, value: String| {
        if value != NOTHING {
            let _ = writeln!(shown, "{name:<13} {value}");
        }
    };
    for field in [
        "id",
        "type",
        "state",
        "outcome",
        "reason",
        "exit_code",
        "delivery",
    ] {
        line(field, text(job, field));
    }
    line("unsent", unsent(job));
    line("kept until", kept_until(job));
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

/// How much was not sent in. That nobody could look is told too.
fn unsent(job: &Value) -> String {
    match (job["unsent_bytes"].as_u64(), job["delivery"].as_str()) {
        (Some(bytes), _) => size(bytes),
        (None, Some("unknown")) => "unknown".to_owned(),
        _ => NOTHING.to_owned(),
    }
}

fn kept_until(job: &Value) -> String {
    match (job["state"].as_str(), time(job, "keep_until")) {
        (Some("retained"), time) if time == NOTHING => "for ever".to_owned(),
        (_, time) => time,
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
        let jobs = [
            json!({
                "id": "a", "type": "recording", "state": "retained", "reason": "exited",
                "submitted_at": 0, "delivery": "unsent", "unsent_bytes": 73_400_320,
                "keep_until": 86_400_000, "client": "a\u{1b}[2Jb"
            }),
            json!({
                "id": "bb", "type": "transcribing", "state": "retained", "reason": "runtime-lost",
                "submitted_at": 1_000, "delivery": "unknown", "client": "c"
            }),
        ];
        assert_eq!(
            table(&jobs),
            "ID  TYPE          STATE     REASON        SUBMITTED             UNSENT    KEPT UNTIL            CLIENT\n\
             a   recording     retained  exited        1970-01-01 00:00:00Z  70.0 MiB  1970-01-02 00:00:00Z  a\u{fffd}[2Jb\n\
             bb  transcribing  retained  runtime-lost  1970-01-01 00:00:01Z  unknown   for ever              c\n"
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
