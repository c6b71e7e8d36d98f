//! The state directory: what the service keeps of itself beside its store.
//!
//! It may be the directory of the standard service's store; nothing there but our own files, which
//! are called `offloader…`, is ever touched.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};
use domain::{InstanceId, JobId};
use policy_host::ArtifactStore;

use crate::ambient;

const INSTANCE: &str = "offloader-instance";
const ARTIFACTS: &str = "offloader-artifacts";
const JOBS: &str = "offloader-jobs";
const ARTIFACTS_KEY: &str = "offloader-artifacts.key";
const STORE: &str = "offloader.db";
/// Characters of a made-up instance id.
const INSTANCE_LEN: usize = 8;

/// The file of the store in a state directory, for those who only look at it.
pub(crate) fn store_in(directory: &Path) -> PathBuf {
    directory.join(STORE)
}

/// The state directory.
pub(crate) struct StateDir {
    path: PathBuf,
    dir: Dir,
}

impl StateDir {
    /// Opens the directory, making it if it is missing.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let dir = ambient::make_dir(path)
            .with_context(|| format!("cannot use the state directory {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            dir,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the store.
    pub(crate) fn store(&self) -> PathBuf {
        store_in(&self.path)
    }

    /// Whether the standard service has, or had, its store here.
    pub(crate) fn has_standard_store(&self) -> bool {
        self.dir.is_file("000000000.data")
    }

    /// The name of this installation: made up once, and kept.
    pub(crate) fn instance(&self) -> anyhow::Result<InstanceId> {
        let made_up = |random: [u8; JobId::LEN]| {
            JobId::from_random(random).as_str()[..INSTANCE_LEN].to_owned()
        };
        let text = self.kept(INSTANCE, |random| made_up(random).into_bytes())?;
        let text = String::from_utf8(text).unwrap_or_default();
        let instance = text.trim().parse();
        instance.with_context(|| {
            format!(
                "{} holds no instance id",
                self.path.join(INSTANCE).display()
            )
        })
    }

    /// Where jobs that run inside this service have their data and output.
    pub(crate) fn jobs(&self) -> anyhow::Result<Dir> {
        self.private(JOBS)
    }

    /// Where compiled policies are kept.
    pub(crate) fn artifacts(&self) -> anyhow::Result<ArtifactStore> {
        let dir = self.private(ARTIFACTS)?;
        let key = self.kept(ARTIFACTS_KEY, |random: [u8; 32]| random.to_vec())?;
        let key = key.try_into().ok();
        let key = key.with_context(|| {
            format!(
                "{} holds no key of 32 bytes",
                self.path.join(ARTIFACTS_KEY).display()
            )
        })?;
        Ok(ArtifactStore { dir, key })
    }

    /// A directory of this service's own, made when it is missing.
    fn private(&self, name: &str) -> anyhow::Result<Dir> {
        let path = self.path.join(name);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        match self.dir.create_dir_with(name, &private) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", path.display()));
            }
            _ => {}
        }
        self.dir
            .open_dir(name)
            .with_context(|| format!("cannot open {}", path.display()))
    }

    /// The bytes of a file that is made of random bytes when it is missing.
    fn kept<const N: usize>(
        &self,
        name: &str,
        make: impl FnOnce([u8; N]) -> Vec<u8>,
    ) -> anyhow::Result<Vec<u8>> {
        let path = self.path.join(name);
        match self.dir.open(name) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut random = [0; N];
                getrandom::fill(&mut random).context("the system gave no random bytes")?;
                let bytes = make(random);
                self.keep(name, &bytes)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(bytes)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a file whole or not at all.
    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = self.dir.open_with(&new, &options)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.dir.rename(&new, &self.dir, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_stays() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let state = StateDir::open(&path).unwrap();
        let instance = state.instance().unwrap();
        assert_eq!(instance.as_str().len(), INSTANCE_LEN);
        let key = state.artifacts().unwrap().key;
        let again = StateDir::open(&path).unwrap();
        assert_eq!(again.instance().unwrap(), instance);
        assert_eq!(again.artifacts().unwrap().key, key);
        assert_ne!(
            StateDir::open(temp.path()).unwrap().instance().unwrap(),
            instance
        );
    }

    #[test]
    fn files_of_the_standard_service_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let theirs = StateDir::open(temp.path()).unwrap();
        for name in ["000000000.data", "config.json", "lock"] {
            theirs.keep(name, b"theirs").unwrap();
        }
        let state = StateDir::open(temp.path()).unwrap();
        assert!(state.has_standard_store());
        state.instance().unwrap();
        state.artifacts().unwrap();
        for name in ["000000000.data", "config.json", "lock"] {
            assert_eq!(state.dir.read(name).unwrap(), b"theirs");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(temp.path()).unwrap();
        state.keep(ARTIFACTS_KEY, b"short").unwrap();
        assert!(state.artifacts().is_err());
        state.keep(INSTANCE, b"Not One").unwrap();
        let error = format!("{:#}", state.instance().unwrap_err());
        assert!(error.contains("holds no instance id"), "{error}");
        assert_eq!(state.dir.read(INSTANCE).unwrap(), b"Not One");
    }
}
