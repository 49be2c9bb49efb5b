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
