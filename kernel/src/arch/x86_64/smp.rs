//! Starting the other CPUs.
//!
//! They are woken one after the other (Intel SDM volume 3, §9.4): all get an INIT, then each in turn its start-up
//! interrupts. What a CPU needs for itself is made before it is woken and taken over by it; one that does not come gets
//! another INIT, so that it does not come later, and its things back to where they were.

use super::gdt::{self, Segments};
use super::madt::CpuChoice;
use super::root::{self, Root};
use super::trampoline::Trampoline;
use super::{busy_wait, cpu, idt, interrupts, ipi, irq, timer, traps};
use crate::memory::{self, STACK_BYTES, Stack};
use crate::sync::SpinLock;
use crate::task::{self, IdleTask};
use crate::time;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::time::Duration;
use mm::plural::Plural;

/// From the INIT to the start-up interrupt.
const AFTER_INIT: Duration = Duration::from_millis(10);
/// When a CPU gets its second start-up interrupt, if it has not come.
const SECOND_CALL: Duration = Duration::from_millis(2);
/// A CPU that has not come by then does not come. Emulated ones may be slow.
const LAST_CALL: Duration = Duration::from_secs(5);

const _: () = assert!(gdt::STACKS_BYTES as u64 <= STACK_BYTES, "the emergency stacks of a CPU fit one stack");

/// What a CPU takes over when it comes.
struct Newcomer {
    segments: Box<Segments>,
    emergency: Stack,
    idle: IdleTask,
}

/// Why a CPU does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("no room for its first instructions below 1 MiB")]
    NoRoom,
    #[error("no memory for its stacks")]
    NoMemory,
    #[error("it does not answer")]
    Silent,
}

/// The number of the CPU that is being woken, and its things until it takes them.
static NUMBER: AtomicUsize = AtomicUsize::new(0);
static NEWCOMER: SpinLock<Option<Newcomer>> = SpinLock::new(None);

/// Starts all CPUs of `choice` and says how it went. Tasks and interrupts work on this one.
pub(crate) fn start_others(choice: &CpuChoice) {
    for (count, why) in
        [(choice.over_limit, "more than are wanted or supported"), (choice.out_of_reach, "out of reach")]
    {
        if count > 0 {
            let are = if count == 1 { "is" } else { "are" };
            log::warn!(target: "smp", "{} {are} left alone: {why}", Plural(count as u64, "CPU"));
        }
    }
    if choice.others.is_empty() {
        return;
    }
    let begun_ns = time::now_ns();
    // A number belongs to a CPU whether it comes or not.
    start(1, &choice.others, |number, apic_id, result| {
        if let Err(error) = result {
            log::error!(target: "smp", "cpu {number} (APIC id {apic_id}) is left alone: {error}");
        }
    });
    let running = Plural(cpu::online().count() as u64, "CPU");
    log::info!(target: "smp", "{running}; took {} us", (time::now_ns() - begun_ns) / 1000);
}

/// Starts CPUs, which get numbers from `first` on; `done` hears of each.
pub(crate) fn start(first: usize, apic_ids: &[u32], mut done: impl FnMut(usize, u32, Result<(), StartError>)) {
    let mut trampoline = Trampoline::new(arrive);
    for apic_id in apic_ids {
        interrupts::local_apic().send_init(*apic_id);
    }
    busy_wait(AFTER_INIT);
    for (number, apic_id) in (first..).zip(apic_ids.iter().copied()) {
        let result = match &mut trampoline {
            Some(trampoline) => start_one(number, apic_id, trampoline),
            None => Err(StartError::NoRoom),
        };
        done(number, apic_id, result);
    }
}

fn start_one(number: usize, apic_id: u32, trampoline: &mut Trampoline) -> Result<(), StartError> {
    let idle = task::prepare_idle().ok_or(StartError::NoMemory)?;
    let emergency = memory::alloc_stack().ok_or(StartError::NoMemory)?;
    trampoline.set_stack(idle.stack_top());
    cpu::CPUS[number].set_apic_id(apic_id);
    NUMBER.store(number, SeqCst);
    *NEWCOMER.lock() = Some(Newcomer { segments: Box::new(Segments::new()), emergency, idle });

    let has_come = || cpu::is_online(number);
    for patience in [SECOND_CALL, LAST_CALL] {
        interrupts::local_apic().send_start_up(apic_id, trampoline.vector());
        let end = time::deadline_after(patience);
        while time::now_ns() < end {
            if has_come() {
                return Ok(());
            }
            core::hint::spin_loop();
        }
    }
    // Whoever takes these decides: it comes, or it does not.
    let left_behind = NEWCOMER.lock().take();
    if left_behind.is_some() {
        interrupts::local_apic().send_init(apic_id);
        busy_wait(AFTER_INIT);
        // Only now it can be nowhere on these stacks.
        drop(left_behind);
        return Err(StartError::Silent);
    }
    while !has_come() {
        core::hint::spin_loop();
    }
    Ok(())
}

/// Where the trampoline leads: the CPU has a stack, and nothing else of its own.
extern "C" fn arrive() -> ! {
    root::load(Root::KERNEL);
    cpu::adopt(NUMBER.load(SeqCst));
    let Some(Newcomer { segments, emergency, idle }) = NEWCOMER.lock().take() else { irq::halt_forever() };
    let (bottom, _) = emergency.bounds();
    // They are this CPU's for ever.
    core::mem::forget(emergency);
    gdt::load(Box::leak(segments), bottom);
    idt::load();
    traps::enable_machine_check();
    interrupts::enable_on_this_cpu();
    timer::start_on_this_cpu();
    cpu::set_online();
    // Requests made before it was seen to be there concern it, too.
    ipi::on_arrival();
    idle.run()
}
