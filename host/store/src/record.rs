//! Between the domain's values and the columns of a row.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{
    Attempt, ClientId, Decision, DecisionOutcome, Delivery, End, EndReason, Hook, InputValue,
    Inputs, Job, Lifecycle, Outcome, RegistrationId, State, StopCause, Timestamp,
};
use rusqlite::types::FromSql;
use rusqlite::{Row, ToSql};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The columns that a job's row has for its state; which of them are filled depends on the state.
#[derive(Default)]
pub(crate) struct StateColumns {
    state: &'static str,
    until: Option<i64>,
    since: Option<i64>,
    deadline: Option<i64>,
    kill_at: Option<i64>,
    stop_cause: Option<&'static str>,
    forget: Option<bool>,
    ended_at: Option<i64>,
    end_reason: Option<&'static str>,
    end_code: Option<i32>,
    outcome: Option<&'static str>,
    delivery: Option<&'static str>,
    unsent_bytes: Option<i64>,
}

impl StateColumns {
    pub(crate) fn of(state: &State) -> Self {
        let mut columns = Self {
            state: state.lifecycle().as_str(),
            ..Self::default()
        };
        match *state {
            State::Waiting { until } => columns.until = Some(until.as_millis()),
            State::Running { since, deadline } => {
                columns.since = Some(since.as_millis());
                columns.deadline = Some(deadline.as_millis());
            }
            State::Stopping {
                since,
                kill_at,
                cause,
            } => {
                columns.since = Some(since.as_millis());
                columns.kill_at = Some(kill_at.as_millis());
                columns.stop_cause = Some(cause.as_str());
            }
            State::Retained { until, .. } => columns.until = until.map(Timestamp::as_millis),
            State::Removing { forget, .. } => columns.forget = Some(forget),
            State::Preparing | State::Starting | State::Ended(_) | State::Removed { .. } => {}
        }
        if let Some(end) = state.end() {
            columns.ended_at = Some(end.at.as_millis());
            (columns.end_reason, columns.end_code) = reason_columns(Some(end.reason));
            columns.outcome = Some(end.outcome.as_str());
            (columns.delivery, columns.unsent_bytes) = delivery_columns(end.delivery);
        }
        columns
    }

    /// The values in the order of the table's columns.
    pub(crate) fn values(&self) -> [&dyn ToSql; 13] {
        [
            &self.state,
            &self.until,
            &self.since,
            &self.deadline,
            &self.kill_at,
            &self.stop_cause,
            &self.forget,
            &self.ended_at,
            &self.end_reason,
            &self.end_code,
            &self.outcome,
            &self.delivery,
            &self.unsent_bytes,
        ]
    }
}

/// The code goes with `exited` alone.
pub(crate) fn reason_columns(reason: Option<EndReason>) -> (Option<&'static str>, Option<i32>) {
    let code = match reason {
        Some(EndReason::Exited(code)) => Some(code),
        _ => None,
    };
    (reason.map(EndReason::code), code)
}

fn delivery_columns(delivery: Delivery) -> (Option<&'static str>, Option<i64>) {
    match delivery {
        Delivery::NeverRan => (Some("never-ran"), None),
        Delivery::Delivered => (Some("delivered"), None),
        Delivery::Unsent { bytes } => (Some("unsent"), Some(clamp(bytes))),
        Delivery::Unknown => (Some("unknown"), None),
    }
}

