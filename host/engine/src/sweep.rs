//! Looks now and then whether the container engine holds something of this installation that
//! no job's task looks after.

use std::sync::Arc;
use std::time::Duration;

use domain::State;
use tracing::{info, warn};

use crate::engine::Shared;

/// The pause before each look. It is also the grace: what is being created now has its task.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// Removes what a late answer of the engine left of jobs of which nothing should be left.
///
/// A container of a job that the store does not know is reported and left alone: it may be all
/// that is left of somebody's recording.
pub(crate) async fn sweep_now_and_then(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => sweep(&shared).await,
            () = shared.ending.cancelled() => return,
        }
    }
}

async fn sweep(shared: &Shared) {
    // Errors are no news here: the watch over the engine tells of them.
    let Ok(names) = shared.ports.runner.list().await else {
        return;
    };
    for name in names {
        if shared.live.get(name.job()).is_some() {
            continue;
        }
        match shared.ports.store.job(name.job()).await {
            Ok(Some(job)) if matches!(job.state, State::Removed { .. }) => {
                match shared.ports.runner.remove(&name).await {
                    Ok(()) => {
                        info!(container = %name, "removed a stray: its job is over and cleared")
                    }
                    Err(error) => warn!(container = %name, %error, "could not remove a stray"),
                }
            }
            Ok(None) => warn!(container = %name, "a container of an unknown job; left alone"),
            Ok(Some(_)) | Err(_) => {}
        }
    }
}
