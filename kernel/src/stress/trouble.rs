//! What can go wrong: refusals, which are answers, and trouble, which is a defect of the kernel.

use super::operation::Operation;
use crate::fill::{PinFailure, TakeError};
use crate::sources::ProbeError;
use crate::task::SpawnError;
use alloc::string::String;
use mm::Errno;
use mm::addr::SectionRange;
use mm::alloc::request::AllocError;
use mm::hotplug::{OfflineError, OnlineError, RemoveError};
use thiserror::Error;

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error(transparent)]
    Pin(#[from] PinFailure),
    #[error(transparent)]
    Alloc(#[from] AllocError),
    #[error(transparent)]
    Online(#[from] OnlineError),
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error(transparent)]
    Remove(#[from] RemoveError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl Refusal {
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Take(error) => error.errno(),
            Self::Pin(error) => error.errno(),
            Self::Alloc(error) => error.errno(),
            Self::Online(error) => error.errno(),
            Self::Offline(error) => error.errno(),
            Self::Remove(error) => error.errno(),
            Self::Probe(error) => error.errno(),
        }
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Trouble {
    #[error("page {page} of a {operation} is not what was written, at address {address:#x}", operation = .operation.name())]
    Content { operation: Operation, page: u64, address: u64 },
    #[error("{operation} was refused with {errno}: {sentence}", operation = .operation.name())]
    Unexpected { operation: Operation, errno: Errno, sentence: String },
    #[error("the recount disagrees: {0}")]
    Recount(String),
    #[error("blocks {first}-{last} cannot be as they were: {why}", first = .range.first(), last = .range.last())]
    NotPutBack { range: SectionRange, why: String },
    #[error("{what} was {before} at the start and is {after}")]
    Total { what: String, before: u64, after: u64 },
}

/// Why there is no report of a run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum StressError {
    #[error("only {} MiB of memory could be used, and {} MiB are needed", .usable >> 20, .needed >> 20)]
    NoMemory { usable: u64, needed: u64 },
    #[error("no worker can be started: {0}")]
    NoTask(SpawnError),
    #[error("cancelled")]
    Cancelled,
    #[error("{trouble} (seed {seed})")]
    Trouble { trouble: Trouble, seed: u64 },
}

impl StressError {
    /// The errno name.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::NoMemory { .. } | Self::NoTask(SpawnError::NoStack) => Errno::NoMemory,
            Self::NoTask(SpawnError::NoSlot) => Errno::Again,
            Self::Cancelled => Errno::Canceled,
            Self::Trouble { .. } => Errno::Io,
        }
    }
}
