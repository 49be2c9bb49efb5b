//! What tasks and locks need of a machine.

mod context;
mod cpu;
#[path = "../../../src/arch/x86_64/ipi.rs"]
mod ipi;
mod irq;
pub(crate) mod root;
#[path = "../../../src/arch/x86_64/stop_machine.rs"]
mod stop_machine;
pub(crate) mod tlb;

pub(crate) use context::{Context, begin_flow, switch};
pub(crate) use cpu::{CPUS_MAX, adopt, cpu_id, current_task, online_cpus, set_current_task};
pub(crate) use ipi::{flush_tlb_everywhere, kick, wait_for_grace_period};
pub(crate) use irq::{
    enable as enable_interrupts, interrupt, irq_off, pop_off, pop_off_and_halt, push_off, take_interrupts,
};

pub(crate) use root::Root;
pub(crate) use stop_machine::stop_machine;

use core::time::Duration;

/// The names under which the kernel's own file finds the interrupt controller.
mod interrupts {
    pub(super) use super::irq::{RENDEZVOUS_VECTOR, RESCHEDULE_VECTOR, local_apic};
}

/// What a CPU does when it comes, as in the kernel.
pub(crate) fn arrive() {
    cpu::set_online();
    ipi::on_arrival();
    tlb::start_using();
}

pub(crate) fn set_current_stack(_bottom: usize, _top: usize) {}

pub(crate) fn busy_wait(_duration: Duration) {
    crate::shim::hint::spin_loop();
}
