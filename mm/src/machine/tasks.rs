//! The seam to tasks and time: the clock, and the pauses of long operations.

use crate::errno::Errno;

/// A clock that never goes back.
///
/// # Invariants
/// May be called with any lock held and on any CPU, so it neither blocks nor takes a lock. What is read later, on whichever
/// CPU, is not earlier.
pub trait Clock {
    /// Returns nanoseconds since some moment before the first call.
    fn now_ns(&self) -> u64;
}

/// Paces a long operation: called between its bounded steps, as a point where it may be scheduled away or told to stop.
///
/// # Invariants
/// 1. *Before.* The calling task holds no lock but the range of its operation. The state between two steps is consistent: other
///    operations may use what they find.
/// 2. *During.* May block, for as long as it likes. Must not begin an operation on memory blocks: the task would wait for its
///    own range. It may allocate and free.
/// 3. *After.* An error makes the operation undo what it did and fail with it, where it can still fail. Behind the point of no
///    return the answer is ignored.
pub trait Pace {
    /// May let other tasks run. Returns `Ok` to go on.
    ///
    /// # Errors
    /// The operation is to stop, for the reason given.
    fn pause(&mut self) -> Result<(), Stop>;
}

/// Why a long operation is told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stop {
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// It ran out of time.
    #[error("out of time")]
    Deadline,
}

impl Stop {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Cancelled => Errno::Canceled,
            Self::Deadline => Errno::TimedOut,
        }
    }
}

/// Never pauses and never stops.
pub struct Unhurried;

impl Pace for Unhurried {
    fn pause(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}
