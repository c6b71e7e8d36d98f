//! The job that a case is about: what the file says of it, over what most jobs are like.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{
    Attempt, Delivery, EndReason, Hook, ImageRef, JobFacts, JobKind, LAST_START, Purpose, Timestamp,
};
use toml::de::DeValue;

use super::cases::one_of;
use crate::config::values::{duration, number, number32, text};
use crate::config::{Raw, Section, UnknownKeys};

const IMAGE: &str = "mattermost/calls-recorder:v0.8.13";
const SITE_URL: &str = "https://mattermost.example.com";
/// 2026-01-01T12:00:00Z
const SUBMITTED_AT: Timestamp = Timestamp::from_millis(1_767_268_800_000);
/// Which is the default of `jobs.start_timeout`.
const START_WITHIN: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What files say of a job. `None` is for what they do not.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    id: Option<String>,
    client: Option<String>,
    kind: Option<JobKind>,
    image: Option<String>,
    image_chosen: Option<String>,
    site_url: Option<String>,
    site_url_chosen: Option<String>,
    max_duration: Option<Duration>,
    submitted_at: Option<Timestamp>,
    asked_after: Option<Duration>,
    time_left_to_start: Option<Duration>,
    delivery: Option<&'static str>,
    bytes_left: Option<u64>,
    attempts: Option<Vec<AttemptDraft>>,
    inputs: BTreeMap<String, String>,
}

/// What files say of an attempt. Times count from the submission.
#[derive(Debug, Clone)]
struct AttemptDraft {
    image: Option<ImageRef>,
    failure: Option<&'static str>,
    exit_code: Option<i32>,
    started_after: Duration,
    ran_after: Option<Duration>,
    ended_after: Option<Duration>,
}

impl Draft {
    /// What a table says, over this.
    pub(super) fn over(mut self, table: Section<'_>) -> Self {
        self.id = table.get("id", text).or(self.id);
        self.client = table.get("client", text).or(self.client);
        self.kind = table.get("kind", a_kind).or(self.kind);
        self.image = table.get("image", text).or(self.image);
        self.image_chosen = table.get("image_chosen", text).or(self.image_chosen);
        self.site_url = table.get("site_url", text).or(self.site_url);
        self.site_url_chosen = table.get("site_url_chosen", text).or(self.site_url_chosen);
        self.max_duration = table.get("max_duration", duration).or(self.max_duration);
        self.submitted_at = table.get("submitted_at", a_time).or(self.submitted_at);
        self.asked_after = table.get("asked_after", duration).or(self.asked_after);
        let left = table.get("time_left_to_start", duration);
        self.time_left_to_start = left.or(self.time_left_to_start);
        self.delivery = table.get("delivery", a_delivery).or(self.delivery);
        self.bytes_left = table.get("bytes_left", number(0)).or(self.bytes_left);
        let attempts = table.sections("attempts");
        if table.has("attempts") {
            self.attempts = Some(attempts.into_iter().map(AttemptDraft::read).collect());
        }
        let inputs = table.section("inputs", UnknownKeys::Refuse);
        self.inputs.extend(texts_by_name(&inputs));
        table.finish();
        self
    }

    /// The job when it is asked about at this hook.
    ///
    /// # Errors
    /// What keeps it from being a job.
    pub(super) fn finish(self, hook: Hook, purpose: Purpose) -> Result<JobFacts, &'static str> {
        let submitted_at = self.submitted_at.unwrap_or(SUBMITTED_AT);
        let usual = if hook == Hook::Retention {
            HOUR
        } else {
            SECOND
        };
        let now = submitted_at.plus(self.asked_after.unwrap_or(usual));
        let start_by = match self.time_left_to_start {
            Some(left) => now.plus(left).plus(LAST_START),
            None => submitted_at.plus(START_WITHIN),
        };
        let image = self.image.unwrap_or_else(|| IMAGE.to_owned());
        let site_url = self.site_url.unwrap_or_else(|| SITE_URL.to_owned());
        let attempts = self.attempts.unwrap_or_else(|| AttemptDraft::usual(hook));
        let attempts: Vec<_> = (1..)
            .zip(attempts)
            .map(|(number, attempt)| attempt.finish(number, &image, submitted_at, now))
            .collect::<Result<_, _>>()?;
        let mut facts = JobFacts {
            id: self.id.unwrap_or_else(|| "case".repeat(6) + "00"),
            client: self.client.unwrap_or_else(|| "site".to_owned()),
            kind: self.kind.unwrap_or(JobKind::Recording),
            image_chosen: self.image_chosen.unwrap_or_else(|| image.clone()),
            image_asked: image,
            site_url_chosen: self.site_url_chosen.unwrap_or_else(|| site_url.clone()),
            site_url_asked: site_url,
            max_duration: self.max_duration.unwrap_or(2 * HOUR),
            submitted_at,
            now,
            start_by,
            attempts,
            delivery: None,
            inputs: self.inputs,
        };
        let usual = match hook {
            Hook::Retention if facts.ever_ran() => "delivered",
            Hook::Retention => "never-ran",
            _ => "undecided",
        };
        facts.delivery = delivery(self.delivery.unwrap_or(usual), self.bytes_left)?;
        if purpose == Purpose::Prefetch {
            // There is no job yet.
            facts.id.clear();
            facts.site_url_asked.clear();
            facts.site_url_chosen.clear();
            facts.attempts.clear();
            facts.max_duration = Duration::ZERO;
            facts.start_by = now;
        }
        Ok(facts)
    }
}

