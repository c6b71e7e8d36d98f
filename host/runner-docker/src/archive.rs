//! What an ended container left in its volume, as the engine sends it.
//!
//! The engine hands out a folder of a stopped container as a tar stream. Names and sizes are in
//! the headers; the contents pass a buffer at a time, however much there is.

use std::io::{self, Read, Write};
use std::time::Duration;

use bollard::query_parameters::DownloadFromContainerOptions;
use bytes::Bytes;
use domain::Leftovers;
use engine::{FilesError, RunnerError, Sighting};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use gate::ContainerName;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::client::{Client, QUICK, Trouble};
use crate::container::DATA;
use crate::{labels, sighting};

/// Time to wait for the next part.
const NEXT: Duration = Duration::from_secs(30);

/// An archive to be read on a thread that may wait.
pub(crate) type Archive = SyncIoBridge<StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>>;

/// The volume of an attempt as an archive that has to be read within `whole`; `None` when its
/// container and its volume are gone.
pub(crate) async fn open(
    client: &Client,
    name: &ContainerName,
    operation: &'static str,
    whole: Option<Duration>,
) -> Result<Option<Archive>, FilesError> {
    let during = |trouble: Trouble| trouble.during(operation);
    let seen = sighting::look_for_ours(client, name, QUICK)
        .await
        .map_err(during)?;
    if let Some(seen) = &seen
        && matches!(seen.sighting, Sighting::Running { .. })
    {
        return Err(FilesError::Running);
    }
    // Asked for the folder without its volume, the engine would show what the image has there.
    let other = seen
        .as_ref()
        .and_then(|seen| labels::volume_of(&seen.labels, name));
    let volume = other.as_ref().unwrap_or(name).volume();
    let volume = match client
        .call(QUICK, async |docker| docker.inspect_volume(&volume).await)
        .await
    {
        Ok(volume) => volume,
        Err(trouble) if trouble.status() == Some(404) => return Ok(None),
        Err(trouble) => return Err(during(trouble).into()),
    };
    let Some(seen) = seen else {
        return if labels::belong_to(&volume.labels, name) {
            Err(FilesError::ContainerGone {
                by_hand: format!(
                    "as root on the container engine's machine, tar -C {} -cf {}.tar .",
                    volume.mountpoint,
                    name.job()
                ),
                volume: volume.name,
            })
        } else {
            Ok(None)
        };
    };
    let docker = client.stream().await.map_err(during)?;
    let options = DownloadFromContainerOptions {
        path: DATA.to_owned(),
    };
    let mut parts = docker
        .download_from_container(&seen.id, Some(options))
        .boxed();
    let first = match timeout(NEXT, parts.next()).await {
        Err(_) => {
            let detail = "the engine does not send it".to_owned();
            let unreachable = false;
            return Err(FilesError::Engine(RunnerError {
                operation,
                detail,
                unreachable,
            }));
        }
        Ok(Some(Err(error))) => match Trouble::from(error) {
            trouble if trouble.status() == Some(404) => return Ok(None),
            trouble => return Err(during(trouble).into()),
        },
        Ok(first) => first.and_then(Result::ok),
    };
    let parts = parts.map(|part| part.map_err(io::Error::other));
    let parts = stream::iter(first.map(Ok)).chain(in_time(parts.boxed(), whole));
    Ok(Some(SyncIoBridge::new(StreamReader::new(parts.boxed()))))
}

/// The same stream, ended by an error when it takes too long.
fn in_time(
    parts: BoxStream<'static, io::Result<Bytes>>,
    whole: Option<Duration>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let deadline = whole.map(|whole| Instant::now() + whole);
    stream::unfold(Some(parts), move |parts| async move {
        let mut parts = parts?;
        let next = Instant::now() + NEXT;
        let next = deadline.map_or(next, |deadline| deadline.min(next));
        match timeout_at(next, parts.next()).await {
            Ok(part) => part.map(|part| (part, Some(parts))),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
    .boxed()
}

/// Passes an archive on and sums up its regular files.
///
/// # Errors
/// Also when the archive breaks off: an engine that cannot read on ends its answer as if that were
/// all, and only the mark at the end of an archive tells.
pub(crate) fn pass(archive: impl Read, to: &mut dyn Write) -> io::Result<Leftovers> {
    let mut left = Leftovers::default();
    let mut archive = tar::Archive::new(Passing {
        archive,
        to,
        ended: false,
    });
    for entry in archive.entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        left.add(&entry.path_bytes(), entry.size());
    }
    let mut rest = archive.into_inner();
    if rest.ended {
        let why = "the engine did not send it to its end";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    io::copy(&mut rest, &mut io::sink())?;
    Ok(left)
}

/// Passes on what is read.
struct Passing<'a, R> {
    archive: R,
    to: &'a mut dyn Write,
    /// Whether nothing follows.
    ended: bool,
}

impl<R: Read> Read for Passing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.archive.read(buffer)?;
        self.ended |= bytes == 0;
        self.to.write_all(&buffer[..bytes])?;
        Ok(bytes)
    }
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

    /// What is counted, once it is certain that all of it was passed on.
    fn count(archive: &[u8]) -> Leftovers {
        let mut passed = Vec::new();
        let left = pass(archive, &mut passed).unwrap();
        assert_eq!(passed, archive);
        left
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
            let left = count(&archive(files));
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
            count(&archive),
            Leftovers {
                media_bytes: 0,
                total_bytes: 0
            }
        );
    }

    #[test]
    fn an_archive_that_breaks_off_is_an_error_wherever_it_does() {
        // A header, 8 blocks of contents, a header, one block, and the mark.
        let whole = archive(&[("data/a/call.mp4", 4096), ("data/a/recorder.log", 7)]);
        let mark = 11 * 512;
        assert!(whole.len() > mark);
        for at in (0..=mark).step_by(256) {
            let broken = pass(&whole[..at], &mut io::sink());
            assert!(broken.is_err(), "after {at} bytes");
        }
        // As an engine does it that runs into an error.
        let told = [&whole[..9 * 512], b"{\"message\":\"read error\"}\n"].concat();
        assert!(pass(&told[..], &mut io::sink()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_stalls_is_an_error_in_time() {
        let stalls = || stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending());
        for (whole, after) in [(None, 30), (Some(Duration::from_secs(7)), 7)] {
            let began = Instant::now();
            let parts: Vec<_> = in_time(stalls().boxed(), whole).collect().await;
            assert!(parts.len() == 2 && parts[1].is_err(), "{parts:?}");
            assert_eq!(began.elapsed(), Duration::from_secs(after));
        }
    }
}
