//! Taking a container away, with every volume that belongs to it and no other.

use std::time::Duration;

use bollard::query_parameters::{RemoveContainerOptions, RemoveVolumeOptions};
use engine::FaultPoint;
use gate::ContainerName;
use tokio::time::{Instant, sleep};

use crate::client::{Client, QUICK, Trouble, left};
use crate::sighting;

/// Time for a removal that nobody waits for.
pub(crate) const REMOVAL: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Removes the container of an attempt, running or not, its own volumes included, and returns when
/// they are gone, or at `deadline`. Leaves alone what has the name but not the labels. An engine
/// that answers with an error is asked again; one that does not answer is not.
pub(crate) async fn remove(
    client: &Client,
    name: &ContainerName,
    deadline: Instant,
) -> Result<(), Trouble> {
    let mut pause = FIRST_PAUSE;
    loop {
        let trouble = match remove_once(client, name, deadline).await {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        if trouble.status().is_none() || Instant::now() + pause >= deadline {
            return Err(trouble);
        }
        tracing::debug!(container = %name, ?trouble, "could not remove it yet");
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

async fn remove_once(
    client: &Client,
    name: &ContainerName,
    deadline: Instant,
) -> Result<(), Trouble> {
    if let Some(seen) = sighting::look_for_ours(client, name, left(deadline).min(QUICK)).await? {
        // With `v` the engine also removes the volumes that the image declares, and no volume with
        // a name of its own: not the one that this container may have got of another.
        let options = RemoveContainerOptions {
            v: true,
            force: true,
            link: false,
        };
        let removed = client
            .call(left(deadline), async |docker| {
                docker.remove_container(&seen.id, Some(options)).await
            })
            .await;
        gone(removed)?;
        FaultPoint::BetweenRemovals.reach();
    }
    remove_volume(client, name, deadline).await
}

async fn remove_volume(
    client: &Client,
    name: &ContainerName,
    deadline: Instant,
) -> Result<(), Trouble> {
    if !sighting::has_volume(client, name, left(deadline).min(QUICK)).await? {
        return Ok(());
    }
    let volume = name.volume();
    let options = RemoveVolumeOptions { force: false };
    let removed = client
        .call(left(deadline), async |docker| {
            docker.remove_volume(&volume, Some(options)).await
        })
        .await;
    gone(removed)
}

/// A removal of what is gone has succeeded.
fn gone(removed: Result<(), Trouble>) -> Result<(), Trouble> {
    match removed {
        Err(trouble) if trouble.status() == Some(404) => Ok(()),
        removed => removed,
    }
}
