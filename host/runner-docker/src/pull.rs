//! Making images present.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use domain::{EndReason, ImageId, ImageRef};
use engine::{PrepareError, RunnerError};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::client::{Client, QUICK, Trouble};
use crate::pull_failure::classify;

/// How often a pull's progress is logged.
const TELL_EVERY: Duration = Duration::from_secs(5);

type Pull = Shared<BoxFuture<'static, Result<ImageId, PrepareError>>>;

/// The pulls under way, by reference.
#[derive(Clone, Default)]
pub(crate) struct Pulls(Arc<Mutex<HashMap<ImageRef, Pull>>>);

impl Pulls {
    /// The id of an image, pulled if the engine does not have it.
    pub(crate) async fn prepare(
        &self,
        client: &Arc<Client>,
        image: &ImageRef,
        stall: Duration,
    ) -> Result<ImageId, PrepareError> {
        if let Some(id) = present(client, image).await? {
            return Ok(id);
        }
        self.join(client, image, stall).await
    }

    /// Joins the pull of an image, or begins it. It runs as a task of its own, so it goes on when
    /// those who wait for it go.
    fn join(&self, client: &Arc<Client>, image: &ImageRef, stall: Duration) -> Pull {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pull) = pulls.get(image) {
            return pull.clone();
        }
        let under_way = UnderWay {
            pulls: self.clone(),
            image: image.clone(),
        };
        let client = Arc::clone(client);
        let task = tokio::spawn(async move {
            let pulled = pull(&client, &under_way.image, stall).await;
            if let Err(error) = &pulled {
                warn!(image = %under_way.image, %error, "pull failed");
            }
            pulled
        });
        let pull = task
            .map(|pulled| {
                pulled.unwrap_or_else(|error| {
                    let detail = error.to_string();
                    Err(RunnerError {
                        operation: "pull",
                        detail,
                        unreachable: false,
                    }
                    .into())
                })
            })
            .boxed()
            .shared();
        pulls.insert(image.clone(), pull.clone());
        pull
    }
}

/// Strikes a pull off the list when it is over, however it ends.
struct UnderWay {
    pulls: Pulls,
    image: ImageRef,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.pulls
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.image);
    }
}

/// The id of an image that the engine has. A digest in the reference has to be the image's.
async fn present(client: &Client, image: &ImageRef) -> Result<Option<ImageId>, PrepareError> {
    let reference = image.to_string();
    let inspected = client
        .call(QUICK, async |docker| docker.inspect_image(&reference).await)
        .await;
    let found = match inspected {
        Ok(found) => found,
        Err(trouble) if trouble.status() == Some(404) => return Ok(None),
        Err(trouble) => return Err(trouble.during("inspect image").into()),
    };
    if let Some(digest) = image.digest() {
        let wanted = format!("@{digest}");
        if !found
            .repo_digests
            .unwrap_or_default()
            .iter()
            .any(|known| known.ends_with(&wanted))
        {
            return Ok(None);
        }
    }
    let id = found.id.unwrap_or_default();
    id.parse().map(Some).map_err(|_| {
        let detail = format!("the id of {reference} is {id:?}");
        RunnerError {
            operation: "inspect image",
            detail,
            unreachable: false,
        }
        .into()
    })
}

