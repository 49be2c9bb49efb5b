//! The seams: what the memory subsystem asks of the machine it runs on.
//!
//! The kernel implements them with page tables and a clock; tests implement them with tables and a counter.

pub mod backing;
pub mod mapper;
pub mod mover;
pub mod tasks;
pub mod trial;

use crate::frame::memmap::Memmap;
use crate::machine::mapper::Mapper;
use crate::machine::mover::Mover;
use crate::machine::tasks::Clock;
use crate::machine::trial::Trial;

/// Everything together, with the two kinds of lock.
pub trait Machine: Memmap + Trial + Mapper + Mover + Clock + Sync + 'static {
    /// Held for bounded work, also where an interrupt may come.
    type Spin: lock_api::RawMutex + Sync + Send;
    /// Held while zones are chosen; waiting for it blocks the task.
    type Sleep: lock_api::RawMutex + Sync + Send;

    /// What keeps struct pages mapped while somebody looks at them.
    type Reading<'a>;

    /// Lets struct pages be looked at: those of a section that was open at any moment since then stay mapped until the
    /// answer is dropped. Writes nothing that other CPUs read. Nothing may block or spin on a lock meanwhile.
    fn reading(&self) -> Self::Reading<'_>;

    /// Returns when nobody can be looking at struct pages of sections that were closed before the call. Called with no spin
    /// lock held.
    fn wait_for_readers(&self);

    /// Number of the CPU that asks, below the number of CPUs that it was booted with. The caller may be on another one
    /// when it reads the answer, unless something keeps it where it is.
    fn cpu(&self) -> usize;

    /// Asks that [`Memory::keep`](crate::Memory::keep) be called soon. May be called with any lock held.
    fn wake_keeper(&self);

    /// Blocks the task until `is_over` holds, which takes a spin lock and nothing more. It is to be asked again after each
    /// [`wake_waiters`](Self::wake_waiters). May return early, and does so several times a second, so that whoever waits can
    /// be told to stop.
    fn wait(&self, is_over: &mut dyn FnMut() -> bool);

    /// Waits for something that has no event of its own, some milliseconds. May be called where [`wait`](Self::wait) may.
    fn rest(&self) {
        self.wait(&mut || false);
    }

    /// What somebody waits for may be over. Called with no lock held.
    fn wake_waiters(&self);
}
