//! Warning before work is removed that was not sent in.

use std::time::Duration;

use domain::{Delivery, Job, JobId, State, Timestamp};
use tracing::warn;

use crate::job_loop::JobLoop;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = HOUR.saturating_mul(24);
/// What is left when it is warned about a long keeping.
const LEFT: [Duration; 3] = [DAY.saturating_mul(7), DAY.saturating_mul(3), DAY];
/// A keeping that is shorter is warned about once, when half of it is over.
const SHORT: Duration = DAY.saturating_mul(2);

impl JobLoop {
    /// Warns of the removal of what is kept, if that is due. That the work is kept was told when the
    /// job ended; a warning that fell due while the service was away is given at once.
    pub(super) fn warn_if_due(&mut self, now: Timestamp) {
        let State::Retained {
            end,
            until: Some(until),
        } = self.job.state
        else {
            return;
        };
        let due = warning_due(&self.job, self.warned_at);
        if due.is_some_and(|due| due <= now) && now < until {
            warn_of_removal(&self.job.id, end.delivery, until, now);
            self.warned_at = Some(now);
        }
    }
}

fn warn_of_removal(id: &JobId, delivery: Delivery, until: Timestamp, now: Timestamp) {
    let left = in_words(until.after(now));
    let unsent_bytes = match delivery {
        Delivery::Unsent { bytes } => Some(bytes),
        _ => None,
    };
    warn!(
        unsent_bytes,
        removed_at_unix_ms = until.as_millis(),
        "what the job did not send in is removed in {left}; `offloader jobs fetch {id}` saves it, \
         `offloader jobs resend {id}` sends it in where its image can"
    );
}

/// When to warn next of the removal of what a job keeps, if it was warned of last at `warned_at`.
pub(crate) fn warning_due(job: &Job, warned_at: Option<Timestamp>) -> Option<Timestamp> {
    match job.state {
        State::Retained {
            end,
            until: Some(until),
        } if job.keeps_unsent() => next_warning(end.at, until, warned_at.unwrap_or(end.at)),
        _ => None,
    }
}

/// When to warn of the removal of what is kept from `since` until `until`, the last warning having
/// been at `last`: when seven days, three days and one day are left, and of a keeping of less than
/// two days when half of it is. `None` when no warning follows.
fn next_warning(since: Timestamp, until: Timestamp, last: Timestamp) -> Option<Timestamp> {
    let whole = until.after(since);
    let half = [whole / 2];
    let left: &[Duration] = if whole < SHORT { &half } else { &LEFT };
    left.iter()
        .filter(|left| **left < whole)
        .map(|left| until.minus(*left))
        .find(|at| *at > last)
}

/// A time that is left, in the unit that people would use: rounded down, but to the next minute
/// where half of one is missing.
#[must_use]
pub fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let minutes = (seconds + 30) / 60;
    let units = [(24 * 60, "days"), (60, "hours"), (1, "minutes")];
    match units.into_iter().find(|(unit, _)| minutes >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", minutes / unit),
        None => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex, PoisonError};

    use domain::Lifecycle;
    use tokio::time::sleep;

    use super::*;
    use crate::scripted::{Script, Stage, recording};

    const MINUTE: Duration = Duration::from_secs(60);

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn warnings(&self) -> Vec<String> {
            let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let log = String::from_utf8_lossy(&log);
            let warnings = log.lines().filter(|line| line.contains("is removed in"));
            warnings.map(str::to_owned).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_the_log_knows_in_time_what_goes_and_how_to_save_it() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        // What fails is kept for an hour.
        let mut stage = Stage::default();
        stage.runner.world().script = Script {
            runs_for: Some(MINUTE),
            exit_code: 1,
            media_left: 7,
            ..Script::default()
        };
        let engine = stage.engine().await;
        let job = engine.submit(recording('a')).await.unwrap();
        let id = &job.job.id;
        sleep(MINUTE * 30).await;
        assert_eq!(log.warnings(), [""; 0]);
        // Another test that came here first, at the same time, may have left word that nobody minds.
        tracing::callsite::rebuild_interest_cache();
        sleep(MINUTE * 2).await;
        let warnings = log.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for words in [
            "unsent_bytes=17",
            "30 minutes",
            &format!("offloader jobs fetch {id}`"),
            &format!("offloader jobs resend {id}`"),
        ] {
            assert!(warnings[0].contains(words), "{words}: {warnings:?}");
        }
        sleep(MINUTE * 5).await;
        engine.shared.wake(id).await.unwrap();
        sleep(MINUTE * 5).await;
        engine.shutdown().await;
        assert_eq!(log.warnings().len(), 1);
        let engine = stage.engine().await;
        sleep(MINUTE).await;
        let warnings = log.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].contains("19 minutes"), "{warnings:?}");
        sleep(MINUTE * 20).await;
        let removed = engine.job(id).await.unwrap().unwrap();
        assert_eq!(removed.job.state.lifecycle(), Lifecycle::Removed);
        assert_eq!(log.warnings().len(), 2);
    }

    fn at(hours: u32) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(HOUR * hours)
    }

    #[test]
    fn warnings_come_in_time_and_not_too_often() {
        for (kept_hours, expected) in [
            (30 * 24, &[23 * 24, 27 * 24, 29 * 24][..]),
            (7 * 24 + 1, &[1, 4 * 24 + 1, 6 * 24 + 1]),
            // The end was told just now.
            (7 * 24, &[4 * 24, 6 * 24]),
            (2 * 24, &[24]),
            (47, &[23]),
            (8, &[4]),
            (0, &[]),
        ] {
            let (since, until) = (at(0), at(kept_hours));
            let mut warnings = Vec::new();
            let mut last = since;
            while let Some(next) = next_warning(since, until, last) {
                assert!(last < next && next < until);
                warnings.push(u32::try_from(next.after(since).as_secs() / 3600).unwrap());
                last = next;
            }
            assert_eq!(warnings, expected, "kept for {kept_hours} h");
        }
    }

    #[test]
    fn after_an_absence_one_warning_stands_for_all_that_fell_due() {
        let (since, until) = (at(0), at(30 * 24));
        let due = next_warning(since, until, since).unwrap();
        let now = at(28 * 24);
        assert!(due < now);
        assert_eq!(next_warning(since, until, now), Some(at(29 * 24)));
        assert_eq!(next_warning(since, until, at(29 * 24 + 1)), None);
    }

    #[test]
    fn times_are_told_in_units_of_their_size() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (89, "89 seconds"),
            (90, "2 minutes"),
            (7169, "119 minutes"),
            (7170, "2 hours"),
            (172_769, "47 hours"),
            (172_770, "2 days"),
            (604_799, "7 days"),
            (604_700, "6 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
