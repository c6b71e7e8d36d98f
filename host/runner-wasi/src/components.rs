//! Components by the image that they stand for, compiled once.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use domain::{EndReason, ImageId, ImageRef};
use engine::PrepareError;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

use crate::sandbox::{Program, Sandbox};

/// Bytes of the largest component that is read.
const LARGEST: u64 = 256 << 20;

/// The components that stand for images.
pub(crate) struct Components {
    dir: Dir,
    files: BTreeMap<String, String>,
    known: Mutex<HashMap<String, Known>>,
}

/// A file that was compiled as it was then.
struct Known {
    version: Version,
    program: Arc<Program>,
}

/// What tells a file from the one that replaced it.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Version {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            bytes: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Components {
    pub(crate) fn new(dir: Dir, files: BTreeMap<String, String>) -> Self {
        Self {
            dir,
            files,
            known: Mutex::default(),
        }
    }

    /// The program of an image, if it was compiled and its file is still the same. A look at the
    /// file alone, for which nobody waits.
    pub(crate) fn compiled(&self, image: &ImageRef) -> Option<Arc<Program>> {
        let file = self.files.get(&image.to_string())?;
        let version = Version::of(&self.dir.metadata(file).ok()?);
        let known = self.known();
        let known = known.get(file).filter(|known| known.version == version)?;
        Some(Arc::clone(&known.program))
    }

    /// The program of an image, read and compiled if that has not been done or its file changed.
    /// Blocks for as long as that takes.
    pub(crate) fn get(
        &self,
        sandbox: &Sandbox,
        image: &ImageRef,
    ) -> Result<Arc<Program>, PrepareError> {
        if let Some(program) = self.compiled(image) {
            return Ok(program);
        }
        let fail = |reason, detail: String| PrepareError::Pull {
            image: image.to_string(),
            reason,
            detail,
        };
        let Some(file) = self.files.get(&image.to_string()) else {
            let detail = "no component is listed for it in jobs.wasi.images".to_owned();
            return Err(fail(EndReason::ImageNotFound, detail));
        };
        // It is listed, so it was there or is on its way: worth another try.
        let unreadable = |error: io::Error| {
            let detail = format!("component {file}: {error}");
            fail(EndReason::ImageUnreachable, detail)
        };
        let mut opened = self.dir.open(file).map_err(unreadable)?;
        let metadata = opened.metadata().map_err(unreadable)?;
        if metadata.len() > LARGEST {
            let detail = format!("component {file}: has more than {LARGEST} bytes");
            return Err(fail(EndReason::ImageRefused, detail));
        }
        let mut bytes = Vec::new();
        opened
            .by_ref()
            .take(LARGEST)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let id: ImageId = digest
            .parse()
            .map_err(|_| fail(EndReason::ImageRefused, "has no digest".to_owned()))?;
        let program = Component::from_binary(&sandbox.engine, &bytes)
            .and_then(|component| sandbox.program(id, &component))
            .map_err(|error| {
                let detail = format!("component {file}: {}", error.root_cause());
                fail(EndReason::ImageRefused, detail)
            })?;
        let program = Arc::new(program);
        let known = Known {
            version: Version::of(&metadata),
            program: Arc::clone(&program),
        };
        self.known().insert(file.clone(), known);
        Ok(program)
    }

    /// A panic while the map is locked cannot leave it half changed.
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
