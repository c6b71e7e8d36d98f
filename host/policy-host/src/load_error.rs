//! Why policies could not be loaded: everything at once, each with the policy's name.

use std::fmt;

use domain::Hook;
use engine::ReloadProblem;

use crate::failure::Failure;
use crate::trust::SignatureProblem;

/// Everything that keeps policies from being loaded, one problem a line.
#[derive(Debug)]
pub struct LoadErrors(pub(crate) Vec<LoadError>);

impl LoadErrors {
    /// Problems that are about the configuration as a whole.
    pub(crate) fn of_all(problems: Vec<LoadProblem>) -> Self {
        let about_all = |problem| LoadError {
            policy: None,
            problem,
        };
        Self(problems.into_iter().map(about_all).collect())
    }

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

/// One thing that is wrong with one policy, or with what all of them share.
#[derive(Debug)]
pub struct LoadError {
    /// The policy's configured name; `None` when it is about the configuration as a whole.
    pub policy: Option<String>,
    /// What is wrong.
    pub problem: LoadProblem,
}

impl LoadError {
    /// As administrators are told.
    pub(crate) fn told(&self) -> ReloadProblem {
        ReloadProblem {
            policy: self.policy.clone(),
            step: self.problem.step().as_str(),
            message: self.problem.to_string(),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.policy {
            Some(policy) => write!(f, "policy \"{policy}\": {}", self.problem),
            None => write!(f, "policies: {}", self.problem),
        }
    }
}

impl std::error::Error for LoadError {}

/// The steps of loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStep {
    /// What the configuration says makes sense.
    Configuration,
    /// The file is the one that was meant.
    Verify,
    /// It becomes machine code.
    Compile,
    /// What it imports was granted, and what it exports is the contract's.
    Imports,
    /// It can work with its settings.
    Settings,
    /// It answers about sample jobs.
    Probe,
}

impl LoadStep {
    /// Its name, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Verify => "verify",
            Self::Compile => "compile",
            Self::Imports => "imports",
            Self::Settings => "settings",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for LoadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
    #[error("no directory of components is configured")]
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
    /// There is something wrong with its signature.
    #[error("signature {file}: {problem}")]
    Signature {
        /// The signature's file, below the policies' directory.
        file: String,
        /// What is wrong with it.
        problem: SignatureProblem,
    },
    /// What the configuration calls a trusted key is none.
    #[error("trusted_keys: {0} is no public key of minisign")]
    TrustedKey(String),
    /// Signatures are demanded, and nobody's would count.
    #[error("require_signature: there are no trusted_keys that could have signed")]
    NoTrustedKey,
    /// Something that it was granted cannot be had.
    #[error("grants: {0}")]
    Grant(String),
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
    /// It failed at a sample job.
    #[error("{hook}, asked about {sample}: {failure}")]
    Probe {
        /// The hook.
        hook: Hook,
        /// What it was asked about.
        sample: &'static str,
        /// How it failed.
        failure: String,
    },
    /// There is no sandbox to run it in.
    #[error("{0}")]
    Sandbox(String),
}

impl LoadProblem {
    /// Where on the way it was found.
    #[must_use]
    pub fn step(&self) -> LoadStep {
        match self {
            Self::Name(_)
            | Self::Limit(_)
            | Self::NoDirectory
            | Self::PinForm
            | Self::TrustedKey(_)
            | Self::NoTrustedKey
            | Self::Grant(_) => LoadStep::Configuration,
            Self::Read { .. }
            | Self::TooLarge { .. }
            | Self::Pin { .. }
            | Self::Signature { .. }
            | Self::NotComponent { .. } => LoadStep::Verify,
            Self::Compile(_) | Self::Sandbox(_) => LoadStep::Compile,
            Self::OtherVersion { .. }
            | Self::UnknownExport(_)
            | Self::NoHook
            | Self::UncoveredImport(_)
            | Self::Imports(_)
            | Self::Export { .. } => LoadStep::Imports,
            Self::SettingsCheck(_) | Self::Setting { .. } => LoadStep::Settings,
            Self::Probe { .. } => LoadStep::Probe,
        }
    }
}

impl From<Failure> for LoadProblem {
    fn from(failure: Failure) -> Self {
        Self::SettingsCheck(failure.to_string())
    }
}
