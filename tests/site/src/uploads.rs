//! Uploads in chunks, as Mattermost takes them: announced, sent piece by piece, resumable.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Json,
    extract::{OriginalUri, Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::{
    events::Happening,
    ids::new_id,
    server::{Denied, Shared},
};

/// Tells a bot how long a chunk may be.
const CHUNK_HEADER: &str = "x-max-chunk-bytes";

/// All uploads of a site. Parts lie in `.parts` of the results folder until they are attached.
pub(crate) struct Uploads {
    results: PathBuf,
    parts: PathBuf,
    max_chunk: usize,
    refusals: AtomicUsize,
    cut: AtomicBool,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// By upload id: what is still arriving.
    arriving: HashMap<String, Upload>,
    /// By file id: what has arrived and waits to be attached.
    arrived: HashMap<String, Upload>,
}

struct Upload {
    call: String,
    name: String,
    size: u64,
    offset: u64,
    part: PathBuf,
}

/// A file taken out of the uploads into its call's folder.
pub(crate) struct StoredFile {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

enum Received {
    More,
    Whole {
        file_id: String,
        name: String,
        bytes: u64,
    },
}

impl Uploads {
    pub(crate) fn new(results: PathBuf, max_chunk: usize) -> io::Result<Self> {
        let parts = results.join(".parts");
        fs::create_dir_all(&parts)?;
        Ok(Self {
            results,
            parts,
            max_chunk,
            refusals: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
            shelf: Mutex::default(),
        })
    }

    pub(crate) fn refuse_next(&self, count: usize) {
        self.refusals.store(count, Ordering::SeqCst);
    }

    pub(crate) fn cut_next(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Moves whole uploads of a call into its folder of results; all of them or none.
    pub(crate) fn take(&self, call: &str, file_ids: &[String]) -> Result<Vec<StoredFile>, Denied> {
        let mut shelf = self.shelf();
        let missing = |id: &&String| {
            shelf
                .arrived
                .get(*id)
                .is_none_or(|upload| upload.call != call)
        };
        if let Some(id) = file_ids.iter().find(missing) {
            return Err(Denied::bad_request(format!("no such file: {id}")));
        }
        let folder = self.results.join(call);
        fs::create_dir_all(&folder).map_err(internal)?;
        let mut taken = Vec::new();
        for id in file_ids {
            // The same id named twice is taken once.
            let Some(upload) = shelf.arrived.remove(id) else {
                continue;
            };
            let plain = folder.join(&upload.name);
            let path = if plain.exists() {
                folder.join(format!("{id}-{}", upload.name))
            } else {
                plain
            };
            fs::rename(&upload.part, &path).map_err(internal)?;
            taken.push(StoredFile {
                id: id.clone(),
                path,
                bytes: upload.size,
            });
        }
        Ok(taken)
    }

    fn create(
        &self,
        call: &str,
        announced: Announcement,
    ) -> Result<(String, Announcement), Denied> {
        self.refuse_if_told_to()?;
        if announced.channel_id != call {
            return Err(Denied(
                StatusCode::FORBIDDEN,
                "not a channel of this bot".into(),
            ));
        }
        if announced.file_size == 0 {
            return Err(Denied::bad_request("file_size should be positive"));
        }
        let id = new_id();
        let upload = Upload {
            call: call.to_owned(),
            name: plain_name(&announced.filename)?,
            size: announced.file_size,
            offset: 0,
            part: self.parts.join(&id),
        };
        fs::write(&upload.part, b"").map_err(internal)?;
        self.shelf().arriving.insert(id.clone(), upload);
        Ok((id, announced))
    }

    fn receive(&self, id: &str, call: &str, chunk: &[u8]) -> Result<Received, Denied> {
        self.refuse_if_told_to()?;
        if chunk.len() > self.max_chunk {
            return Err(too_long());
        }
        // Held while the chunk is written: chunks of one file are never mixed, and a test site
        // can afford to take one chunk at a time.
        let mut shelf = self.shelf();
        let upload = shelf
            .arriving
            .get_mut(id)
            .filter(|upload| upload.call == call)
            .ok_or_else(unknown)?;
        if chunk.is_empty() || chunk.len() as u64 > upload.size - upload.offset {
            return Err(Denied::bad_request(
                "the chunk is empty or longer than what is left of the file",
            ));
        }
        let cut = self.cut.swap(false, Ordering::SeqCst);
        let kept = if cut {
            &chunk[..chunk.len() / 2]
        } else {
            chunk
        };
        let mut part = OpenOptions::new()
            .append(true)
            .open(&upload.part)
            .map_err(internal)?;
        part.write_all(kept).map_err(internal)?;
        upload.offset += kept.len() as u64;
        if cut {
            return Err(Denied(
                StatusCode::SERVICE_UNAVAILABLE,
                "the chunk was cut off".into(),
            ));
        }
        if upload.offset < upload.size {
            return Ok(Received::More);
        }
        let (name, bytes) = (upload.name.clone(), upload.size);
        let file_id = new_id();
        let whole = shelf.arriving.remove(id).ok_or_else(unknown)?;
        shelf.arrived.insert(file_id.clone(), whole);
        Ok(Received::Whole {
            file_id,
            name,
            bytes,
        })
    }

    fn refuse_if_told_to(&self) -> Result<(), Denied> {
        let one_less = |left: usize| left.checked_sub(1);
        match self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        {
            Ok(_) => Err(Denied(
                StatusCode::SERVICE_UNAVAILABLE,
                "no uploads right now".into(),
            )),
            Err(_) => Ok(()),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
pub(crate) struct Announcement {
    filename: String,
    file_size: u64,
    channel_id: String,
}

/// A bot announces a file: 201 with the id to send its chunks to.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Json(announced): Json<Announcement>,
) -> Result<Response, Denied> {
    let call = shared.call_of_token(&headers, uri.path())?;
    let (id, announced) = told(
        &shared,
        call.id(),
        shared.uploads.create(call.id(), announced),
    )?;
    let opened = Happening::UploadOpened {
        name: announced.filename.clone(),
        bytes: announced.file_size,
    };
    shared.log.record(Some(call.id()), opened);
    let limit = [(CHUNK_HEADER, shared.uploads.max_chunk.to_string())];
    let session = json!({
        "id": id,
        "filename": announced.filename,
        "file_size": announced.file_size,
        "file_offset": 0,
    });
    Ok((StatusCode::CREATED, limit, Json(session)).into_response())
}

/// A bot sends the next chunk: 204 when more is to come, 200 with the file's id when it is whole.
pub(crate) async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    chunk: Result<Bytes, BytesRejection>,
) -> Result<Response, Denied> {
    let call = shared.call_of_token(&headers, uri.path())?;
    let received = match &chunk {
        Ok(chunk) => shared.uploads.receive(&id, call.id(), chunk),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_long()),
        Err(rejection) => Err(Denied(rejection.status(), rejection.body_text())),
    };
    match told(&shared, call.id(), received)? {
        Received::More => Ok(StatusCode::NO_CONTENT.into_response()),
        Received::Whole {
            file_id,
            name,
            bytes,
        } => {
            let answer = Json(json!({ "id": file_id, "name": name, "size": bytes }));
            shared
                .log
                .record(Some(call.id()), Happening::UploadComplete { name, bytes });
            Ok(answer.into_response())
        }
    }
}

/// How far an upload has come: what a bot asks before it resumes.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    let call = shared.call_of_token(&headers, uri.path())?;
    let shelf = shared.uploads.shelf();
    let upload = shelf
        .arriving
        .get(&id)
        .filter(|upload| upload.call == call.id())
        .ok_or_else(unknown)?;
    let session = json!({ "id": id, "file_size": upload.size, "file_offset": upload.offset });
    Ok(Json(session).into_response())
}

/// Writes a refusal down on its way out.
fn told<T>(shared: &Shared, call: &str, result: Result<T, Denied>) -> Result<T, Denied> {
    if let Err(Denied(status, reason)) = &result {
        let what = Happening::UploadRefused {
            status: status.as_u16(),
            reason: reason.clone(),
        };
        shared.log.record(Some(call), what);
    }
    result
}

/// The name under which a file is kept, which must not lead anywhere.
fn plain_name(name: &str) -> Result<String, Denied> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || name.len() > 200 || !name.chars().all(plain) {
        return Err(Denied::bad_request(format!(
            "not a name for a file: {name:?}"
        )));
    }
    Ok(name.to_owned())
}

fn unknown() -> Denied {
    Denied(StatusCode::NOT_FOUND, "no such upload".into())
}

fn too_long() -> Denied {
    Denied(
        StatusCode::PAYLOAD_TOO_LARGE,
        "the chunk is longer than the server's limit".into(),
    )
}

fn internal(error: io::Error) -> Denied {
    Denied(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn names_stay_in_their_folder() {
        assert!(plain_name("call_abc.mp4").is_ok());
        for name in ["", ".", "..", "../a", "a/b", ".hidden", "a\0b", "a b"] {
            assert!(plain_name(name).is_err(), "{name:?}");
        }
    }
}
