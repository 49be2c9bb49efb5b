//! What a CPU does when there is nothing to do: a task of its own that only looks for others.
#![deny(unsafe_code)]

use super::{TASKS, scheduler, set_name};
use crate::arch;
use crate::memory;

/// The idle task of a CPU that has not come yet. Given up, it leaves nothing.
pub(crate) struct IdleTask {
    slot: usize,
}

/// Makes one; `None` if there is no memory or no slot.
pub(crate) fn prepare_idle() -> Option<IdleTask> {
    let stack = memory::alloc_stack()?;
    let slot = scheduler::claim_slot()?;
    set_name(slot, "idle");
    TASKS[slot].set_stack(stack);
    Some(IdleTask { slot })
}

impl IdleTask {
    /// The stack on which it will run.
    pub(crate) fn stack_top(&self) -> usize {
        TASKS[self.slot].stack_bounds().1
    }

    /// Makes the flow that calls this, on that stack, the idle task of its CPU.
    pub(crate) fn run(self) -> ! {
        let (bottom, top) = TASKS[self.slot].stack_bounds();
        arch::set_current_stack(bottom, top);
        scheduler::adopt_flow(self.slot);
        core::mem::forget(self);
        arch::enable_interrupts();
        scheduler::idle()
    }
}

impl Drop for IdleTask {
    fn drop(&mut self) {
        let stack = TASKS[self.slot].body.lock().stack.take();
        drop(stack);
        scheduler::release_slot(self.slot);
    }
}
