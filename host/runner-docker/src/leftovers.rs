//! Looking at what an ended container left in its volume.

use std::io;
use std::time::Duration;

use domain::Leftovers;
use engine::{FilesError, RunnerError};
use gate::ContainerName;
use tokio::task::spawn_blocking;

use crate::archive;
use crate::client::Client;

/// Time to read through a volume. Enough for 80 GB from an engine on a small and busy machine, which
/// sends 140 MB in a second.
const WHOLE: Duration = Duration::from_secs(10 * 60);

/// What is left of the work of an attempt; `None` when its container or its volume is gone.
pub(crate) async fn look(
    client: &Client,
    name: &ContainerName,
) -> Result<Option<Leftovers>, RunnerError> {
    const OPERATION: &str = "look at the volume";
    let failed = |detail: String| RunnerError {
        operation: OPERATION,
        detail,
        unreachable: false,
    };
    let archive = match archive::open(client, name, OPERATION, Some(WHOLE)).await {
        Ok(Some(archive)) => archive,
        Ok(None) | Err(FilesError::ContainerGone { .. }) => return Ok(None),
        Err(FilesError::Running | FilesError::BeingResent(_)) => {
            return Err(failed("the container still runs".to_owned()));
        }
        Err(FilesError::Engine(error)) => return Err(error),
    };
    let counted = spawn_blocking(move || archive::pass(archive, &mut io::sink()));
    counted
        .await
        .map_err(|error| failed(error.to_string()))?
        .map(Some)
        .map_err(|error| failed(error.to_string()))
}
