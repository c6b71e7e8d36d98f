//! Why policies could not be loaded: everything at once, each with the policy's name.

use std::fmt;

use crate::failure::Failure;

/// Everything that keeps policies from being loaded, one problem a line.
#[derive(Debug)]
pub struct LoadErrors(pub(crate) Vec<LoadError>);

impl LoadErrors {
    /// The problems, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &LoadError> {
        self.0.iter()
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

/// One thing that is wrong with one policy.
#[derive(Debug, thiserror::Error)]
#[error("policy \"{policy}\": {problem}")]
pub struct LoadError {
    /// The policy's configured name.
    pub policy: String,
    /// What is wrong.
    pub problem: LoadProblem,
}

/// What can be wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadProblem {
    /// Its name is empty, or another policy has it.
    #[error("name: {0}")]
    Name(&'static str),
    /// A limit is out of range.
    #[error("limits: {0}")]
    Limit(String),
    /// There are policies, and no directory to find them in.
    #[error("no directory of policies is configured")]
    NoDirectory,
    /// Its file could not be read.
    #[error("component {file}: {error}")]
    Read {
        /// The file, below the policies' directory.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// Its file is larger than its limit.
    #[error("component {file}: has more than {limit} bytes")]
    TooLarge {
        /// The file, below the policies' directory.
        file: String,
        /// Bytes at most.
        limit: u64,
    },
    /// The configured sha256 is not one.
    #[error("sha256: expected 64 hexadecimal digits")]
    PinForm,
    /// Its file is not the one that the configuration pins.
    #[error("sha256: the file has {found}, the configuration pins {pinned}")]
    Pin {
        /// sha256 of the file, hexadecimal.
        found: String,
        /// What the configuration says.
        pinned: String,
    },
    /// Its file is no WebAssembly component.
    #[error("component {file}: {what}")]
    NotComponent {
        /// The file, below the policies' directory.
        file: String,
        /// What it is instead.
        what: &'static str,
    },
    /// It does not compile.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It was made for another version of the contract.
    #[error("was made for {found}; this service has offloader:policy@{ours}")]
    OtherVersion {
        /// What it imports or exports.
        found: String,
        /// The version of the contract here.
        ours: &'static str,
    },
    /// It exports an interface of the contract's package that the contract does not have.
    #[error("exports {0}, which is not part of the contract")]
    UnknownExport(String),
    /// It exports none of the hooks.
    #[error("exports no hook; a policy exports image-selection, site-url, retry or retention")]
    NoHook,
    /// It imports what it was not granted.
    #[error("imports {0}, which nothing grants")]
    UncoveredImport(String),
    /// What it imports is not what there is.
    #[error("its imports do not fit: {0}")]
    Imports(String),
    /// What it exports is not what the contract says.
    #[error("its export {interface} does not fit: {detail}")]
    Export {
        /// The interface.
        interface: &'static str,
        /// How it differs.
        detail: String,
    },
    /// It failed while its settings were checked, or while it was instantiated for that.
    #[error("settings-check: {0}")]
    SettingsCheck(String),
    /// It cannot work with a setting.
    #[error("settings: {key}: {message}")]
    Setting {
        /// The setting's key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is no sandbox to run it in.
    #[error("{0}")]
    Sandbox(String),
}

impl From<Failure> for LoadProblem {
    fn from(failure: Failure) -> Self {
        Self::SettingsCheck(failure.to_string())
    }
}
