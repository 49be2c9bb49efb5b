//! The seam to the device that makes memory accessible which is known, but not there before it goes online.

use crate::addr::SectionRange;
use crate::errno::Errno;
use crate::machine::tasks::{Pace, Stop};

/// Why the host does not back memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackingError {
    /// It refuses: the guest has as much as it may have.
    #[error("the host does not back more memory")]
    Refused,
    /// It is busy at this moment.
    #[error("the host is busy")]
    Busy,
    /// The request failed.
    #[error("the host failed to back the memory")]
    Failed,
    /// The request was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl BackingError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Refused => Errno::NoMemory,
            Self::Busy => Errno::Busy,
            Self::Failed => Errno::Io,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// Makes memory of a group accessible, a unit at a time: standby memory, whose blocks are known long before they may be touched.
///
/// # Invariants
/// - Calls about one unit never overlap: they are made by the task that holds its range. Calls about different units may.
/// - No spin lock is held. No listener is being called.
/// - Until [`back`](Self::back) has returned `Ok`, and from the call of [`release`](Self::release) on, no byte of the unit is
///   touched: neither its frames nor its struct pages nor the page tables at its head.
/// - `release` is called once for each successful `back`, after everything of the unit has been unmapped.
pub trait Backing: Sync {
    /// Asks the host to make `unit` accessible. Blocks the task.
    ///
    /// # Errors
    /// See [`BackingError`]; nothing has changed then.
    fn back(&self, unit: SectionRange, pace: &mut dyn Pace) -> Result<(), BackingError>;

    /// Gives `unit` back, whose contents are lost. What the host refuses to take stays backed, unused, and is offered again
    /// by the implementation, before a later [`back`](Self::back) of it at the latest.
    fn release(&self, unit: SectionRange);
}
