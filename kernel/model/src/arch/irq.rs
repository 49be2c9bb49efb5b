//! Interrupts: taken where they are on and the flow lets others run.

use super::cpu::{CPUS, this};
use super::ipi;
use crate::shim::atomic::AtomicUsize;
use crate::task;
use core::sync::atomic::Ordering::SeqCst;
use shuttle::thread;

pub(super) const RENDEZVOUS_VECTOR: u8 = 0;
pub(super) const RESCHEDULE_VECTOR: u8 = 1;

/// Looked at where others may run.
static TURN: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct IrqOff(());

pub(crate) fn irq_off() -> IrqOff {
    push_off();
    IrqOff(())
}

impl Drop for IrqOff {
    fn drop(&mut self) {
        pop_off();
    }
}

pub(crate) fn push_off() {
    take_interrupts();
    TURN.load(SeqCst);
    let were_on = this().irqs_on.swap(false, SeqCst);
    if this().critical_depth.fetch_add(1, SeqCst) == 0 {
        this().irqs_were_on.store(were_on, SeqCst);
    }
}

pub(crate) fn pop_off() {
    TURN.load(SeqCst);
    if leave_critical() {
        enable();
    }
}

fn leave_critical() -> bool {
    let depth = this().critical_depth.fetch_sub(1, SeqCst);
    assert!(depth > 0, "a critical section was left that nobody entered");
    depth == 1 && this().irqs_were_on.load(SeqCst)
}

pub(crate) fn pop_off_and_halt() {
    assert!(leave_critical(), "nobody can wake this CPU");
    while this().pending.load(SeqCst) == 0 {
        *this().halted.lock().expect("nobody panics") = Some(thread::current());
        thread::park();
    }
    enable();
}

pub(crate) fn may_block() -> bool {
    this().irqs_on.load(SeqCst)
}

pub(crate) fn enable() {
    this().irqs_on.store(true, SeqCst);
    take_interrupts();
}

/// Handles the interrupts that have come, if they are on. Afterwards the flow may be on another CPU.
pub(crate) fn take_interrupts() {
    while this().irqs_on.load(SeqCst) {
        let pending = this().pending.swap(0, SeqCst);
        if pending == 0 {
            break;
        }
        this().irqs_on.store(false, SeqCst);
        if pending & 1 << RENDEZVOUS_VECTOR != 0 {
            ipi::on_rendezvous();
        }
        if pending & 1 << RESCHEDULE_VECTOR != 0 {
            task::preempt();
        }
        this().irqs_on.store(true, SeqCst);
    }
}

/// A device interrupts a CPU.
pub(crate) fn interrupt(cpu: usize) {
    TURN.load(SeqCst);
    local_apic().send(cpu as u32, RESCHEDULE_VECTOR);
}

pub(super) struct LocalApic;

pub(super) fn local_apic() -> LocalApic {
    LocalApic
}

impl LocalApic {
    pub(super) fn send(&self, apic_id: u32, vector: u8) {
        let cpu = &CPUS[apic_id as usize];
        cpu.pending.fetch_or(1 << vector, SeqCst);
        let halted = cpu.halted.lock().expect("nobody panics").take();
        if let Some(flow) = halted {
            flow.unpark();
        }
    }
}
