//! From a permit to a running container, once.
//!
//! The deterministic name makes it once: the engine lets one container have it. Whatever happens
//! on the way, the engine is asked how things stand before anything is concluded. What was created
//! is removed when it is certain that it shall not run; what nobody knows anything of is left for
//! the next call, because it may run already.

use std::time::Duration;

use bollard::query_parameters::CreateContainerOptions;
use domain::Timestamp;
use engine::{LaunchError, Launched, Leave, StartTicket};
use gate::LaunchPermit;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::client::{Client, QUICK, Trouble, left};
use crate::sighting::{self, Seen};
use crate::{DockerConfig, container, removal};

// A start is begun up to 10 s before the client's time is over and the answer has to be given
// within 15 s after it: START + SETTLING + CLEANING fit between, whatever the engine does.
/// Time for the engine to create the container.
const CREATE: Duration = Duration::from_secs(15);
/// Time for the engine to start it.
const START: Duration = Duration::from_secs(12);
/// Time to find out what became of a start that was not answered.
const SETTLING: Duration = Duration::from_secs(4);
/// Time to remove what shall not run, at least.
const CLEANING: Duration = Duration::from_secs(4);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Creates and starts the container of a permit, or finds that it was.
pub(crate) async fn launch(
    client: &Client,
    config: &DockerConfig,
    permit: &LaunchPermit,
    ticket: &StartTicket,
) -> Result<Launched, LaunchError> {
    // Before, so that the engine does not make a volume of the name, and after, so that it did not.
    check_volume(client, permit).await?;
    let seen = create(client, config, permit).await?;
    if let Some(at) = seen.ran_at {
        return Ok(Launched { at });
    }
    check_volume(client, permit).await?;
    let deadline = Instant::now() + START + SETTLING + CLEANING;
    let started = match ticket.ask(&seen.id) {
        Leave::Given => start(client, &seen).await,
        Leave::GivenBefore => {
            let unknown = Trouble::Unreachable("a start is under way".to_owned());
            settle(client, &seen, Err(unknown)).await
        }
        Leave::Refused => {
            let deadline = Instant::now() + CLEANING;
            return Err(clean(client, permit, LaunchError::Withdrawn, deadline).await);
        }
    };
    match started {
        Ok(at) => Ok(Launched { at }),
        // It may run by now.
        Err(error @ (LaunchError::Engine(_) | LaunchError::Gone)) => Err(error),
        Err(error) => Err(clean(client, permit, error, deadline).await),
    }
}

/// A container that resends gets the volume that another one left, or it does not run: in an empty
/// one it would find nothing to send, and end well.
async fn check_volume(client: &Client, permit: &LaunchPermit) -> Result<(), LaunchError> {
    let Some(source) = permit.resends() else {
        return Ok(());
    };
    match sighting::has_volume(client, source, QUICK).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let error = LaunchError::Refused(format!("the volume {} is gone", source.volume()));
            Err(clean(client, permit, error, Instant::now() + CLEANING).await)
        }
        Err(trouble) => Err(trouble.during("inspect the volume").into()),
    }
}

/// Sees to it that the permit's container exists, and that it is what was authorized.
async fn create(
    client: &Client,
    config: &DockerConfig,
    permit: &LaunchPermit,
) -> Result<Seen, LaunchError> {
    let name = permit.name().to_string();
    let deadline = Instant::now() + CREATE;
    let error = loop {
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            ..Default::default()
        };
        let description = container::describe(permit, config);
        let created = client
            .call(CREATE, async |docker| {
                docker.create_container(Some(options), description).await
            })
            .await;
        let trouble = match created {
            Ok(created) => {
                for warning in &created.warnings {
                    warn!(container = %name, %warning, "the container engine warns");
                }
                match sighting::look(client, &created.id, QUICK).await {
                    Ok(Some(seen)) if has_image(&seen, permit) => return Ok(seen),
                    Ok(Some(seen)) => {
                        let authorized = permit.image_id().to_string();
                        break LaunchError::ImageChanged {
                            found: seen.image_id,
                            authorized,
                        };
                    }
                    Ok(None) => {
                        break LaunchError::Refused("the container is gone again".to_owned());
                    }
                    Err(trouble) => return Err(trouble.during("create").into()),
                }
            }
            Err(trouble) => trouble,
        };
        // It may exist all the same: from before, or because the answer alone was lost.
        let taken = trouble.status() == Some(409);
        match sighting::look(client, &name, QUICK).await {
            Ok(Some(seen)) if has_image(&seen, permit) && has_labels(&seen, permit) => {
                return Ok(seen);
            }
            Ok(Some(_)) => return Err(LaunchError::NameTaken { name }),
            // A name is taken a little before its container is seen and a little after it is gone.
            Ok(None) if taken && Instant::now() < deadline => sleep(PAUSE).await,
            Ok(None) if trouble.status().is_some() => {
                break LaunchError::Refused(trouble.message());
            }
            Ok(None) => return Err(trouble.during("create").into()),
            // What has the name may have been started before, and run.
            Err(trouble) => return Err(trouble.during("inspect").into()),
        }
    };
    Err(clean(client, permit, error, Instant::now() + CLEANING).await)
}

fn has_image(seen: &Seen, permit: &LaunchPermit) -> bool {
    seen.image_id == permit.image_id().as_str()
}

fn has_labels(seen: &Seen, permit: &LaunchPermit) -> bool {
    permit
        .labels()
        .iter()
        .all(|(label, value)| seen.labels.get(label) == Some(value))
}

/// Starts a container and tells since when it runs, within [`START`] and [`SETTLING`]. With
/// [`LaunchError::Engine`] nobody knows whether it runs or will; with others it does not.
async fn start(client: &Client, seen: &Seen) -> Result<Timestamp, LaunchError> {
    let answer = client
        .call(START, async |docker| {
            docker.start_container(&seen.id, None).await
        })
        .await;
    settle(client, seen, answer).await
}

/// What came of a start that was answered so.
async fn settle(
    client: &Client,
    seen: &Seen,
    answer: Result<(), Trouble>,
) -> Result<Timestamp, LaunchError> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let now = sighting::look(client, &seen.id, left(deadline).min(QUICK)).await;
        if let Ok(Some(Seen {
            ran_at: Some(at), ..
        })) = now
        {
            return Ok(at);
        }
        return Err(match (answer.clone(), now) {
            (Err(trouble @ Trouble::Refused { .. }), Ok(_)) => {
                LaunchError::Refused(trouble.message())
            }
            (_, Ok(None)) => LaunchError::Gone,
            // Under way, perhaps.
            _ if Instant::now() < deadline => {
                sleep(PAUSE).await;
                continue;
            }
            (Err(trouble), _) | (Ok(()), Err(trouble)) => trouble.during("start").into(),
            (Ok(()), Ok(Some(_))) => {
                LaunchError::Refused("it was started and does not run".to_owned())
            }
        });
    }
}

/// Removes what there is of a launch that failed for `error`. When that fails too, the engine's
/// silence is the error to tell: something may be left.
async fn clean(
    client: &Client,
    permit: &LaunchPermit,
    error: LaunchError,
    deadline: Instant,
) -> LaunchError {
    match removal::remove(client, permit.name(), deadline).await {
        Ok(()) => error,
        Err(trouble) => {
            warn!(container = %permit.name(), %error, ?trouble, "could not remove what was not to run");
            trouble.during("remove").into()
        }
    }
}
