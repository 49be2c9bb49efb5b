//! Stop-machine: all other CPUs stand still, for what must not be seen half done: memory that may be used at any moment is
//! being moved.
//!
//! A CPU stands where its interrupts were on, so outside of critical sections: it holds no spin lock.

use super::{cpu, ipi, irq, root, tlb};
use crate::shim::atomic::{AtomicBool, Ordering::SeqCst};
use crate::shim::hint;
use crate::sync::Mutex;
use crate::task;

/// Held while the machine is stopped.
static TURN: Mutex<()> = Mutex::new(());
static IS_ASKED: AtomicBool = AtomicBool::new(false);
/// Which CPUs stand.
static STANDS: [AtomicBool; cpu::CPUS_MAX] = [const { AtomicBool::new(false) }; cpu::CPUS_MAX];

/// Does bounded `work`, interrupts off, while every other CPU stands still. All have flushed their TLBs when they go on, and
/// walk the tables that their tasks have then.
pub(crate) fn stop_machine<R>(work: impl FnOnce() -> R) -> R {
    let _turn = TURN.lock();
    assert!(irq::may_block(), "other CPUs are asked to stand inside a critical section");
    let _off = irq::irq_off();
    IS_ASKED.store(true, SeqCst);
    ipi::send_rendezvous();
    wait_until_all(true);
    let result = work();
    reload_tables();
    IS_ASKED.store(false, SeqCst);
    // A CPU that still stands for this is not taken for one that stands for the next.
    wait_until_all(false);
    result
}

/// Waits until all other CPUs stand, or none. One that is just coming looks by itself before it does anything.
fn wait_until_all(stand: bool) {
    let own = cpu::cpu_id();
    for (id, _) in cpu::online().filter(|(id, _)| *id != own) {
        while STANDS[id].load(SeqCst) != stand {
            hint::spin_loop();
        }
    }
}

/// Another CPU may want this one, interrupts off, to stand.
pub(super) fn on_request() {
    if !IS_ASKED.load(SeqCst) {
        return;
    }
    let stands = &STANDS[cpu::cpu_id()];
    stands.store(true, SeqCst);
    while IS_ASKED.load(SeqCst) {
        hint::spin_loop();
    }
    reload_tables();
    stands.store(false, SeqCst);
}

/// Uses the tables that this CPU's task has now, and nothing that is remembered of others.
fn reload_tables() {
    root::load(task::root());
    tlb::flush_all();
}
