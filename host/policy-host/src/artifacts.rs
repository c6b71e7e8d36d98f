//! Compiled components, kept so that a restart does not compile.
//!
//! An artifact is machine code, so whoever can write one can do anything that the service can. Each
//! file therefore begins with an HMAC under a key that only this installation has, over the component
//! it was made from, the engine it was made for, and all of its bytes. A file that does not match is
//! as good as absent: the component is compiled anew.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use cap_std::fs::Dir;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Where artifacts are kept, and the key that they are authenticated with.
pub struct ArtifactStore {
    /// A directory that holds nothing else and that only this service can write to.
    pub dir: Dir,
    /// Random bytes that only this installation has.
    pub key: [u8; 32],
}

impl fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactStore")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Bytes of the HMAC that a file begins with.
const TAG: usize = 32;

/// The artifacts of one engine.
pub(crate) struct Artifacts {
    store: ArtifactStore,
    engine: u64,
    said_not_writable: AtomicBool,
}

impl Artifacts {
    pub(crate) fn new(store: ArtifactStore, engine: &Engine) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            store,
            engine: hasher.finish(),
            said_not_writable: AtomicBool::new(false),
        }
    }

    /// The artifact of a component with this sha256, if there is one that can be trusted.
    pub(crate) fn load(&self, engine: &Engine, component: &[u8; 32]) -> Option<Component> {
        let file = self.file(component);
        let bytes = self.store.dir.read(&file).ok()?;
        let Some(code) = self.authentic(component, &bytes) else {
            tracing::warn!(
                file,
                "a compiled policy was not made here, or was changed; compiling anew"
            );
            return None;
        };
        match deserialize(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(file, error = %error.root_cause(), "a compiled policy does not fit; compiling anew");
                None
            }
        }
    }

    /// Keeps a compiled component. Failing to is no reason not to serve, and is said once.
    pub(crate) fn save(&self, component: &[u8; 32], compiled: &Component) {
        let file = self.file(component);
        let saved = compiled
            .serialize()
            .map_err(|error| error.root_cause().to_string())
            .and_then(|code| {
                let mut bytes = self.tag(component, &code).finalize().into_bytes().to_vec();
                bytes.extend_from_slice(&code);
                self.write(&file, &bytes).map_err(|error| error.to_string())
            });
        if let Err(error) = saved
            && !self.said_not_writable.swap(true, Relaxed)
        {
            tracing::warn!(
                file,
                error,
                "compiled policies cannot be kept; every start compiles them"
            );
        }
    }

    /// Under another name first, so that nobody reads half a file.
    fn write(&self, file: &str, bytes: &[u8]) -> std::io::Result<()> {
        let unfinished = format!("{file}.unfinished");
        self.store.dir.write(&unfinished, bytes)?;
        self.store.dir.rename(&unfinished, &self.store.dir, file)
    }

    fn file(&self, component: &[u8; 32]) -> String {
        format!("{}-{:016x}.cwasm", hex::encode(component), self.engine)
    }

    fn tag(&self, component: &[u8; 32], code: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.store.key).expect("a key of any length will do");
        mac.update(b"offloader policy artifact 1");
        mac.update(component);
        mac.update(&self.engine.to_le_bytes());
        mac.update(code);
        mac
    }

    /// The code of a file, if this installation wrote it for this component and engine.
    fn authentic<'a>(&self, component: &[u8; 32], bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, code) = bytes.split_at_checked(TAG)?;
        self.tag(component, code)
            .verify_slice(tag)
            .is_ok()
            .then_some(code)
    }
}

/// Turns an artifact into a component.
///
/// The engine runs what it is given here, so the bytes must be what [`Component::serialize`] made.
/// The one caller passes bytes that are in memory, not a file that could change meanwhile, and that
/// carry a valid HMAC under a key that only this service can read; it writes that HMAC over nothing
/// but the output of `serialize`. That the code fits this engine is checked by `deserialize` itself.
#[expect(unsafe_code, reason = "machine code can be vouched for, not checked")]
fn deserialize(engine: &Engine, authentic: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: see above.
    unsafe { Component::deserialize(engine, authentic) }
}
