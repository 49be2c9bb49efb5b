//! Per-CPU data, found through the GS base.
//!
//! Every CPU owns one `Cpu`. Its fields are atomics written by that CPU only, so that others may read them (for
//! reports) at any moment.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::tsc;
use crate::time;

/// More CPUs than this stay off.
pub(crate) const CPUS_MAX: usize = 64;

/// What one CPU knows about itself.
#[repr(C, align(128))]
pub(super) struct Cpu {
    /// Address of this value; GS points here, and this is what a read through GS yields.
    this: AtomicUsize,
    id: AtomicUsize,
    pub(super) apic_id: AtomicU32,
    pub(super) online: AtomicBool,
    critical_depth: AtomicUsize,
    irqs_were_on: AtomicBool,
    critical_since: AtomicU64,
    worst_irqs_off_ticks: AtomicU64,
    current_task: AtomicUsize,
    pub(super) stack_bottom: AtomicUsize,
    pub(super) stack_top: AtomicUsize,
    pub(super) emergency_bottom: AtomicUsize,
    pub(super) emergency_top: AtomicUsize,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            this: AtomicUsize::new(0),
            id: AtomicUsize::new(0),
            apic_id: AtomicU32::new(0),
            online: AtomicBool::new(false),
            critical_depth: AtomicUsize::new(0),
            irqs_were_on: AtomicBool::new(false),
            critical_since: AtomicU64::new(0),
            worst_irqs_off_ticks: AtomicU64::new(0),
            current_task: AtomicUsize::new(0),
            stack_bottom: AtomicUsize::new(0),
            stack_top: AtomicUsize::new(0),
            emergency_bottom: AtomicUsize::new(0),
            emergency_top: AtomicUsize::new(0),
        }
    }
}

pub(super) static CPUS: [Cpu; CPUS_MAX] = [const { Cpu::new() }; CPUS_MAX];

/// The number of the CPU that runs this, from 0.
pub(crate) fn cpu_id() -> usize {
    this().id.load(Relaxed)
}

/// The task that `set_current_task` named last on this CPU; 0 before tasks run.
pub(crate) fn current_task() -> usize {
    this().current_task.load(Relaxed)
}

/// Records which task runs on this CPU.
pub(crate) fn set_current_task(id: usize) {
    this().current_task.store(id, Relaxed);
}

/// Records which stack this CPU runs on, for backtraces.
pub(crate) fn set_current_stack(bottom: usize, top: usize) {
    this().stack_bottom.store(bottom, Relaxed);
    this().stack_top.store(top, Relaxed);
}

/// Counts one critical section more; interrupts are off.
pub(super) fn enter_critical(irqs_were_on: bool) {
    let cpu = this();
    let depth = cpu.critical_depth.load(Relaxed);
    if depth == 0 {
        cpu.irqs_were_on.store(irqs_were_on, Relaxed);
        cpu.critical_since.store(tsc::ticks(), Relaxed);
    }
    cpu.critical_depth.store(depth + 1, Relaxed);
}

/// Counts one critical section less; says whether interrupts go on again.
pub(super) fn leave_critical() -> bool {
    let cpu = this();
    let depth = cpu.critical_depth.load(Relaxed);
    assert!(depth > 0, "a critical section was left that nobody entered");
    let turn_on = depth == 1 && cpu.irqs_were_on.load(Relaxed);
    if turn_on {
        note_irqs_off(tsc::ticks().saturating_sub(cpu.critical_since.load(Relaxed)));
    }
    cpu.critical_depth.store(depth - 1, Relaxed);
    turn_on
}

/// Remembers the longest time that this CPU had its interrupts off.
pub(super) fn note_irqs_off(ticks: u64) {
    let cpu = this();
    if ticks > cpu.worst_irqs_off_ticks.load(Relaxed) {
        cpu.worst_irqs_off_ticks.store(ticks, Relaxed);
    }
}

/// Starts that measurement anew, after work that had to keep them off.
pub(super) fn forget_irqs_off() {
    this().worst_irqs_off_ticks.store(0, Relaxed);
}

/// The longest time, in ticks, that this CPU has its interrupts off during `work`, which must not block.
pub(crate) fn worst_irqs_off<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let before = this().worst_irqs_off_ticks.swap(0, Relaxed);
    let result = work();
    let worst = this().worst_irqs_off_ticks.load(Relaxed);
    note_irqs_off(before);
    (result, worst)
}

/// One line of the list of CPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuReport {
    pub(crate) id: usize,
    pub(crate) apic_id: u32,
    pub(crate) online: bool,
    pub(crate) worst_irqs_off_ns: u64,
}

/// Every CPU that has been started, by number.
pub(crate) fn cpu_reports() -> impl Iterator<Item = CpuReport> {
    CPUS.iter().enumerate().filter(|(_, cpu)| cpu.online.load(Relaxed)).map(|(id, cpu)| CpuReport {
        id,
        apic_id: cpu.apic_id.load(Relaxed),
        online: true,
        worst_irqs_off_ns: time::ticks_to_ns(cpu.worst_irqs_off_ticks.load(Relaxed)),
    })
}

/// Before a switch of stacks: what the flow that leaves will do about interrupts when it comes back.
pub(super) fn suspend_critical() -> bool {
    let cpu = this();
    assert_eq!(cpu.critical_depth.load(Relaxed), 1, "a task blocked inside a critical section");
    cpu.irqs_were_on.load(Relaxed)
}

/// After a switch of stacks, possibly on another CPU than before.
pub(super) fn resume_critical(irqs_were_on: bool) {
    this().irqs_were_on.store(irqs_were_on, Relaxed);
}

/// Whether this CPU is inside a critical section, where nothing may block.
pub(super) fn in_critical_section() -> bool {
    this().critical_depth.load(Relaxed) > 0
}

/// Gives the boot CPU its data.
pub(super) fn init_boot_cpu() {
    let cpu = &CPUS[0];
    cpu.this.store(core::ptr::from_ref(cpu).expose_provenance(), Relaxed);
    cpu.online.store(true, Relaxed);
    x86_64::registers::model_specific::GsBase::write(x86_64::VirtAddr::from_ptr(cpu));
}

#[cfg(not(test))]
pub(super) fn this() -> &'static Cpu {
    let address: usize;
    // SAFETY: GS points at this CPU's `Cpu` from the kernel's first line on, and `this` is its first field.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) address, options(nostack, readonly, preserves_flags));
    }
    let cpu: *const Cpu = core::ptr::with_exposed_provenance(address);
    // SAFETY: `this` holds the address of an element of `CPUS`, which lives forever.
    unsafe { &*cpu }
}

/// On the host every thread counts as a CPU of its own.
#[cfg(test)]
pub(super) fn this() -> &'static Cpu {
    std::thread_local! {
        static CPU: &'static Cpu = Box::leak(Box::new(Cpu::new()));
    }
    CPU.with(|cpu| *cpu)
}