async fn pull(client: &Client, image: &ImageRef, stall: Duration) -> Result<ImageId, PrepareError> {
    let failed = |reason, detail| PrepareError::Pull {
        image: image.to_string(),
        reason,
        detail,
    };
    let docker = client
        .stream()
        .await
        .map_err(|trouble| trouble.during("pull"))?;
    let options = CreateImageOptions {
        from_image: Some(format!("{}/{}", image.registry(), image.name())),
        // The engine takes a digest here too, and then it is what decides.
        tag: image
            .digest()
            .map(ToString::to_string)
            .or(image.tag().map(str::to_owned)),
        ..Default::default()
    };
    info!(%image, "pulling");
    let mut answer = pin!(docker.create_image(Some(options), None, None));
    let mut progress = Progress::default();
    let (mut moved, mut told) = (Instant::now(), Instant::now());
    loop {
        let Ok(message) = timeout_at(moved + stall, answer.next()).await else {
            let detail = format!("no progress for {} s", stall.as_secs_f32());
            return Err(failed(EndReason::ImageStalled, detail));
        };
        let message = match message.map(|message| message.map_err(Trouble::from)) {
            None => break,
            Some(Ok(message)) => message,
            Some(Err(Trouble::Refused { status, message })) => {
                return Err(match classify(status, &message) {
                    Some(reason) => failed(reason, message),
                    None => Trouble::Refused { status, message }.during("pull").into(),
                });
            }
            Some(Err(trouble)) => return Err(trouble.during("pull").into()),
        };
        if progress.advance(message) {
            moved = Instant::now();
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let (done, total) = progress.bytes();
            info!(%image, downloaded_bytes = done, of_bytes = total, layers = progress.layers.len(), "pulling");
        }
    }
    match present(client, image).await? {
        Some(id) => {
            info!(%image, %id, "pulled");
            Ok(id)
        }
        None if image.digest().is_some() => Err(failed(
            EndReason::ImageRefused,
            "what was pulled has another digest".to_owned(),
        )),
        None => Err(failed(
            EndReason::ImageNotFound,
            "it was pulled and is gone again".to_owned(),
        )),
    }
}

/// How far the layers of an image are.
#[derive(Default)]
struct Progress {
    layers: HashMap<String, Layer>,
}

#[derive(Default, PartialEq, Eq)]
struct Layer {
    status: String,
    current: i64,
    total: i64,
}

impl Progress {
    /// Takes a message in; whether it tells of anything that came closer.
    fn advance(&mut self, message: CreateImageInfo) -> bool {
        let status = message.status.unwrap_or_default();
        // Counted down each second while the registry does not answer.
        if status.starts_with("Retrying") {
            return false;
        }
        let detail = message.progress_detail.unwrap_or_default();
        let layer = self
            .layers
            .entry(message.id.unwrap_or_default())
            .or_default();
        let now = Layer {
            status,
            current: detail.current.unwrap_or(0),
            total: detail.total.unwrap_or(layer.total),
        };
        let moved = now != *layer;
        *layer = now;
        moved
    }

    /// Bytes downloaded, and bytes in all as far as known.
    fn bytes(&self) -> (i64, i64) {
        self.layers.values().fold((0, 0), |(done, total), layer| {
            let downloading = layer.status == "Downloading";
            let waiting = layer.status.is_empty() || layer.status == "Waiting";
            let got = if downloading {
                layer.current
            } else if waiting {
                0
            } else {
                layer.total
            };
            (done + got, total + layer.total)
        })
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    fn message(
        id: &str,
        status: &str,
        current: Option<i64>,
        total: Option<i64>,
    ) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current, total }),
            ..Default::default()
        }
    }

    #[test]
    fn repeated_and_retrying_messages_are_no_progress() {
        let mut progress = Progress::default();
        for (message, moves) in [
            (message("a", "Pulling fs layer", None, None), true),
            (message("a", "Downloading", Some(10), Some(100)), true),
            (message("a", "Downloading", Some(10), Some(100)), false),
            (message("b", "Waiting", None, None), true),
            (message("b", "Waiting", None, None), false),
            (message("a", "Retrying in 5 seconds", None, None), false),
            (message("a", "Retrying in 4 seconds", None, None), false),
            (message("a", "Downloading", Some(20), Some(100)), true),
        ] {
            let text = format!("{message:?}");
            assert_eq!(progress.advance(message), moves, "{text}");
        }
        assert_eq!(progress.bytes(), (20, 100));
        progress.advance(message("a", "Download complete", None, None));
        assert_eq!(progress.bytes(), (100, 100));
    }
}
