//! Reading the configuration file, with the environment over it.

use std::io;
use std::path::{Path, PathBuf};

use crate::ambient;
use crate::config::{self, Loaded, Problems, Source};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    /// The file is there, and cannot be read.
    #[error("cannot read the configuration {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// What it says makes no sense.
    #[error(transparent)]
    Wrong(Problems),
}

/// The configuration as it is now, and whether there is a file of it.
///
/// # Errors
/// When the file cannot be read, and everything that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<(Loaded, bool), ConfigFileError> {
    let text = match ambient::read_text(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let path = path.to_owned();
            return Err(ConfigFileError::Unreadable { path, error });
        }
    };
    let source = Source {
        name: &path.display().to_string(),
        text: text.as_deref(),
    };
    let loaded = config::load(source, &ambient::environment());
    loaded
        .map(|loaded| (loaded, text.is_some()))
        .map_err(ConfigFileError::Wrong)
}