impl AttemptDraft {
    fn read(table: Section<'_>) -> Self {
        let image = table.get("image", |raw| {
            let wanted = |_| "expected an image such as REGISTRY/NAME:TAG".to_owned();
            text(raw)?.parse().map_err(wanted)
        });
        let attempt = Self {
            image,
            failure: table.get("failure", a_failure),
            exit_code: table.get("exit_code", number32(0)).map(|code| code as i32),
            started_after: table.get("started_after", duration).unwrap_or_default(),
            ran_after: table.get("ran_after", duration),
            ended_after: table.get("ended_after", duration),
        };
        table.finish();
        attempt
    }

    /// The attempts of a job that files say nothing about.
    fn usual(hook: Hook) -> Vec<Self> {
        let attempt = Self {
            image: None,
            failure: None,
            exit_code: None,
            started_after: Duration::ZERO,
            ran_after: None,
            ended_after: None,
        };
        match hook {
            Hook::ImageSelection | Hook::SiteUrl => Vec::new(),
            Hook::Retry => vec![Self {
                failure: Some("start-failed"),
                ..attempt
            }],
            Hook::Retention => vec![Self {
                exit_code: Some(0),
                ran_after: Some(SECOND),
                ..attempt
            }],
        }
    }

    fn finish(
        self,
        number: u32,
        image: &str,
        submitted_at: Timestamp,
        now: Timestamp,
    ) -> Result<Attempt, &'static str> {
        let image = match self.image {
            Some(image) => image,
            None => image
                .parse()
                .map_err(|_| "attempts need an image such as REGISTRY/NAME:TAG")?,
        };
        let reason = match (self.failure, self.exit_code) {
            (None, None) => None,
            (None, Some(0)) => Some(EndReason::Completed),
            (None | Some("exited"), code) => Some(EndReason::Exited(code.unwrap_or(1))),
            (Some(failure), _) => EndReason::from_code(failure, None).ok(),
        };
        let mut attempt = Attempt::new(number, image, submitted_at.plus(self.started_after));
        attempt.running_at = self.ran_after.map(|after| submitted_at.plus(after));
        attempt.ended_at = match self.ended_after {
            Some(after) => Some(submitted_at.plus(after)),
            None => reason.map(|_| now),
        };
        attempt.reason = reason;
        Ok(attempt)
    }
}

/// A table of texts whose keys are free.
pub(super) fn texts_by_name(table: &Section<'_>) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for (name, place, value) in table.entries() {
        match text(Raw::Toml(value)) {
            Ok(text) => {
                texts.insert(name.to_owned(), text);
            }
            Err(message) => table.reader().problem(place, &table.key(name), message),
        }
    }
    texts
}

fn delivery(name: &str, bytes_left: Option<u64>) -> Result<Option<Delivery>, &'static str> {
    let delivery = match name {
        "unsent" => Some(Delivery::Unsent {
            bytes: bytes_left.unwrap_or(1_000_000),
        }),
        _ if bytes_left.is_some() => return Err("bytes are left of unsent work only"),
        "never-ran" => Some(Delivery::NeverRan),
        "delivered" => Some(Delivery::Delivered),
        "unknown" => Some(Delivery::Unknown),
        _ => None,
    };
    Ok(delivery)
}

fn a_delivery(raw: Raw<'_>) -> Result<&'static str, String> {
    const WORDS: [&str; 5] = ["undecided", "never-ran", "delivered", "unsent", "unknown"];
    one_of(raw, &WORDS)
}

fn a_kind(raw: Raw<'_>) -> Result<JobKind, String> {
    let name = one_of(raw, &JobKind::ALL.map(JobKind::as_str))?;
    name.parse().map_err(|_| name.to_owned())
}

fn a_failure(raw: Raw<'_>) -> Result<&'static str, String> {
    let mut words: Vec<_> = EndReason::WITHOUT_CODE
        .into_iter()
        .map(EndReason::code)
        .collect();
    words.retain(|word| *word != EndReason::Completed.code());
    words.push(EndReason::Exited(1).code());
    one_of(raw, &words)
}

/// A date with a time and an offset, in TOML's own form or as text.
fn a_time(raw: Raw<'_>) -> Result<Timestamp, String> {
    let found = match raw {
        Raw::Toml(DeValue::Datetime(time)) => time.to_string(),
        other => text(other).unwrap_or_default(),
    };
    let time: jiff::Timestamp = found
        .parse()
        .map_err(|_| "expected a time such as 2026-01-01T12:00:00Z".to_owned())?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}
