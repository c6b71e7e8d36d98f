//! From a permit to a running container, once.
//!
//! The deterministic name makes it once: the engine lets one container have it. Whatever happens
//! on the way, the engine is asked how things stand before anything is concluded, and after an
//! error what was created is removed.

use std::time::Duration;

use bollard::query_parameters::CreateContainerOptions;
use domain::Timestamp;
use engine::{LaunchError, Launched, StartTicket};
use gate::LaunchPermit;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::client::{Client, Trouble};
use crate::sighting::{self, Seen};
use crate::{DockerConfig, container, removal};

// A start is begun up to 10 s before the client's time is over and the answer has to be given
// within 15 s after it: START + SETTLING + CLEANING fit between.
/// Time for the engine to create the container.
const CREATE: Duration = Duration::from_secs(15);
/// Time for the engine to start it.
const START: Duration = Duration::from_secs(12);
/// Time to find out what became of a start that was not answered.
const SETTLING: Duration = Duration::from_secs(4);
/// Time to remove what shall not run.
const CLEANING: Duration = Duration::from_secs(8);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Creates and starts the container of a permit, or finds that it was.
pub(crate) async fn launch(
    client: &Client,
    config: &DockerConfig,
    permit: &LaunchPermit,
    ticket: &StartTicket,
) -> Result<Launched, LaunchError> {
    let seen = create(client, config, permit).await?;
    if let Some(at) = seen.ran_at {
        return Ok(Launched { at });
    }
    if !ticket.admit() {
        return Err(clean(client, permit, LaunchError::Withdrawn).await);
    }
    match start(client, &seen).await {
        Ok(at) => Ok(Launched { at }),
        Err(error) => Err(clean(client, permit, error).await),
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
                match sighting::look(client, &created.id).await {
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
                    Err(trouble) => break LaunchError::Engine(trouble.during("create")),
                }
            }
            Err(trouble) => trouble,
        };
        // It may exist all the same: from before, or because the answer alone was lost.
        let taken = trouble.status() == Some(409);
        match sighting::look(client, &name).await {
            Ok(Some(seen)) if has_image(&seen, permit) && has_labels(&seen, permit) => {
                return Ok(seen);
            }
            Ok(Some(_)) if taken => return Err(LaunchError::NameTaken { name }),
            // A name is taken a little before its container is seen and a little after it is gone.
            Ok(None) if taken && Instant::now() < deadline => sleep(PAUSE).await,
            _ if trouble.status().is_some() => break LaunchError::Refused(trouble.message()),
            _ => break LaunchError::Engine(trouble.during("create")),
        }
    };
    Err(clean(client, permit, error).await)
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

/// Starts a container and tells since when it runs. An error says that it did not run when last
/// seen, or that nobody knows.
async fn start(client: &Client, seen: &Seen) -> Result<Timestamp, LaunchError> {
    let answer = client
        .call(START, async |docker| {
            docker.start_container(&seen.id, None).await
        })
        .await;
    let deadline = Instant::now() + SETTLING;
    loop {
        let now = sighting::look(client, &seen.id).await;
        if let Ok(Some(Seen {
            ran_at: Some(at), ..
        })) = now
        {
            return Ok(at);
        }
        return Err(match (answer.clone(), now) {
            (Err(trouble @ Trouble::Refused { .. }), _) => LaunchError::Refused(trouble.message()),
            (_, Ok(None)) => LaunchError::Refused("the container is gone again".to_owned()),
            // Under way, perhaps.
            _ if Instant::now() < deadline => {
                sleep(PAUSE).await;
                continue;
            }
            (Err(trouble), _) | (Ok(()), Err(trouble)) => {
                LaunchError::Engine(trouble.during("start"))
            }
            (Ok(()), Ok(Some(_))) => {
                LaunchError::Refused("it was started and does not run".to_owned())
            }
        });
    }
}

/// Removes what there is of a launch that failed for `error`. When that fails too, the engine's
/// silence is the error to tell: something may be left.
async fn clean(client: &Client, permit: &LaunchPermit, error: LaunchError) -> LaunchError {
    match removal::remove(client, permit.name(), CLEANING).await {
        Ok(()) => error,
        Err(trouble) => {
            warn!(container = %permit.name(), %error, ?trouble, "could not remove what was not to run");
            LaunchError::Engine(trouble.during("remove"))
        }
    }
}
