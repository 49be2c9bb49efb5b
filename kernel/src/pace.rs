//! How long work goes on: others run between its steps, and some of it ends when its task is asked to stop.
#![deny(unsafe_code)]

use crate::{task, time};
use core::time::Duration;
use mm::machine::tasks::{Pace, Stop};

/// How long blocks may take to go offline when nobody says.
pub(crate) const OFFLINE_WITHIN: Duration = Duration::from_secs(30);

/// For what shall not stop half-way: others run, and that is all.
pub(crate) struct SteadyPace;

impl Pace for SteadyPace {
    fn pause(&mut self) -> Result<(), Stop> {
        task::yield_now();
        Ok(())
    }
}

/// Until the task that runs it is cancelled, or its time is over.
pub(crate) struct TaskPace {
    deadline_ns: Option<u64>,
}

impl TaskPace {
    /// As long as it takes.
    pub(crate) const fn untimed() -> Self {
        Self { deadline_ns: None }
    }

    /// Until a moment of the clock.
    pub(crate) fn until(deadline_ns: u64) -> Self {
        Self { deadline_ns: Some(deadline_ns) }
    }
}

impl Pace for TaskPace {
    fn pause(&mut self) -> Result<(), Stop> {
        task::yield_now();
        if task::cancelled() {
            return Err(Stop::Cancelled);
        }
        match self.deadline_ns {
            Some(deadline) if time::now_ns() > deadline => Err(Stop::Deadline),
            _ => Ok(()),
        }
    }
}
