//! Looking at what an ended container left in its volume.
//!
//! The engine hands out a folder of a stopped container as a tar stream. Names and sizes are in
//! the headers; the contents pass by unread, a buffer at a time, however much there is.

use std::io::{self, Read};
use std::time::Duration;

use bollard::query_parameters::DownloadFromContainerOptions;
use bytes::Bytes;
use domain::Leftovers;
use engine::{RunnerError, Sighting};
use futures_util::{Stream, StreamExt, stream};
use gate::ContainerName;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::client::{Client, QUICK, Trouble};
use crate::container::DATA;
use crate::sighting;

/// Time to read through a volume. Enough for 80 GB from an engine on a small and busy machine, which
/// sends 140 MB in a second.
const WHOLE: Duration = Duration::from_secs(10 * 60);
/// Time to wait for the next part of it.
const NEXT: Duration = Duration::from_secs(30);

/// What is left of the work of an attempt; `None` when its container or its volume is gone.
pub(crate) async fn look(
    client: &Client,
    name: &ContainerName,
) -> Result<Option<Leftovers>, RunnerError> {
    const OPERATION: &str = "look at the volume";
    let during = |trouble: Trouble| trouble.during(OPERATION);
    let failed = |detail: String| RunnerError {
        operation: OPERATION,
        detail,
        unreachable: false,
    };
    let Some(seen) = sighting::look_for_ours(client, name, QUICK)
        .await
        .map_err(during)?
    else {
        return Ok(None);
    };
    if matches!(seen.sighting, Sighting::Running { .. }) {
        return Err(failed("the container still runs".to_owned()));
    }
    // Asked for the folder without its volume, the engine would show what the image has there.
    let volume = name.volume();
    match client
        .call(QUICK, async |docker| docker.inspect_volume(&volume).await)
        .await
    {
        Ok(_) => {}
        Err(trouble) if trouble.status() == Some(404) => return Ok(None),
        Err(trouble) => return Err(during(trouble)),
    }
    let docker = client.stream().await.map_err(during)?;
    let options = DownloadFromContainerOptions {
        path: DATA.to_owned(),
    };
    let mut archive = docker.download_from_container(&seen.id, Some(options));
    let first = match timeout(NEXT, archive.next()).await {
        Err(_) => return Err(failed("the engine does not send it".to_owned())),
        Ok(Some(Err(error))) => {
            let trouble = Trouble::from(error);
            return if trouble.status() == Some(404) {
                Ok(None)
            } else {
                Err(during(trouble))
            };
        }
        Ok(Some(Ok(bytes))) => Some(Ok(bytes)),
        Ok(None) => None,
    };
    let archive = stream::iter(first).chain(archive.map(|part| part.map_err(io::Error::other)));
    let reader = SyncIoBridge::new(StreamReader::new(in_time(archive)));
    let counted = tokio::task::spawn_blocking(move || count(reader));
    counted
        .await
        .map_err(|error| failed(error.to_string()))?
        .map(Some)
        .map_err(|error| failed(error.to_string()))
}

/// The same stream, ended by an error when it takes too long.
fn in_time(
    parts: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    let deadline = Instant::now() + WHOLE;
    stream::unfold((parts, false), move |(mut parts, over)| async move {
        if over {
            return None;
        }
        match timeout_at(deadline.min(Instant::now() + NEXT), parts.next()).await {
            Ok(part) => part.map(|part| (part, (parts, false))),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), (parts, true))),
        }
    })
    .boxed()
}

/// Sums up the regular files of a tar stream.
fn count(archive: impl Read) -> io::Result<Leftovers> {
    let mut left = Leftovers {
        media_bytes: 0,
        total_bytes: 0,
    };
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let bytes = entry.size();
        left.total_bytes = left.total_bytes.saturating_add(bytes);
        if entry.path_bytes().to_ascii_lowercase().ends_with(b".mp4") {
            left.media_bytes = left.media_bytes.saturating_add(bytes.max(1));
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, usize)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(*bytes as u64);
            builder
                .append_data(&mut header, path, io::repeat(7).take(*bytes as u64))
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn media_and_all_bytes_are_summed_up() {
        let long = format!("data/{}/x.MP4", "d".repeat(150));
        for (files, media_bytes, total_bytes) in [
            (&[][..], 0, 0),
            (&[("data/a/recorder.log", 10)], 0, 10),
            (
                &[("data/a/call.mp4", 100_000), ("data/a/recorder.log", 7)],
                100_000,
                100_007,
            ),
            (&[("data/a/call.mp4", 0)], 1, 0),
            (&[(long.as_str(), 600), ("data/mp4", 5)], 600, 605),
        ] {
            let left = count(archive(files).as_slice()).unwrap();
            assert_eq!(
                left,
                Leftovers {
                    media_bytes,
                    total_bytes
                },
                "{files:?}"
            );
        }
    }

    #[test]
    fn links_and_folders_named_like_media_are_none() {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path) in [
            (tar::EntryType::Directory, "data/d.mp4"),
            (tar::EntryType::Symlink, "data/l.mp4"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_link_name("elsewhere.mp4").unwrap();
            builder.append_data(&mut header, path, io::empty()).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        assert_eq!(
            count(archive.as_slice()).unwrap(),
            Leftovers {
                media_bytes: 0,
                total_bytes: 0
            }
        );
    }

    #[test]
    fn an_archive_that_breaks_off_is_an_error() {
        let whole = archive(&[("data/a/call.mp4", 4000)]);
        assert!(count(&whole[..1500]).is_err());
    }
}
