//! Where things are: the checkout, its target directory, and a short directory for sockets.

use std::env;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The directories of one checkout.
pub(crate) struct Layout {
    root: PathBuf,
    target: PathBuf,
}

impl Layout {
    /// The checkout that this program was built from.
    pub(crate) fn of_this_checkout() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask has no parent directory")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(given) => root.join(given),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The top of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below cargo's target directory.
    pub(crate) fn target(&self, below: impl AsRef<Path>) -> PathBuf {
        self.target.join(below)
    }

    /// A directory below target, made if it is not there.
    pub(crate) fn target_dir(&self, below: impl AsRef<Path>) -> Result<PathBuf> {
        make_dir(self.target(below))
    }

    /// Eight hexadecimal digits that stand for this checkout in names that others can see.
    pub(crate) fn key(&self) -> String {
        self.key_bytes().map(|byte| format!("{byte:02x}")).concat()
    }

    /// The same as bytes.
    pub(crate) fn key_bytes(&self) -> [u8; 4] {
        let mut hasher = DefaultHasher::new();
        self.root.hash(&mut hasher);
        (hasher.finish() as u32).to_be_bytes()
    }

    /// Where sockets live. A Unix socket's path has at most 107 bytes and a checkout may lie deep, so
    /// this is not below target.
    pub(crate) fn sockets(&self) -> PathBuf {
        let parent = if host_is_root() {
            PathBuf::from("/run")
        } else {
            env::temp_dir()
        };
        parent.join(format!("offloader-{}", self.key()))
    }

    /// Holds the checkout for one run; released when the file is dropped, also by a crash.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = make_dir(self.target.clone())?.join("xtask.lock");
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another `cargo xtask` is running in this checkout (it holds {})",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
    }
}

/// Creates a directory and its parents.
pub(crate) fn make_dir(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    Ok(path)
}

/// Whether this process may do what only root may.
pub(crate) fn host_is_root() -> bool {
    rustix::process::geteuid().is_root()
}
