//! x86_64: one file per concept, gathered here under the names that the kernel uses.

mod apic;
mod backtrace;
mod context;
mod cpu;
mod debug_exit;
mod gdt;
mod hpet;
mod idt;
pub(crate) mod interrupts;
mod ipi;
mod irq;
mod listeners;
mod madt;
mod nmi;
mod panicking;
mod pic;
mod pit;
pub(crate) mod ports;
mod register;
mod root;
pub(crate) mod smp;
mod stop_machine;
pub(crate) mod timer;
mod tlb;
mod trampoline;
mod traps;
mod tsc;

pub(crate) use backtrace::{Frames, current_frames};
pub(crate) use context::{Context, begin_flow, switch};
pub(crate) use cpu::{
    CPUS_MAX, CpuReport, cpu_id, cpu_of, cpu_reports, cpus_called, current_task, online_cpus, set_current_stack,
    set_current_task, ticks_of_others, worst_irqs_off,
};
pub(crate) use debug_exit::debug_exit;
pub(crate) use hpet::Hpet;
pub(crate) use ipi::{flush_tlb_everywhere, kick, wait_for_grace_period};
pub(crate) use irq::{
    IrqOff, enable as enable_interrupts, halt_forever, irq_off, may_block, pop_off, pop_off_and_halt, push_off,
};
pub(crate) use listeners::{Heard, Listener, Listening, Message, listen, listen_on_line, listen_to_message};
pub(crate) use madt::{CpuInfo, GsiMode, IoApicInfo, IsaOverride, MadtInfo, Polarity, Trigger};
pub(crate) use nmi::{CpuTrace, ask_where, stop_here, stop_others, trace_of};
pub(crate) use panicking::{begin_panic, is_panicking};
pub(crate) use pit::{HZ as PIT_HZ, MASK as PIT_MASK, Pit};
pub(crate) use register::ByteRegister;
pub(crate) use root::{Root, adopt_kernel_root};
pub(crate) use stop_machine::stop_machine;
pub(crate) use tlb::flush_page;
pub(crate) use tsc::{base_rate_by_cpuid, rate_by_cpuid, ticks};

use crate::time;
use ::x86_64::VirtAddr;
use ::x86_64::structures::DescriptorTablePointer;
use core::time::Duration;

/// Makes this CPU able to run the kernel's locks and report its own exceptions.
pub(crate) fn early() {
    cpu::adopt(0);
    gdt::load_on_boot_cpu();
    idt::load();
    pic::mask();
    traps::enable_machine_check();
}

/// A breakpoint exception, which returns; for testing that it does.
pub(crate) fn breakpoint() {
    x86_64::instructions::interrupts::int3();
}

/// Waits without giving up the CPU, for hardware that answers in microseconds or never.
pub(crate) fn busy_wait(duration: Duration) {
    let end = time::deadline_after(duration);
    while time::now_ns() < end {
        core::hint::spin_loop();
    }
}

/// Resets this CPU, and with it a PC, by an exception that cannot be handled.
pub(crate) fn triple_fault() -> ! {
    let nothing = DescriptorTablePointer { limit: 0, base: VirtAddr::zero() };
    // SAFETY: An empty table makes every exception fatal to the machine, which is the purpose.
    unsafe { x86_64::instructions::tables::lidt(&nothing) };
    breakpoint();
    halt_forever()
}
