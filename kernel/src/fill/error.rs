//! Why memory could not be filled, checked, pinned or freed.

use crate::memory::mm;
use crate::task::SpawnError;
use crate::vm::PinError;
use mm::Errno;
use mm::alloc::request::AllocError;
use mm::inject::Injected;
use mm::machine::tasks::Stop;
use mm::plural::Plural;
use thiserror::Error;

/// Why the memory could not be had; what was taken has been given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TakeError {
    #[error("only {} could be had", Plural(*taken, "page"))]
    TooLittle { taken: u64 },
    #[error("only {} could be had with their page tables", Plural(*taken, "page"))]
    NoTable { taken: u64 },
    #[error("only {taken} pages could be had beside what is left for the kernel")]
    KernelShort { taken: u64 },
    #[error("no writer can be started: {0}")]
    NoWriter(SpawnError),
    #[error("{0}")]
    Injected(Injected),
    #[error("{0}")]
    Stopped(Stop),
}

impl TakeError {
    /// After `taken` pages there was no other; if it might lie anywhere, there may be some that are left for the kernel.
    pub(super) fn no_frame(taken: u64, error: AllocError, is_anywhere: bool) -> Self {
        match error {
            AllocError::OutOfMemory if is_anywhere && mm().is_kernel_short() => Self::KernelShort { taken },
            AllocError::OutOfMemory => Self::TooLittle { taken },
            AllocError::Injected(injected) => Self::Injected(injected),
        }
    }

    /// After `taken` pages there was no page table for another.
    pub(super) fn no_table(taken: u64, error: AllocError) -> Self {
        match error {
            AllocError::OutOfMemory => Self::NoTable { taken },
            AllocError::Injected(injected) => Self::Injected(injected),
        }
    }

    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::TooLittle { .. }
            | Self::NoTable { .. }
            | Self::KernelShort { .. }
            | Self::NoWriter(SpawnError::NoStack) => Errno::NoMemory,
            Self::NoWriter(SpawnError::NoSlot) => Errno::Again,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// Why a fill could not be said to be as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CheckError {
    #[error("page {page} is not what was written, at address {address:#x}")]
    Wrong { page: u64, address: u64 },
    #[error("{0}")]
    Stopped(Stop),
}

/// Why pages are pinned as they were before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PinFailure {
    #[error("memory of the kernel never moves, so it is not pinned")]
    Kernel,
    #[error("there is no page {page}, only {count} of them")]
    NoPage { page: u64, count: u64 },
    #[error("page {page} is not pinned")]
    NotPinned { page: u64 },
    #[error("page {page}: {error}")]
    Refused { page: u64, error: PinError },
    #[error("{0}")]
    Stopped(Stop),
}

impl PinFailure {
    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Kernel | Self::NotPinned { .. } => Errno::Invalid,
            Self::NoPage { .. } => Errno::NoEntry,
            Self::Refused { error, .. } => error.errno(),
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// Why a fill is still there, or was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum FreeError {
    #[error("it is gone")]
    Gone,
    #[error("it is pinned")]
    Pinned,
}
