//! Interrupts off and on again, nested.
//!
//! Each CPU counts how many critical sections it is in. The first one remembers whether interrupts were on, the last
//! one restores that. On the host, where tests run, the flag is not ours and nothing happens.

use super::cpu;
use core::marker::PhantomData;

/// Interrupts stay off on this CPU while this lives.
#[must_use = "interrupts are on again as soon as this is dropped"]
pub(crate) struct IrqOff {
    /// Not `Send`: the count belongs to the CPU that took it.
    cpu_bound: PhantomData<*mut ()>,
}

/// Turns interrupts off until the value is dropped.
pub(crate) fn irq_off() -> IrqOff {
    push_off();
    IrqOff { cpu_bound: PhantomData }
}

impl Drop for IrqOff {
    fn drop(&mut self) {
        pop_off();
    }
}

/// Runs `critical` with interrupts off.
pub(crate) fn without_interrupts<R>(critical: impl FnOnce() -> R) -> R {
    let _off = irq_off();
    critical()
}

/// Enters a critical section; every call needs its `pop_off`. Prefer `irq_off`.
pub(crate) fn push_off() {
    let were_on = flag::disable();
    cpu::enter_critical(were_on);
}

/// Leaves a critical section.
pub(crate) fn pop_off() {
    if cpu::leave_critical() {
        flag::enable();
    }
}

/// Whether the caller may give up the CPU: outside of critical sections and interrupt handlers.
pub(crate) fn may_block() -> bool {
    flag::is_on()
}

/// Leaves the outermost critical section and sleeps until an interrupt arrives, without a gap between the two.
pub(crate) fn pop_off_and_halt() {
    cpu::leave_critical();
    flag::enable_and_halt();
}

/// Turns interrupts on for the first time on this CPU, once there are handlers for them.
pub(crate) fn enable() {
    flag::enable();
}

/// The end of this CPU's work.
pub(crate) fn halt_forever() -> ! {
    flag::disable();
    loop {
        flag::halt();
    }
}

#[cfg(not(test))]
mod flag {
    use x86_64::instructions::interrupts;

    pub(super) fn disable() -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    pub(super) fn enable() {
        interrupts::enable();
    }

    pub(super) fn is_on() -> bool {
        interrupts::are_enabled()
    }

    pub(super) fn enable_and_halt() {
        interrupts::enable_and_hlt();
    }

    pub(super) fn halt() {
        x86_64::instructions::hlt();
    }
}

/// On the host there are threads instead of interrupts.
#[cfg(test)]
mod flag {
    pub(super) fn disable() -> bool {
        false
    }

    pub(super) fn enable() {}

    pub(super) fn is_on() -> bool {
        !super::cpu::in_critical_section()
    }

    pub(super) fn enable_and_halt() {
        std::thread::yield_now();
    }

    pub(super) fn halt() {
        std::thread::yield_now();
    }
}
