//! Per-CPU data, found through the GS base.
//!
//! Every CPU owns one `Cpu`. Its fields are atomics written by that CPU only, so that others may read them (for
//! reports) at any moment.
//!
//! A task may be moved to another CPU wherever interrupts are on. So what follows works with interrupts off, but for
//! [`cpu_id`] and [`current_task`], which are one instruction: the first may be out of date at once, the second never is.

use core::mem::offset_of;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use super::tsc;
use crate::time;

/// More CPUs than this stay off.
pub(crate) const CPUS_MAX: usize = 64;

/// How many callers are remembered of whoever kept interrupts off for longest.
pub(crate) const CALLERS_KEPT: usize = 8;

/// What one CPU knows about itself.
#[repr(C, align(128))]
pub(super) struct Cpu {
    /// Address of this value; GS points here, and this is what a read through GS yields.
    this: AtomicUsize,
    id: AtomicUsize,
    apic_id: AtomicU32,
    /// It runs, or was called.
    has_number: AtomicBool,
    critical_depth: AtomicUsize,
    irqs_were_on: AtomicBool,
    critical_since: AtomicU64,
    worst_irqs_off_ticks: AtomicU64,
    /// Who ended that, innermost caller first.
    worst_irqs_off_callers: [AtomicUsize; CALLERS_KEPT],
    current_task: AtomicUsize,
    /// When its tick came last.
    pub(super) ticked_ns: AtomicU64,
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
            has_number: AtomicBool::new(false),
            critical_depth: AtomicUsize::new(0),
            irqs_were_on: AtomicBool::new(false),
            critical_since: AtomicU64::new(0),
            worst_irqs_off_ticks: AtomicU64::new(0),
            worst_irqs_off_callers: [const { AtomicUsize::new(0) }; CALLERS_KEPT],
            current_task: AtomicUsize::new(0),
            ticked_ns: AtomicU64::new(0),
            stack_bottom: AtomicUsize::new(0),
            stack_top: AtomicUsize::new(0),
            emergency_bottom: AtomicUsize::new(0),
            emergency_top: AtomicUsize::new(0),
        }
    }

    /// Its number on the interrupt bus.
    pub(super) fn apic_id(&self) -> u32 {
        self.apic_id.load(Relaxed)
    }

    pub(super) fn set_apic_id(&self, apic_id: u32) {
        self.apic_id.store(apic_id, Relaxed);
        self.has_number.store(true, Relaxed);
    }
}

pub(super) static CPUS: [Cpu; CPUS_MAX] = [const { Cpu::new() }; CPUS_MAX];

/// A bit for each running CPU, so that who waits for all of them need not look at those that there could be.
static ONLINE: AtomicU64 = AtomicU64::new(0);

const _: () = assert!(CPUS_MAX <= u64::BITS as usize, "there is a bit for each CPU");

/// The number of the CPU that runs this, from 0.
pub(crate) fn cpu_id() -> usize {
    own_word::<{ offset_of!(Cpu, id) }>()
}

/// The task that `set_current_task` named last on this CPU; 0 before tasks run.
pub(crate) fn current_task() -> usize {
    own_word::<{ offset_of!(Cpu, current_task) }>()
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
        let mut callers = super::current_frames();
        for caller in &cpu.worst_irqs_off_callers {
            caller.store(callers.next().unwrap_or(0), Relaxed);
        }
    }
}

/// Starts that measurement anew, after work that had to keep them off.
pub(super) fn forget_irqs_off() {
    this().worst_irqs_off_ticks.store(0, Relaxed);
}

/// The longest time, in ticks, that a CPU has its interrupts off during `work`.
pub(crate) fn worst_irqs_off<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let before = CPUS.each_ref().map(|cpu| cpu.worst_irqs_off_ticks.swap(0, Relaxed));
    let result = work();
    let worst = CPUS.iter().map(|cpu| cpu.worst_irqs_off_ticks.load(Relaxed)).max();
    for (cpu, before) in CPUS.iter().zip(before) {
        cpu.worst_irqs_off_ticks.fetch_max(before, Relaxed);
    }
    (result, worst.unwrap_or(0))
}

