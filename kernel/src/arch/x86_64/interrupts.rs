//! From an interrupt line to its handler.
//!
//! Vectors: exceptions below 0x20, one per global system interrupt from 0x30 on, the messages of devices, what CPUs tell each
//! other, the timer, and two places where nothing happens (the silenced 8259s and the local APIC's spurious interrupt). Handlers
//! run with interrupts off; they push a byte or set a flag and wake a task. A line has one handler for good, or it is one of
//! those in [`listeners`].

use super::apic::{IoApic, LocalApic};
use super::listeners::{self, MESSAGES_MAX, Message};
use super::madt::{CpuChoice, GsiMode, MadtInfo};
use super::{cpu, ipi, pic, timer};
use crate::task;
use alloc::vec::Vec;
use spin::Once;

const FIRST_GSI_VECTOR: u8 = 0x30;
const FIRST_MESSAGE_VECTOR: u8 = FIRST_GSI_VECTOR + GSIS_MAX as u8;
pub(super) const RESCHEDULE_VECTOR: u8 = 0xdd;
pub(super) const RENDEZVOUS_VECTOR: u8 = 0xde;
pub(super) const TIMER_VECTOR: u8 = 0xdf;
const SPURIOUS_VECTOR: u8 = 0xff;

/// Global system interrupts above this have no vector.
pub(super) const GSIS_MAX: usize = 128;

const _: () = assert!(FIRST_MESSAGE_VECTOR as usize + MESSAGES_MAX <= RESCHEDULE_VECTOR as usize);
const _: () = assert!(TIMER_VECTOR < pic::SPURIOUS_BASE);

static HANDLERS: [Once<fn()>; GSIS_MAX] = [const { Once::new() }; GSIS_MAX];
static HARDWARE: Once<Hardware> = Once::new();

struct Hardware {
    local_apic: LocalApic,
    io_apics: Vec<IoApic>,
    madt: MadtInfo,
}

/// Turns the interrupt controllers on, every line masked, and then this CPU's interrupts.
pub(crate) fn init(madt: &MadtInfo) {
    HARDWARE.call_once(|| Hardware {
        local_apic: LocalApic::map(madt.local_apic_address),
        io_apics: madt.io_apics.iter().map(IoApic::map).collect(),
        madt: madt.clone(),
    });
    enable_on_this_cpu();
    cpu::set_online();
    super::irq::enable();
}

/// Turns this CPU's local APIC on.
pub(super) fn enable_on_this_cpu() {
    let local_apic = local_apic();
    local_apic.enable(SPURIOUS_VECTOR);
    cpu::this().set_apic_id(local_apic.id());
}

/// Which of the firmware's CPUs are to run, up to `limit` of them if there is one.
pub(crate) fn choose_cpus(madt: &MadtInfo, limit: Option<usize>) -> CpuChoice {
    let local_apic = local_apic();
    let limit = limit.map_or(cpu::CPUS_MAX, |limit| limit.min(cpu::CPUS_MAX));
    madt.choose_cpus(local_apic.id(), limit, local_apic.reach())
}

/// Sends a global system interrupt to the boot CPU and to `handler`.
///
/// # Panics
/// When no IOAPIC has that input, or it has a handler already: the caller got the number from the firmware and asks once.
pub(crate) fn route_gsi(gsi: u32, mode: GsiMode, handler: fn()) {
    assert!(io_apic_of(gsi).is_some(), "no IOAPIC has interrupt {gsi}");
    let slot = HANDLERS.get(gsi as usize).unwrap_or_else(|| panic!("interrupt {gsi} has no vector"));
    assert!(!slot.is_completed(), "interrupt {gsi} has a handler already");
    slot.call_once(|| handler);
    open_line(gsi, mode);
}

/// Sends an ISA interrupt to the boot CPU and to `handler`, wherever the firmware says it arrives.
pub(crate) fn route_isa(irq: u8, handler: fn()) {
    let (gsi, mode) = hardware().madt.isa(irq);
    route_gsi(gsi, mode, handler);
}

/// Where an ISA interrupt arrives, and how, if the firmware says that it is not as on the ISA bus.
pub(super) fn isa_unless_default(irq: u8) -> (u32, Option<GsiMode>) {
    let (gsi, mode) = hardware().madt.isa(irq);
    (gsi, (mode != GsiMode::ISA).then_some(mode))
}

/// Whether a global system interrupt arrives and has no handler for good.
pub(super) fn may_be_shared(gsi: u32) -> bool {
    HANDLERS.get(gsi as usize).is_some_and(|slot| !slot.is_completed()) && io_apic_of(gsi).is_some()
}

/// Lets a global system interrupt through to the boot CPU, if it arrives.
pub(super) fn open_line(gsi: u32, mode: GsiMode) {
    if let Some(io_apic) = io_apic_of(gsi) {
        io_apic.route(gsi, mode, FIRST_GSI_VECTOR + gsi as u8, cpu::CPUS[0].apic_id());
    }
}

/// Lets a global system interrupt through no more.
pub(super) fn close_line(gsi: u32) {
    if let Some(io_apic) = io_apic_of(gsi) {
        io_apic.mask(gsi);
    }
}

/// What a device writes for its message to arrive at the boot CPU (Intel SDM volume 3, §11.11.1).
pub(super) fn message(number: usize) -> Message {
    const BASE: u64 = 0xfee0_0000;
    let address = BASE | u64::from(cpu::CPUS[0].apic_id()) << 12;
    Message { address, data: u32::from(FIRST_MESSAGE_VECTOR) + number as u32 }
}

fn io_apic_of(gsi: u32) -> Option<&'static IoApic> {
    hardware().io_apics.iter().find(|io_apic| io_apic.has(gsi))
}

/// This CPU's local APIC.
pub(super) fn local_apic() -> &'static LocalApic {
    &hardware().local_apic
}

fn hardware() -> &'static Hardware {
    HARDWARE.get().expect("interrupts are used after `init`")
}

/// Every interrupt comes here.
pub(super) fn on_interrupt(vector: u8) {
    let since = super::tsc::ticks();
    match vector {
        SPURIOUS_VECTOR => return,
        TIMER_VECTOR => timer::on_tick(),
        RENDEZVOUS_VECTOR => ipi::on_rendezvous(),
        RESCHEDULE_VECTOR => {}
        pic::SPURIOUS_BASE.. => return,
        FIRST_MESSAGE_VECTOR.. => listeners::on_message(usize::from(vector - FIRST_MESSAGE_VECTOR)),
        FIRST_GSI_VECTOR.. => on_gsi(u32::from(vector - FIRST_GSI_VECTOR)),
        _ => log::warn!(target: "irq", "nobody handles vector {vector:#04x}"),
    }
    local_apic().end_of_interrupt();
    cpu::note_irqs_off(super::tsc::ticks().saturating_sub(since));
    if matches!(vector, TIMER_VECTOR | RESCHEDULE_VECTOR) {
        task::preempt();
    }
}

fn on_gsi(gsi: u32) {
    match HANDLERS[gsi as usize].get() {
        Some(handler) => handler(),
        None => listeners::on_line(gsi),
    }
}
