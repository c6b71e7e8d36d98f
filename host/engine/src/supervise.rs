//! Looks after the tasks of jobs: one that panics leaves a job that somebody has to go on with.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use domain::State;
use futures_util::FutureExt as _;
use tracing::error;

use crate::engine::Shared;
use crate::job_loop::JobLoop;
use crate::measure;

/// The pause before a job is taken up again: grows from the first to the second, so that a job
/// whose duty panics each time costs little.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));

/// Lets a job's task run to its end. When it panics the job is taken up again as it was saved, as
/// after a restart; but those who wait for its start are told what becomes of it.
pub(crate) async fn supervise(mut job_loop: JobLoop) {
    let mut pause = PAUSE.0;
    loop {
        let (shared, id) = (Arc::clone(&job_loop.shared), job_loop.job.id.clone());
        let answer = Arc::clone(&job_loop.answer);
        let Err(panic) = AssertUnwindSafe(job_loop.run()).catch_unwind().await else {
            return;
        };
        error!(
            panic = message(&*panic),
            pause_ms = pause.as_millis(),
            "the job's task panicked; the job is taken up again after a pause, as it was saved"
        );
        measure::task_panicked();
        let view = loop {
            if !paused(&shared, pause).await {
                return;
            }
            pause = (pause * 2).min(PAUSE.1);
            match shared.view(&id).await {
                // Its record was removed already: nothing is left to be done.
                Ok(None) => return shared.live.remove(&id),
                Ok(Some(view)) => break view,
                Err(error) => error!(%error, "the job cannot be read; trying again"),
            }
        };
        job_loop = JobLoop::taken_up_again(&shared, Arc::clone(&view), answer);
        if view.job.ever_ran() && !matches!(view.job.state, State::Starting) {
            job_loop.answer.tell(Ok(view));
        }
    }
}

/// False when the service ends meanwhile.
async fn paused(shared: &Shared, pause: Duration) -> bool {
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause) => true,
        () = shared.ending.cancelled() => false,
    }
}

/// What a panic says of itself.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
