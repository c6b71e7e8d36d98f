//! What is counted of jobs, for whatever recorder the program has installed before it starts the
//! engine.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Delivery, Job, JobKind, Lifecycle, State, Timestamp};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{RunnerError, Slots};

const JOBS: &str = "offloader_jobs";
const ENDED: &str = "offloader_jobs_ended_total";
const DURATION: &str = "offloader_job_duration_seconds";
const TIME_TO_RUNNING: &str = "offloader_job_time_to_running_seconds";
const SLOTS: &str = "offloader_job_slots";
const SLOTS_USED: &str = "offloader_job_slots_used";
const ERRORS: &str = "offloader_engine_errors_total";
const RECOVERIES: &str = "offloader_recoveries_total";
const PANICS: &str = "offloader_job_panics_total";
const STRAYS: &str = "offloader_strays";
const STRAYS_REMOVED: &str = "offloader_strays_removed_total";
const UNSENT: &str = "offloader_unsent_bytes";
const NEXT_REMOVAL: &str = "offloader_unsent_next_removal_timestamp_seconds";

/// Says what each metric is, and how many slots there are.
pub(crate) fn describe(slots: &Slots) {
    describe_gauge!(JOBS, "Jobs that are not removed, by state");
    describe_counter!(ENDED, "Jobs that ended, by why and with what outcome");
    describe_histogram!(DURATION, Unit::Seconds, "How long containers of jobs ran");
    describe_histogram!(
        TIME_TO_RUNNING,
        Unit::Seconds,
        "Time from a submission until its container ran"
    );
    describe_gauge!(SLOTS, "Jobs that may be active at once");
    describe_gauge!(SLOTS_USED, "Jobs that are active");
    describe_counter!(ERRORS, "Errors of the container engine, by operation");
    describe_counter!(RECOVERIES, "Jobs that were taken up after a restart");
    describe_counter!(
        PANICS,
        "Faults of the service at which a job was taken up again"
    );
    describe_gauge!(
        STRAYS,
        "Containers and volumes that no job looks after, at the last look"
    );
    describe_counter!(STRAYS_REMOVED, "Containers removed whose jobs were over");
    describe_gauge!(
        UNSENT,
        Unit::Bytes,
        "Work that was not delivered and is kept"
    );
    describe_gauge!(
        NEXT_REMOVAL,
        Unit::Seconds,
        "Unix time at which work that was not delivered will be removed next; 0 if none will"
    );
    if let Some(total) = slots.total {
        gauge!(SLOTS).set(total);
    }
    // Said from the start, so that a rise can be seen.
    gauge!(SLOTS_USED).increment(0.0);
    gauge!(UNSENT).increment(0.0);
    gauge!(NEXT_REMOVAL).set(0.0);
    counter!(RECOVERIES).increment(0);
    counter!(PANICS).increment(0);
    gauge!(STRAYS).set(0);
    counter!(STRAYS_REMOVED).increment(0);
}

/// When work will be removed that was not, or may not have been, delivered, and of how many jobs.
#[derive(Default)]
pub(crate) struct Removals(Mutex<BTreeMap<Timestamp, u32>>);

impl Removals {
    fn add(&self, at: Timestamp) {
        let mut removals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *removals.entry(at).or_default() += 1;
        Self::show(&removals);
    }

    fn take_away(&self, at: Timestamp) {
        let mut removals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut jobs) = removals.entry(at) {
            *jobs.get_mut() -= 1;
            if *jobs.get() == 0 {
                jobs.remove();
            }
        }
        Self::show(&removals);
    }

    fn show(removals: &BTreeMap<Timestamp, u32>) {
        let next = removals
            .first_key_value()
            .map_or(0, |(at, _)| at.as_millis());
        #[expect(clippy::cast_precision_loss, reason = "that far away nobody minds")]
        gauge!(NEXT_REMOVAL).set(next as f64 / 1000.0);
    }
}

/// A job that counts, as long as this lives.
pub(crate) struct Counted {
    shown: Shown,
    removals: Arc<Removals>,
}

/// What counts of a job.
struct Shown {
    kind: JobKind,
    state: Lifecycle,
    unsent_bytes: u64,
    removal: Option<Timestamp>,
}

impl Shown {
    fn of(job: &Job) -> Self {
        let unsent_bytes = match (job.state.end().map(|end| end.delivery), &job.resends) {
            // What a job could not send in again either counts where it is kept.
            (Some(Delivery::Unsent { bytes }), None) => bytes,
            _ => 0,
        };
        Self {
            kind: job.kind,
            state: job.state.lifecycle(),
            unsent_bytes,
            removal: match job.state {
                State::Retained { until, .. } if job.keeps_unsent() => until,
                _ => None,
            },
        }
    }

    fn add(&self, sign: f64) {
        let (kind, state) = (self.kind.as_str(), self.state.as_str());
        gauge!(JOBS, "type" => kind, "state" => state).increment(sign);
        if self.state.holds_slot() {
            gauge!(SLOTS_USED).increment(sign);
        }
        if self.unsent_bytes > 0 {
            #[expect(clippy::cast_precision_loss, reason = "nobody minds the last bytes")]
            gauge!(UNSENT).increment(sign * self.unsent_bytes as f64);
        }
    }
}

impl Counted {
    pub(crate) fn new(job: &Job, removals: &Arc<Removals>) -> Self {
        let counted = Self {
            shown: Shown::of(job),
            removals: Arc::clone(removals),
        };
        counted.add();
        counted
    }

