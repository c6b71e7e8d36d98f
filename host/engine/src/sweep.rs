//! Looks now and then whether the container engine holds something of this installation that
//! no job's task looks after.

use std::sync::Arc;
use std::time::Duration;

use domain::State;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::engine::Shared;
use crate::{measure, orphan};

/// The pause between two looks.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// The pause while the container engine does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Removes what a late answer of the engine left of jobs of which nothing should be left, and
/// takes up jobs that the store does not know. The first look is at the start: what the store
/// lost is to be looked after from then on; `looked` hears when that is over.
pub(crate) async fn sweep_now_and_then(shared: Arc<Shared>, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    loop {
        let pause = if sweep(&shared).await { EVERY } else { AGAIN };
        // Whoever waited may have stopped waiting.
        let _ = looked.take().map(|looked| looked.send(()));
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = shared.ending.cancelled() => return,
        }
    }
}

/// False when the container engine did not answer.
async fn sweep(shared: &Arc<Shared>) -> bool {
    // Errors are no news here: the watch over the engine tells of them.
    let Ok(mut names) = shared.ports.runner.list().await else {
        return false;
    };
    names.sort_unstable();
    for containers in names.chunk_by(|a, b| a.job() == b.job()) {
        let job = containers[0].job();
        if shared.live.get(job).is_some() {
            continue;
        }
        match shared.ports.store.job(job).await {
            Ok(Some(job)) if matches!(job.state, State::Removed { .. }) => {
                for name in containers {
                    match shared.ports.runner.remove(name).await {
                        Ok(()) => {
                            measure::stray_removed();
                            info!(container = %name, "removed a stray: its job is over and cleared")
                        }
                        Err(error) => warn!(container = %name, %error, "could not remove a stray"),
                    }
                }
            }
            Ok(None) => orphan::take_up(shared, job, containers).await,
            Ok(Some(_)) | Err(_) => {}
        }
    }
    true
}
