//! Compiled components, kept so that a restart does not compile.
//!
//! An artifact is machine code, so whoever can write one can do anything that the service can. Each
//! file therefore begins with an HMAC under a key that only this installation has, over the component
//! it was made from, the engine it was made for, and all of its bytes. A file that does not match is
//! as good as absent: the component is compiled anew.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Dir, DirEntry, OpenOptions};
use domain::Timestamp;
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

/// How long a file is kept after it was last used: whoever goes back to what was there last week
/// starts as fast as before.
const KEPT: Duration = Duration::from_secs(28 * 24 * 3600);

/// The artifacts of one engine.
pub(crate) struct Artifacts<'a> {
    store: ArtifactStore,
    engine: u64,
    /// Files that were begun, so that no two have the same name until they are finished.
    begun: AtomicU64,
    said_not_writable: &'a AtomicBool,
}

impl<'s> Artifacts<'s> {
    /// What fits `engine`, which is told by its version, the machine and all of its configuration.
    pub(crate) fn new(
        store: ArtifactStore,
        engine: &Engine,
        said_not_writable: &'s AtomicBool,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            store,
            engine: hasher.finish(),
            begun: AtomicU64::new(0),
            said_not_writable,
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

    /// Removes what is of no use any more: files of other engines, unfinished ones, and those that no
    /// policy in force has been made from for weeks, which their times of writing tell. What is not
    /// of this directory's making stays.
    pub(crate) fn prune(&self, is_used: impl Fn(&str) -> bool, now: Timestamp) {
        let millis = u64::try_from(now.as_millis()).unwrap_or_default();
        let now = UNIX_EPOCH + Duration::from_millis(millis);
        let is_old = |entry: &DirEntry| {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            written.is_ok_and(|at| {
                let age = now.duration_since(at.into_std());
                age.is_ok_and(|age| age > KEPT)
            })
        };
        let ours = format!("-{:016x}.cwasm", self.engine);
        for entry in self.store.dir.entries().into_iter().flatten().flatten() {
            let Ok(file) = entry.file_name().into_string() else {
                continue;
            };
            let useless = match file.strip_suffix(&ours) {
                Some(component) if is_used(component) => {
                    // Where that fails it is removed too early later on, and compiled again.
                    let _ = self.touch(&file, now);
                    false
                }
                Some(_) => is_old(&entry),
                None => file.ends_with(".cwasm") || file.ends_with(".cwasm.unfinished"),
            };
            // One that stays now goes another time.
            if useless && self.store.dir.remove_file(&file).is_ok() {
                tracing::debug!(file, "a compiled policy of no use is removed");
            }
        }
    }

    /// Under another name first, so that nobody reads half a file.
    fn write(&self, file: &str, bytes: &[u8]) -> std::io::Result<()> {
        let number = self.begun.fetch_add(1, Relaxed);
        let unfinished = format!("{number}-{file}.unfinished");
        self.store.dir.write(&unfinished, bytes)?;
        self.store.dir.rename(&unfinished, &self.store.dir, file)
    }

    /// Makes the time of use the time of writing.
    fn touch(&self, file: &str, now: SystemTime) -> std::io::Result<()> {
        let mut writing = OpenOptions::new();
        writing.write(true);
        let file = self.store.dir.open_with(file, &writing)?;
        file.into_std().set_modified(now)
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

#[cfg(test)]
mod tests {
    use wasmtime::Config;

    use super::*;

    const COMPONENT: [u8; 32] = [7; 32];
    const USED: &str = "0707070707070707070707070707070707070707070707070707070707070707";

    fn engine(configure: impl Fn(&mut Config)) -> Engine {
        let mut config = crate::sandbox::config();
        configure(&mut config);
        Engine::new(&config).unwrap()
    }

    fn artifacts<'a>(
        dir: &tempfile::TempDir,
        engine: &Engine,
        said: &'a AtomicBool,
    ) -> Artifacts<'a> {
        #[expect(clippy::disallowed_methods, reason = "tests open what they made")]
        let dir = Dir::open_ambient_dir(dir.path(), cap_std::ambient_authority()).unwrap();
        let key = [1; 32];
        Artifacts::new(ArtifactStore { dir, key }, engine, said)
    }

    #[test]
    fn what_was_compiled_for_another_configuration_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let said = AtomicBool::new(false);
        let with_epochs = engine(|config| {
            config.epoch_interruption(true);
        });
        let without = engine(|_| {});
        let (mine, other) = (
            artifacts(&dir, &with_epochs, &said),
            artifacts(&dir, &without, &said),
        );
        let component = wat::parse_str("(component)").unwrap();
        let compiled = Component::from_binary(&without, &component).unwrap();
        other.save(&COMPONENT, &compiled);
        assert!(other.load(&without, &COMPONENT).is_some());
        assert!(mine.load(&with_epochs, &COMPONENT).is_none());

        let (from, to) = (other.file(&COMPONENT), mine.file(&COMPONENT));
        let store = &mine.store.dir;
        store.rename(&from, store, &to).unwrap();
        assert!(
            mine.load(&with_epochs, &COMPONENT).is_none(),
            "its name was believed"
        );
    }

    #[test]
    fn what_is_of_no_use_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let said = AtomicBool::new(false);
        let engine = engine(|_| {});
        let artifacts = artifacts(&dir, &engine, &said);
        let (used, unused) = (artifacts.file(&COMPONENT), artifacts.file(&[8; 32]));
        let other_engine = format!("{USED}-0000000000000000.cwasm");
        let unfinished = format!("7-{used}.unfinished");
        for file in [
            &used,
            &unused,
            &other_engine,
            &unfinished,
            &"notes".to_owned(),
        ] {
            artifacts.store.dir.write(file, "x").unwrap();
        }
        let files = || {
            let entries = artifacts.store.dir.entries().unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        let written = artifacts
            .store
            .dir
            .metadata(&used)
            .unwrap()
            .modified()
            .unwrap();
        let since_epoch = written.into_std().duration_since(UNIX_EPOCH).unwrap();
        let written = Timestamp::from_millis(0).plus(since_epoch);

        artifacts.prune(|sha256| sha256 == USED, written.plus(KEPT / 2));
        let mut kept = vec![used.clone(), unused, "notes".to_owned()];
        kept.sort();
        assert_eq!(files(), kept);
        artifacts.prune(|sha256| sha256 == USED, written.plus(KEPT * 2));
        assert_eq!(files(), [used.clone(), "notes".to_owned()]);
        // From when it was used last, not from when it was made.
        artifacts.prune(|_| false, written.plus(KEPT * 5 / 2));
        assert_eq!(files(), [used, "notes".to_owned()]);
        artifacts.prune(|_| false, written.plus(KEPT * 4));
        assert_eq!(files(), ["notes".to_owned()]);
    }
}