    fn add(&self) {
        self.shown.add(1.0);
        if let Some(at) = self.shown.removal {
            self.removals.add(at);
        }
    }

    fn take_away(&self) {
        self.shown.add(-1.0);
        if let Some(at) = self.shown.removal {
            self.removals.take_away(at);
        }
    }

    /// The job came from `before` to `after`, which was saved at `now`.
    pub(crate) fn follow(&mut self, before: &Job, after: &Job, now: Timestamp) {
        self.take_away();
        self.shown = Shown::of(after);
        self.add();
        let kind = after.kind.as_str();
        if let (None, Some(end)) = (before.state.end(), after.state.end()) {
            let (reason, outcome) = (end.reason.code(), end.outcome.as_str());
            counter!(ENDED, "type" => kind, "reason" => reason, "outcome" => outcome).increment(1);
        }
        let (was, is) = (before.attempt(), after.attempt());
        if let (None, Some(ended), Some(ran)) = (was.ended_at, is.ended_at, is.running_at) {
            seconds(DURATION, kind, ended.after(ran));
        }
        if after.ever_ran() && !before.ever_ran() {
            seconds(TIME_TO_RUNNING, kind, now.after(after.submitted_at));
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.take_away();
    }
}

fn seconds(name: &'static str, kind: &'static str, time: Duration) {
    histogram!(name, "type" => kind).record(time);
}

/// The container engine failed at something.
pub(crate) fn engine_error(error: &RunnerError) {
    counter!(ERRORS, "operation" => error.operation).increment(1);
}

/// A job was taken up after a restart.
pub(crate) fn recovery() {
    counter!(RECOVERIES).increment(1);
}

/// The task of a job panicked.
pub(crate) fn task_panicked() {
    counter!(PANICS).increment(1);
}

/// A container was removed whose job is over.
pub(crate) fn stray_removed() {
    counter!(STRAYS_REMOVED).increment(1);
}

/// So many containers and volumes were seen that no job looks after.
pub(crate) fn strays(seen: usize) {
    gauge!(STRAYS).set(u32::try_from(seen).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use domain::{
        Attempt, ClientId, EndReason, Exit, Fact, JobId, Keep, RegistrationId, State, step,
    };
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
    }

    fn job() -> Job {
        Job {
            id: JobId::from_random([1; JobId::LEN]),
            owner: RegistrationId(1),
            client: ClientId::new("site").unwrap(),
            kind: JobKind::Recording,
            image_asked: String::new(),
            site_url_asked: String::new(),
            site_url: None,
            max_duration: Duration::from_secs(60),
            inputs: Default::default(),
            submitted_at: at(0),
            start_by: at(100),
            resends: None,
            attempts: vec![Attempt::new(
                1,
                "m/calls-recorder:v1.0.0".parse().unwrap(),
                at(0),
            )],
            state: State::Preparing,
        }
    }

    #[test]
    fn a_life_counts_once_and_what_is_kept_unsent_shows() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = |line: &str| {
            let text = recorder.handle().render();
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        };
        metrics::with_local_recorder(&recorder, || {
            describe(&Slots::of(3));
            let mut job = job();
            let removals = Arc::default();
            let mut counted = Counted::new(&job, &removals);
            shown("offloader_job_slots 3");
            shown("offloader_job_slots_used 1");
            let image_id = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
            let exit = Exit {
                code: 1,
                out_of_memory: false,
                started_at: at(4),
                ended_at: at(24),
            };
            for (seconds, fact) in [
                (1, Fact::Prepared { image_id }),
                (4, Fact::Launched { at: at(4) }),
                (
                    24,
                    Fact::Exited {
                        exit,
                        delivery: Delivery::Unsent { bytes: 7 },
                        retry: None,
                    },
                ),
                (
                    24,
                    Fact::Settled {
                        keep: Keep::Until(at(100)),
                    },
                ),
            ] {
                let next = step(&job, &fact, at(seconds)).unwrap();
                counted.follow(&job, &next, at(seconds));
                job = next;
            }
            assert_eq!(job.state.end().unwrap().reason, EndReason::Exited(1));
            shown("offloader_jobs{type=\"recording\",state=\"retained\"} 1");
            shown("offloader_jobs{type=\"recording\",state=\"running\"} 0");
            shown("offloader_job_slots_used 0");
            shown("offloader_unsent_bytes 7");
            shown("offloader_unsent_next_removal_timestamp_seconds 100");
            let mut sooner = job.clone();
            sooner.id = JobId::from_random([2; JobId::LEN]);
            if let State::Retained { until, .. } = &mut sooner.state {
                *until = Some(at(90).plus(Duration::from_millis(500)));
            }
            let sooner = Counted::new(&sooner, &removals);
            shown("offloader_unsent_next_removal_timestamp_seconds 90.5");
            drop(sooner);
            shown("offloader_unsent_next_removal_timestamp_seconds 100");
            shown(
                "offloader_jobs_ended_total{type=\"recording\",reason=\"exited\",outcome=\"failed\"} 1",
            );
            shown("offloader_job_duration_seconds_sum{type=\"recording\"} 20");
            shown("offloader_job_time_to_running_seconds_sum{type=\"recording\"} 4");
            drop(counted);
            shown("offloader_unsent_bytes 0");
            shown("offloader_unsent_next_removal_timestamp_seconds 0");
            shown("offloader_jobs{type=\"recording\",state=\"retained\"} 0");
        });
    }
}