/// SQLite's integers are signed.
pub(crate) fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a row's columns one after the other.
pub(crate) struct Fields<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    /// The columns of a row but for the first few.
    pub(crate) fn after(row: &'a Row<'a>, skipped: usize) -> Self {
        Self { row, next: skipped }
    }

    fn take<T: FromSql>(&mut self) -> Result<T, Failure> {
        let column = self.next;
        self.next += 1;
        self.row.get(column).map_err(|error| match error {
            error @ rusqlite::Error::SqliteFailure(..) => error.into(),
            // The row was read; what is in it is of another type.
            error => Failure::Malformed(error.to_string()),
        })
    }

    fn text<T: std::str::FromStr>(&mut self, column: &str) -> Result<T, Failure> {
        let text: String = self.take()?;
        text.parse().map_err(|_| Failure::malformed(column, text))
    }

    fn optional_text<T: std::str::FromStr>(&mut self, column: &str) -> Result<Option<T>, Failure> {
        let text: Option<String> = self.take()?;
        text.map(|text| text.parse().map_err(|_| Failure::malformed(column, text)))
            .transpose()
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self, column: &str) -> Result<T, Failure> {
        let text: String = self.take()?;
        serde_json::from_str(&text).map_err(|error| Failure::malformed(column, error.to_string()))
    }

    fn time(&mut self) -> Result<Timestamp, Failure> {
        self.take().map(Timestamp::from_millis)
    }

    fn optional_time(&mut self) -> Result<Option<Timestamp>, Failure> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_millis))
    }

    /// A job without its attempts.
    pub(crate) fn job(&mut self) -> Result<Job, Failure> {
        Ok(Job {
            id: self.text("id")?,
            owner: RegistrationId(self.take()?),
            client: ClientId::new(self.take::<String>()?)
                .ok_or_else(|| Failure::malformed("client", ""))?,
            kind: self.text("kind")?,
            image_asked: self.take()?,
            site_url_asked: self.take()?,
            site_url: self.optional_text("site_url")?,
            max_duration: Duration::from_millis(u64::try_from(self.take::<i64>()?).unwrap_or(0)),
            inputs: self
                .json::<BTreeMap<String, InputRecord>>("inputs")
                .map(from_records)?,
            submitted_at: self.time()?,
            start_by: self.time()?,
            resends: self.optional_text("resends")?,
            state: self.state()?,
            attempts: Vec::new(),
        })
    }

    fn state(&mut self) -> Result<State, Failure> {
        let name: String = self.take()?;
        let lifecycle = one_of(Lifecycle::ALL, Lifecycle::as_str, "state", &name)?;
        let until = self.optional_time()?;
        let since = self.optional_time()?;
        let deadline = self.optional_time()?;
        let kill_at = self.optional_time()?;
        let cause: Option<String> = self.take()?;
        let forget: Option<bool> = self.take()?;
        let end = self.end()?;
        let missing = || Failure::Malformed(format!("a column of a job that is {name} is empty"));
        let state = match lifecycle {
            Lifecycle::Preparing => State::Preparing,
            Lifecycle::Waiting => State::Waiting {
                until: until.ok_or_else(missing)?,
            },
            Lifecycle::Starting => State::Starting,
            Lifecycle::Running => State::Running {
                since: since.ok_or_else(missing)?,
                deadline: deadline.ok_or_else(missing)?,
            },
            Lifecycle::Stopping => State::Stopping {
                since: since.ok_or_else(missing)?,
                kill_at: kill_at.ok_or_else(missing)?,
                cause: one_of(
                    [StopCause::Deadline, StopCause::Admin],
                    StopCause::as_str,
                    "stop_cause",
                    &cause.ok_or_else(missing)?,
                )?,
            },
            Lifecycle::Ended => State::Ended(end.ok_or_else(missing)?),
            Lifecycle::Retained => State::Retained {
                end: end.ok_or_else(missing)?,
                until,
            },
            Lifecycle::Removing => State::Removing {
                end: end.ok_or_else(missing)?,
                forget: forget.ok_or_else(missing)?,
            },
            Lifecycle::Removed => State::Removed {
                end: end.ok_or_else(missing)?,
            },
        };
        Ok(state)
    }

    fn end(&mut self) -> Result<Option<End>, Failure> {
        let at = self.optional_time()?;
        let reason = self.reason()?;
        let outcome: Option<String> = self.take()?;
        let delivery: Option<String> = self.take()?;
        let bytes: Option<i64> = self.take()?;
        let (Some(at), Some(reason), Some(outcome), Some(delivery)) =
            (at, reason, outcome, delivery)
        else {
            return Ok(None);
        };
        let outcome = one_of(
            [Outcome::Succeeded, Outcome::Failed],
            Outcome::as_str,
            "outcome",
            &outcome,
        )?;
        let delivery = match (delivery.as_str(), bytes) {
            ("never-ran", _) => Delivery::NeverRan,
            ("delivered", _) => Delivery::Delivered,
            ("unsent", Some(bytes)) => Delivery::Unsent {
                bytes: u64::try_from(bytes).unwrap_or(0),
            },
            ("unknown", _) => Delivery::Unknown,
            _ => return Err(Failure::malformed("delivery", delivery)),
        };
        Ok(Some(End {
            at,
            reason,
            outcome,
            delivery,
        }))
    }

    fn reason(&mut self) -> Result<Option<EndReason>, Failure> {
        let name: Option<String> = self.take()?;
        let code: Option<i32> = self.take()?;
        name.map(|name| {
            EndReason::from_code(&name, code).map_err(|_| Failure::malformed("end_reason", name))
        })
        .transpose()
    }

    pub(crate) fn attempt(&mut self) -> Result<Attempt, Failure> {
        Ok(Attempt {
            number: self.take()?,
            image: self.text("image")?,
            image_id: self.optional_text("image_id")?,
            started_at: self.time()?,
            running_at: self.optional_time()?,
            ended_at: self.optional_time()?,
            reason: self.reason()?,
        })
    }

    pub(crate) fn decision(&mut self) -> Result<Decision, Failure> {
        Ok(Decision {
            at: self.time()?,
            hook: one_of(Hook::ALL, Hook::as_str, "hook", &self.take::<String>()?)?,
            attempt: self.take()?,
            policy: self.take()?,
            component_sha256: self.take()?,
            settings_sha256: self.take()?,
            read: self.json("read")?,
            outcome: one_of(
                DecisionOutcome::ALL,
                DecisionOutcome::as_str,
                "outcome",
                &self.take::<String>()?,
            )?,
            enforced: self.take()?,
            verdict: self.take()?,
            value: self.take()?,
            reason: self.take()?,
            micros: u64::try_from(self.take::<i64>()?).unwrap_or(0),
        })
    }
}

fn one_of<T: Copy>(
    all: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> &'static str,
    column: &str,
    text: &str,
) -> Result<T, Failure> {
    all.into_iter()
        .find(|value| name(*value) == text)
        .ok_or_else(|| Failure::malformed(column, text))
}

/// How an input is written down.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputRecord {
    Text(String),
    Json(String),
}

/// Inputs as one JSON object.
pub(crate) fn inputs_column(inputs: &Inputs) -> Result<String, Failure> {
    let records: BTreeMap<&str, InputRecord> = inputs
        .iter()
        .map(|(name, value)| match value {
            InputValue::Text(text) => (name.as_str(), InputRecord::Text(text.clone())),
            InputValue::Json(json) => (name.as_str(), InputRecord::Json(json.clone())),
        })
        .collect();
    serde_json::to_string(&records).map_err(|error| Failure::malformed("inputs", error.to_string()))
}

fn from_records(records: BTreeMap<String, InputRecord>) -> Inputs {
    records
        .into_iter()
        .map(|(name, record)| match record {
            InputRecord::Text(text) => (name, InputValue::Text(text)),
            InputRecord::Json(json) => (name, InputValue::Json(json)),
        })
        .collect()
}