/// How many CPUs have numbers: those that run, and those that were called and did not come.
pub(crate) fn cpus_called() -> usize {
    CPUS.iter().rposition(|cpu| cpu.has_number.load(Relaxed)).map_or(0, |last| last + 1)
}

/// The number of the CPU that has this one on the interrupt bus.
pub(crate) fn cpu_of(apic_id: u32) -> Option<usize> {
    CPUS.iter().position(|cpu| cpu.has_number.load(Relaxed) && cpu.apic_id() == apic_id)
}

/// The numbers of all running CPUs.
pub(crate) fn online_cpus() -> impl Iterator<Item = usize> {
    online().map(|(id, _)| id)
}

/// When the tick of each other CPU came last.
pub(crate) fn ticks_of_others() -> impl Iterator<Item = (usize, u64)> {
    let own = cpu_id();
    online().filter(move |(id, _)| *id != own).map(|(id, cpu)| (id, cpu.ticked_ns.load(Relaxed)))
}

/// One line of the list of CPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuReport {
    pub(crate) id: usize,
    pub(crate) apic_id: u32,
    pub(crate) worst_irqs_off_ns: u64,
    /// Return addresses of who that was, innermost first; zeros where there are no more.
    pub(crate) worst_irqs_off_callers: [usize; CALLERS_KEPT],
}

/// Every running CPU, by number.
pub(crate) fn cpu_reports() -> impl Iterator<Item = CpuReport> {
    online().map(|(id, cpu)| CpuReport {
        id,
        apic_id: cpu.apic_id(),
        worst_irqs_off_ns: time::ticks_to_ns(cpu.worst_irqs_off_ticks.load(Relaxed)),
        worst_irqs_off_callers: cpu.worst_irqs_off_callers.each_ref().map(|caller| caller.load(Relaxed)),
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

/// Whether this thread is inside a critical section, where nothing may block.
#[cfg(test)]
pub(super) fn in_critical_section() -> bool {
    this().critical_depth.load(Relaxed) > 0
}

/// Gives the CPU that runs this its number and its data.
pub(super) fn adopt(id: usize) {
    let cpu = &CPUS[id];
    cpu.this.store(core::ptr::from_ref(cpu).expose_provenance(), Relaxed);
    cpu.id.store(id, Relaxed);
    x86_64::registers::model_specific::GsBase::write(x86_64::VirtAddr::from_ptr(cpu));
}

/// From now on this CPU counts as running.
pub(super) fn set_online() {
    ONLINE.fetch_or(1 << cpu_id(), SeqCst);
}

/// Whether that CPU runs.
pub(super) fn is_online(id: usize) -> bool {
    ONLINE.load(SeqCst) >> id & 1 != 0
}

/// Every running CPU, by number.
pub(super) fn online() -> impl Iterator<Item = (usize, &'static Cpu)> {
    let mut rest = ONLINE.load(SeqCst);
    core::iter::from_fn(move || {
        // Of an empty set this is a number that no CPU has.
        let id = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        CPUS.get(id).map(|cpu| (id, cpu))
    })
}

/// The word at `OFFSET` of this CPU's data.
#[cfg(not(test))]
fn own_word<const OFFSET: usize>() -> usize {
    let word: usize;
    // SAFETY: As for `this`; the offset is that of a word in `Cpu`.
    unsafe {
        core::arch::asm!(
            "mov {}, gs:[{}]",
            out(reg) word,
            const OFFSET,
            options(nostack, readonly, preserves_flags),
        );
    }
    word
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

#[cfg(test)]
fn own_word<const OFFSET: usize>() -> usize {
    let cpu = this();
    let word = if OFFSET == offset_of!(Cpu, id) { &cpu.id } else { &cpu.current_task };
    word.load(Relaxed)
}

/// On the host every thread counts as a CPU of its own.
#[cfg(test)]
pub(super) fn this() -> &'static Cpu {
    std::thread_local! {
        static CPU: &'static Cpu = Box::leak(Box::new(Cpu::new()));
    }
    CPU.with(|cpu| *cpu)
}
