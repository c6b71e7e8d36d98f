//! Jobs without a task.
//!
//! What jobs left may be kept for weeks, of tens of thousands of them, and a task takes kilobytes. So
//! a job that is kept sleeps: it has no task, and is taken up from the store when there is something
//! to do, by the clock or for somebody who asks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use domain::{Job, JobId, Timestamp};
use futures_util::FutureExt as _;
use tracing::error;

use crate::engine::Shared;
use crate::job_loop::{JobLoop, sleep_until};
use crate::life::alarm;
use crate::live::{Found, Live};
use crate::measure::{self, Counted};
use crate::{StoreError, supervise};

/// What stays in memory of a job that sleeps.
pub(crate) struct Asleep {
    /// When there is something to do that nobody asks for; `None` is never.
    pub(crate) alarm: Option<Timestamp>,
    /// When it was warned last of the end of its keeping, if it was.
    pub(crate) warned_at: Option<Timestamp>,
    pub(crate) counted: Counted,
}

impl Shared {
    /// Lets a job sleep that was found in the store and is kept until then.
    pub(crate) fn let_sleep(&self, job: &Job, until: Option<Timestamp>) {
        let asleep = Asleep {
            alarm: alarm(job, until, None),
            warned_at: None,
            counted: Counted::new(job, &self.removals),
        };
        self.live.insert_asleep(job, asleep);
    }

    /// A job with a task, which it gets if it sleeps; `None` when it has none and does not sleep, or
    /// the service ends.
    pub(crate) async fn wake(
        self: &Arc<Self>,
        id: &JobId,
    ) -> Result<Option<Arc<Live>>, StoreError> {
        if let Some(live) = self.live.get(id) {
            return Ok(Some(live));
        }
        // Whoever waits for the service to end waits for a task that is begun here too.
        let _until_begun = self.tasks.token();
        let _waking = self.waking.lock().await;
        match self.live.find(id) {
            Found::Awake(live) => return Ok(Some(live)),
            Found::Asleep if !self.ending.is_cancelled() => {}
            Found::Asleep | Found::Nothing => return Ok(None),
        }
        let Some(view) = self.read(id).await? else {
            // Somebody else has removed its record.
            self.live.remove(id);
            return Ok(None);
        };
        let woken = JobLoop::recovered(self, view);
        let live = self.live.get(id);
        woken.spawn();
        Ok(live)
    }
}

/// Wakes jobs when there is something to do that nobody asks for.
pub(crate) async fn wake_by_the_clock(shared: Arc<Shared>) {
    /// The pause before a job is woken again that could not be: grows from the first to the second,
    /// as long as none can.
    const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5 * 60));
    let mut pause = PAUSE.0;
    loop {
        let first = shared.live.first_alarm();
        let at = first.as_ref().map(|(at, _)| *at);
        tokio::select! {
            biased;
            () = shared.ending.cancelled() => return,
            () = sleep_until(&shared, at) => {}
            () = shared.live.alarm_changed() => continue,
        }
        let Some((at, id)) = first else { continue };
        if shared.now() < at {
            // Timers may wake a little early.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        // Nobody else would wake the others.
        let error = match AssertUnwindSafe(shared.wake(&id)).catch_unwind().await {
            Ok(Ok(_)) => {
                pause = PAUSE.0;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => {
                measure::task_panicked();
                format!("a panic: {}", supervise::message(&*panic))
            }
        };
        error!(
            error, job = %id, pause_ms = pause.as_millis(),
            "something is to be done about the job, and it cannot be read; trying again after a pause"
        );
        shared.live.snooze(&id, shared.now().plus(pause));
        pause = (pause * 2).min(PAUSE.1);
    }
}

#[cfg(test)]
#[path = "sleep_tests.rs"]
mod tests;
