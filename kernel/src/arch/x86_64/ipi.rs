//! What CPUs tell each other by interrupts.
//!
//! A [`Rendezvous`] has every CPU do something, and the caller waits until all have. Requests are numbered; a CPU answers
//! with the highest number that it has seen, so one answer serves all requests before it. It answers where its interrupts are
//! on, and so in no critical section: a rendezvous in which nothing is done is a grace period for what such sections read.

use super::interrupts::{RENDEZVOUS_VECTOR, RESCHEDULE_VECTOR, local_apic};
use super::{cpu, irq, stop_machine, tlb};
use crate::shim::atomic::{AtomicU64, Ordering::SeqCst};
use crate::shim::hint;

/// The number of the last request that a CPU has answered, in a cache line of its own.
#[repr(align(128))]
struct Answered(AtomicU64);

/// Something that all CPUs do when asked.
struct Rendezvous {
    asked: AtomicU64,
    answered: [Answered; cpu::CPUS_MAX],
    act: fn(),
}

static FLUSH: Rendezvous = Rendezvous::new(tlb::flush_all);
static GRACE_PERIOD: Rendezvous = Rendezvous::new(|| ());

impl Rendezvous {
    const fn new(act: fn()) -> Self {
        Self { asked: AtomicU64::new(0), answered: [const { Answered(AtomicU64::new(0)) }; cpu::CPUS_MAX], act }
    }

    /// Has every CPU act, and returns when all have.
    fn ask(&self) {
        let number = self.asked.fetch_add(1, SeqCst) + 1;
        {
            let _off = irq::irq_off();
            self.answer();
            send_to_others(RENDEZVOUS_VECTOR, |id| !self.has_answered(id, number));
        }
        for (id, _) in cpu::online() {
            while !self.has_answered(id, number) {
                // Two that wait for each other with interrupts off would wait for ever.
                assert!(irq::may_block(), "other CPUs are asked inside a critical section");
                hint::spin_loop();
            }
        }
    }

    fn has_answered(&self, id: usize, number: u64) -> bool {
        self.answered[id].0.load(SeqCst) >= number
    }

    /// What this CPU, its interrupts off, does about requests.
    fn answer(&self) {
        let asked = self.asked.load(SeqCst);
        let id = cpu::cpu_id();
        if !self.has_answered(id, asked) {
            (self.act)();
            self.answered[id].0.store(asked, SeqCst);
        }
    }
}

/// TLB shootdown: returns when every CPU has flushed its TLB since.
pub(crate) fn flush_tlb_everywhere() {
    FLUSH.ask();
}

/// Returns when every CPU has been in a quiescent state since: outside of critical sections.
pub(crate) fn wait_for_grace_period() {
    GRACE_PERIOD.ask();
}

/// Makes a CPU look whether it should run something else.
pub(crate) fn kick(id: usize) {
    let _off = irq::irq_off();
    local_apic().send(cpu::CPUS[id].apic_id(), RESCHEDULE_VECTOR);
}

/// What a CPU does that has just become one of the others, interrupts off, before it does anything else. What it remembers may be
/// from before it was asked.
pub(super) fn on_arrival() {
    on_rendezvous();
    tlb::flush_all();
}

/// The other CPUs ask for something; interrupts are off.
pub(super) fn on_rendezvous() {
    FLUSH.answer();
    GRACE_PERIOD.answer();
    stop_machine::on_request();
}

/// Makes every other CPU look whether it is asked for something.
pub(super) fn send_rendezvous() {
    send_to_others(RENDEZVOUS_VECTOR, |_| true);
}

fn send_to_others(vector: u8, wanted: impl Fn(usize) -> bool) {
    let own = cpu::cpu_id();
    for (_, other) in cpu::online().filter(|(id, _)| *id != own && wanted(*id)) {
        local_apic().send(other.apic_id(), vector);
    }
}
