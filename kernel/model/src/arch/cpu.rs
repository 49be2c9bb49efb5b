//! CPUs. Every flow of control knows on which one it runs.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::thread::Thread;
use std::sync::Mutex;

pub(crate) const CPUS_MAX: usize = 8;

/// What one CPU is up to. Nobody else looks at it but for interrupts, so looking lets nobody else run.
pub(super) struct Cpu {
    pub(super) irqs_on: AtomicBool,
    pub(super) critical_depth: AtomicUsize,
    pub(super) irqs_were_on: AtomicBool,
    /// Interrupts that it has not taken, one bit each vector.
    pub(super) pending: AtomicUsize,
    /// The flow that sleeps until there are some.
    pub(super) halted: Mutex<Option<Thread>>,
    current_task: AtomicUsize,
    online: crate::shim::atomic::AtomicBool,
}

pub(super) static CPUS: [Cpu; CPUS_MAX] = [const {
    Cpu {
        irqs_on: AtomicBool::new(false),
        critical_depth: AtomicUsize::new(0),
        irqs_were_on: AtomicBool::new(false),
        pending: AtomicUsize::new(0),
        halted: Mutex::new(None),
        current_task: AtomicUsize::new(0),
        online: crate::shim::atomic::AtomicBool::new(false),
    }
}; CPUS_MAX];

shuttle::thread_local! {
    static ID: Cell<usize> = Cell::new(0);
}

impl Cpu {
    /// Its number on the interrupt bus, which is the same.
    pub(super) fn apic_id(&self) -> u32 {
        let first = CPUS.as_ptr().addr();
        ((core::ptr::from_ref(self).addr() - first) / size_of::<Self>()) as u32
    }
}

/// From now on this flow runs on that CPU.
pub(crate) fn adopt(id: usize) {
    ID.with(|own| own.set(id));
}

pub(crate) fn cpu_id() -> usize {
    ID.with(Cell::get)
}

pub(super) fn this() -> &'static Cpu {
    &CPUS[cpu_id()]
}

pub(super) fn set_online() {
    this().online.store(true, SeqCst);
}

pub(super) fn online() -> impl Iterator<Item = (usize, &'static Cpu)> {
    CPUS.iter().enumerate().filter(|(_, cpu)| cpu.online.load(SeqCst))
}

pub(crate) fn online_cpus() -> impl Iterator<Item = usize> {
    online().map(|(id, _)| id)
}

pub(crate) fn current_task() -> usize {
    this().current_task.load(SeqCst)
}

pub(crate) fn set_current_task(id: usize) {
    this().current_task.store(id, SeqCst);
}
