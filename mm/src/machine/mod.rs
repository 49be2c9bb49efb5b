//! The seams: what the memory subsystem asks of the machine it runs on.
//!
//! The kernel implements them with page tables and a clock; tests implement them with tables and a counter. Each states under
//! *Invariants* what its callers keep, what its implementors keep, and which locks may be held.

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
///
/// # Invariants
/// 1. *Readers.* Looking at struct pages without a lock is a read-side critical section, [`reading`](Self::reading), in which
///    nothing blocks or spins. A section is closed in this order: its word says so;
///    [`wait_for_readers`](Self::wait_for_readers), a grace period; its memmap is unmapped;
///    [`settle_memmaps`](Mapper::settle_memmaps), a TLB shootdown; its frames are used for something else.
/// 2. *Blocking.* [`wait`](Self::wait) and [`rest`](Self::rest) block the task, which holds at most the range of its
///    operation and no spin lock. `wait_for_readers` may wait for other CPUs, and is called with no spin lock held. No other
///    method of this trait blocks.
/// 3. *Wakeups.* [`wake_keeper`](Self::wake_keeper) and [`wake_waiters`](Self::wake_waiters) may be called too often, and are
///    never lost: a waiter that finds its condition false sees every later wakeup.
pub trait Machine: Memmap + Trial + Mapper + Mover + Clock + Sync + 'static {
    /// A spin lock, held for bounded work, also where an interrupt may come: interrupts are off on this CPU while it is held.
    type Spin: lock_api::RawMutex + Sync + Send;
    /// Held while zones are chosen; waiting for it blocks the task.
    type Sleep: lock_api::RawMutex + Sync + Send;

    /// A read-side critical section: keeps struct pages mapped while they are looked at.
    type Reading<'a>;

    /// Begins a read-side critical section: the struct pages of a section that is open at any moment in it stay mapped until
    /// it is dropped. Writes nothing that other CPUs read.
    fn reading(&self) -> Self::Reading<'_>;

    /// Returns when every read-side critical section has ended that had begun before the call: a grace period. Struct pages
    /// of sections that were closed before the call are not looked at any more.
    fn wait_for_readers(&self);

    /// Returns the number of this CPU, below the number of CPUs that the machine was booted with. The caller may have been
    /// moved to another one by the time it uses the answer, unless something keeps it on its CPU.
    fn cpu(&self) -> usize;

    /// Asks that [`Memory::housekeep`](crate::Memory::housekeep) be called soon. May be called with any lock held.
    fn wake_keeper(&self);

    /// Blocks the task until `is_over` returns true. That takes a spin lock and nothing more, and is called again after each
    /// [`wake_waiters`](Self::wake_waiters). May return early, and does so several times a second, so that the caller can
    /// be told to stop.
    fn wait(&self, is_over: &mut dyn FnMut() -> bool);

    /// Waits some milliseconds, for something that has no event of its own. May be called where [`wait`](Self::wait) may.
    fn rest(&self) {
        self.wait(&mut || false);
    }

    /// Wakes all tasks in [`wait`](Self::wait) to look again. Called with no spin lock held.
    fn wake_waiters(&self);
}
