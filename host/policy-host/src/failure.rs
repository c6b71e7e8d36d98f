//! How asking a policy can fail, each way told apart from the others.

use std::time::Duration;

use domain::DecisionOutcome;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

/// Why a policy gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("trapped: {0}")]
    Trap(String),
    #[error("took longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("wanted more than {0} bytes of memory")]
    Memory(u64),
    #[error("wanted more than {0} table elements")]
    Table(u32),
    #[error("ran out of stack")]
    Stack,
    #[error("called the host more than {0} times")]
    HostCalls(u32),
    #[error("held too many handles of the host at once")]
    Handles,
    #[error("{what} has {bytes} bytes, more than {limit}")]
    OutputTooLarge {
        what: &'static str,
        bytes: usize,
        limit: usize,
    },
    #[error("passed what makes no sense: {0}")]
    OutputMalformed(String),
    #[error("ended its program with exit code {0}")]
    Exit(i32),
    #[error("could not be instantiated: {0}")]
    Load(String),
    #[error("could not be instantiated: too many decisions are under way")]
    Full,
    #[error("is in quarantine and was not asked")]
    Quarantined,
}

impl Failure {
    pub(crate) fn outcome(&self) -> DecisionOutcome {
        match self {
            Self::Trap(_) => DecisionOutcome::Trap,
            Self::Timeout(_) => DecisionOutcome::Timeout,
            Self::Memory(_) => DecisionOutcome::Memory,
            Self::Table(_) => DecisionOutcome::Table,
            Self::Stack => DecisionOutcome::Stack,
            Self::HostCalls(_) | Self::Handles => DecisionOutcome::HostCalls,
            Self::OutputTooLarge { .. } => DecisionOutcome::OutputTooLarge,
            Self::OutputMalformed(_) => DecisionOutcome::OutputMalformed,
            Self::Exit(_) => DecisionOutcome::Exit,
            Self::Load(_) | Self::Full => DecisionOutcome::Load,
            Self::Quarantined => DecisionOutcome::Quarantined,
        }
    }

    /// Whether it tells anything about the policy.
    pub(crate) fn is_the_policys(&self) -> bool {
        !matches!(self, Self::Full)
    }

    /// What an error of the engine means, once there is an instance. One that is neither a trap nor
    /// the host's own is about what passed between the two: pointers, lengths, cases, handles.
    pub(crate) fn of_call(error: &wasmtime::Error) -> Self {
        Self::known(error).unwrap_or_else(|| Self::OutputMalformed(error.root_cause().to_string()))
    }

    /// What an error of the engine means while there is no instance yet.
    pub(crate) fn of_instantiation(error: &wasmtime::Error) -> Self {
        Self::known(error).unwrap_or_else(|| Self::Load(error.root_cause().to_string()))
    }

    /// By type, never by text: the host's own failures, exits, and the traps that have a meaning.
    fn known(error: &wasmtime::Error) -> Option<Self> {
        if let Some(own) = error.downcast_ref::<Self>() {
            return Some(own.clone());
        }
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Some(Self::Exit(exit.0));
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Some(Self::Full);
        }
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return Some(Self::Handles);
        }
        if error.is::<std::str::Utf8Error>() || error.is::<std::string::FromUtf8Error>() {
            return Some(Self::OutputMalformed("a text that is not UTF-8".to_owned()));
        }
        Some(match error.downcast_ref::<Trap>()? {
            Trap::StackOverflow => Self::Stack,
            trap @ (Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::UnalignedPointer
            | Trap::InvalidDiscriminant
            | Trap::InvalidChar) => Self::OutputMalformed(trap.to_string()),
            trap => Self::Trap(trap.to_string()),
        })
    }
}
