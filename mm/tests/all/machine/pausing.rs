//! Operations that something happens to when they pause.

use mm::machine::tasks::{Pace, Stop};

/// Does something at the n-th pause, and goes on or stops.
pub(crate) struct At<F: FnMut() -> Result<(), Stop>>(pub(crate) u32, pub(crate) F);

impl<F: FnMut() -> Result<(), Stop>> Pace for At<F> {
    fn pause(&mut self) -> Result<(), Stop> {
        self.0 = self.0.wrapping_sub(1);
        if self.0 == 0 { (self.1)() } else { Ok(()) }
    }
}

/// Does something at the first pause that finds it time for it, and goes on or stops.
pub(crate) struct When<C: Fn() -> bool, F: FnOnce() -> Result<(), Stop>>(C, Option<F>);

pub(crate) const fn when<C: Fn() -> bool, F: FnOnce() -> Result<(), Stop>>(is_time: C, work: F) -> When<C, F> {
    When(is_time, Some(work))
}

impl<C: Fn() -> bool, F: FnOnce() -> Result<(), Stop>> Pace for When<C, F> {
    fn pause(&mut self) -> Result<(), Stop> {
        self.1.take_if(|_| (self.0)()).map_or(Ok(()), |work| work())
    }
}
