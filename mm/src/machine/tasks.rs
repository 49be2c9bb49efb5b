//! The seam to tasks and time: the clock, and the pauses of long operations.

use crate::errno::Errno;

/// A clock that never goes back.
pub trait Clock {
    /// Nanoseconds since some moment before the first call.
    fn now_ns(&self) -> u64;
}

/// Called between the bounded steps of a long operation, with no spin lock held.
pub trait Pace {
    /// May let others run; says whether to go on.
    ///
    /// # Errors
    /// The operation shall stop, for the reason given.
    fn pause(&mut self) -> Result<(), Stop>;
}

/// Why a long operation is told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stop {
    /// Somebody cancelled it.
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
