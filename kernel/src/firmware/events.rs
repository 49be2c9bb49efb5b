//! ACPI's events: the system control interrupt, the power button, and the general-purpose events of hotplug.
//!
//! The interrupt handler notes what came, makes the hardware quiet, and wakes whoever waits; everything else happens in
//! tasks. ACPI 6.5 §4.8; which bit means what is QEMU's (docs/specs/acpi_mem_hotplug.rst, include/hw/acpi).

use super::Firmware;
use super::fadt::{FadtFacts, PortBlock};
use crate::arch::interrupts;
use crate::arch::ports::PortRange;
use crate::arch::{self, GsiMode, Polarity, Trigger};
use crate::power;
use crate::task::{self, Signal};
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use spin::Once;

/// In PM1 status and enable.
const POWER_BUTTON: u16 = 1 << 8;
/// In PM1 status: timer, bus master, global lock, power and sleep button, RTC, wake. Writing a one clears it.
const ALL_FIXED_EVENTS: u16 = 0x8731;
/// In PM1 control: events raise the SCI rather than an SMI.
const SCI_ENABLED: u16 = 1 << 0;

/// What is listened to of byte 0 of GPE0, bit by bit.
const GENERAL_EVENTS: [GeneralEvent; 4] = [
    GeneralEvent { bit: 1, handler: Handler::Wakes(&PCI) },
    GeneralEvent { bit: 2, handler: Handler::Told("a CPU came or shall go; it is not used") },
    GeneralEvent { bit: 3, handler: Handler::Wakes(&MEMORY) },
    GeneralEvent { bit: 4, handler: Handler::Told("an NVDIMM came; it is not used") },
];

/// All of [`GENERAL_EVENTS`].
const ALL_GENERAL_EVENTS: u8 = {
    let (mut mask, mut number) = (0, 0);
    while number < GENERAL_EVENTS.len() {
        mask |= GENERAL_EVENTS[number].mask();
        number += 1;
    }
    mask
};

struct GeneralEvent {
    bit: u8,
    handler: Handler,
}

impl GeneralEvent {
    const fn mask(&self) -> u8 {
        1 << self.bit
    }
}

/// Whose a general-purpose event is.
enum Handler {
    /// Of whoever waits for it.
    Wakes(&'static Signal),
    /// Nobody's: the log tells of it, and that is all.
    Told(&'static str),
}

/// How long the firmware may take to hand the hardware over.
const PATIENCE_STEPS: u32 = 300;
const PATIENCE_STEP: Duration = Duration::from_millis(1);

/// Something about a DIMM.
pub(crate) static MEMORY: Signal = Signal::new();
/// Something about a function of PCI.
pub(crate) static PCI: Signal = Signal::new();
static BUTTON: Signal = Signal::new();
/// Something that the log is to tell; what came is in [`UNTOLD`].
static NEWS: Signal = Signal::new();
static UNTOLD: AtomicU8 = AtomicU8::new(0);

/// The registers that the interrupt handler looks at.
static HARDWARE: Once<Hardware> = Once::new();

/// Takes ACPI's hardware over and starts listening. Interrupts and tasks are set up.
pub(crate) fn start(firmware: &Firmware) {
    let Some((facts, sci)) = firmware.fadt.as_ref().and_then(|facts| Some((facts, facts.sci?))) else {
        log::debug!(target: "acpi", "no fixed hardware: there are no events");
        return;
    };
    enable_acpi(facts);
    let hardware = HARDWARE.call_once(|| Hardware {
        fixed: facts.pm1a_event.map(EventBlock::new),
        general: facts.gpe0.map(EventBlock::new),
    });
    hardware.silence();
    task::spawn("power button", || {
        BUTTON.wait();
        log::info!(target: "power", "the power button was pressed");
        power::exit(power::Outcome::Success)
    });
    task::spawn("acpi", || {
        loop {
            NEWS.wait();
            // Acquire pairs with the Release of `UNTOLD` in `raise`.
            tell(UNTOLD.swap(0, Ordering::Acquire));
        }
    });
    route(sci, firmware);
    hardware.listen(facts.fixed_power_button);
}

/// A line without an override is as ACPI wants an SCI, not as the ISA bus has it (ACPI 6.5 §5.2.9, SCI_INT).
fn route(sci: u16, firmware: &Firmware) {
    let overridden = firmware.madt.overrides.iter().find(|said| u16::from(said.irq) == sci);
    let level_low = GsiMode { trigger: Trigger::Level, polarity: Polarity::ActiveLow };
    let (gsi, mode) = overridden.map_or((u32::from(sci), level_low), |said| (said.gsi, said.mode));
    interrupts::route_gsi(gsi, mode, on_interrupt);
    log::debug!(target: "acpi", "events arrive as interrupt {gsi}");
}

/// Asks the firmware for the fixed hardware, if it has not let go of it yet.
fn enable_acpi(facts: &FadtFacts) {
    let Some((control, command)) = facts.pm1a_control.zip(facts.enable) else { return };
    let control = control.registers();
    if control.read_u16(0) & SCI_ENABLED != 0 {
        return;
    }
    command.port.registers().write_u8(0, command.value);
    for _ in 0..PATIENCE_STEPS {
        if control.read_u16(0) & SCI_ENABLED != 0 {
            return;
        }
        arch::busy_wait(PATIENCE_STEP);
    }
    log::warn!(target: "acpi", "the firmware does not hand over ACPI's hardware; events may not arrive");
}

/// Tells the log of what nobody handles.
fn tell(came: u8) {
    for event in GENERAL_EVENTS.iter().filter(|event| came & event.mask() != 0) {
        if let Handler::Told(news) = event.handler {
            log::info!(target: "acpi", "{news}");
        }
    }
}

/// Whether ACPI's hardware is ours and tells us about hotplug.
pub(crate) fn is_listening() -> bool {
    let control = super::get().fadt.as_ref().and_then(|facts| facts.pm1a_control).map(PortBlock::registers);
    let is_ours = control.is_some_and(|control| control.read_u16(0) & SCI_ENABLED != 0);
    let general = HARDWARE.get().and_then(|hardware| hardware.general.as_ref());
    is_ours && general.is_some_and(|general| general.ports.read_u8(general.half) == ALL_GENERAL_EVENTS)
}

fn on_interrupt() {
    if let Some(hardware) = HARDWARE.get() {
        hardware.take_events();
    }
}

#[derive(Debug)]
struct Hardware {
    /// PM1a: 16-bit registers.
    fixed: Option<EventBlock>,
    /// GPE0: byte-wide registers, of which QEMU uses the first for interrupts.
    general: Option<EventBlock>,
}

/// Status registers in the first half of a block, enable registers in the second.
#[derive(Debug)]
struct EventBlock {
    ports: PortRange,
    half: u16,
}

impl EventBlock {
    fn new(block: PortBlock) -> Self {
        Self { ports: block.registers(), half: block.len / 2 }
    }
}

impl Hardware {
    /// Disables everything and forgets what came before.
    fn silence(&self) {
        if let Some(fixed) = &self.fixed {
            fixed.ports.write_u16(fixed.half, 0);
            fixed.ports.write_u16(0, ALL_FIXED_EVENTS);
        }
        if let Some(general) = &self.general {
            for offset in 0..general.half {
                general.ports.write_u8(general.half + offset, 0);
                general.ports.write_u8(offset, 0xff);
            }
        }
    }

    fn listen(&self, fixed_power_button: bool) {
        if let Some(fixed) = self.fixed.as_ref().filter(|_| fixed_power_button) {
            fixed.ports.write_u16(fixed.half, POWER_BUTTON);
        }
        match &self.general {
            Some(general) => general.ports.write_u8(general.half, ALL_GENERAL_EVENTS),
            None => log::warn!(target: "acpi", "no general-purpose events: hotplug will not be noticed"),
        }
    }

    /// Clears what came before anybody handles it, so that what comes meanwhile raises the line again.
    fn take_events(&self) {
        if let Some(fixed) = &self.fixed {
            let came = fixed.ports.read_u16(0) & fixed.ports.read_u16(fixed.half);
            fixed.ports.write_u16(0, came);
            if came & POWER_BUTTON != 0 {
                BUTTON.raise();
            }
        }
        if let Some(general) = &self.general {
            let came = general.ports.read_u8(0);
            general.ports.write_u8(0, came);
            raise(came);
        }
    }
}

/// Passes general-purpose events on.
fn raise(came: u8) {
    for event in GENERAL_EVENTS.iter().filter(|event| came & event.mask() != 0) {
        match event.handler {
            Handler::Wakes(signal) => signal.raise(),
            Handler::Told(_) => {
                // Release pairs with the Acquire in the task that tells.
                UNTOLD.fetch_or(event.mask(), Ordering::Release);
                NEWS.raise();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_general_event_is_listened_to_and_has_one_handler() {
        let masks = GENERAL_EVENTS.iter().map(GeneralEvent::mask);
        assert_eq!(masks.clone().fold(0, |all, mask| all | mask), ALL_GENERAL_EVENTS);
        assert_eq!(masks.map(u32::from).sum::<u32>(), u32::from(ALL_GENERAL_EVENTS));
        let is_news = |event: &&GeneralEvent| matches!(event.handler, Handler::Told(_));
        raise(ALL_GENERAL_EVENTS);
        let news: u8 = GENERAL_EVENTS.iter().filter(is_news).map(GeneralEvent::mask).sum();
        assert_eq!(UNTOLD.load(Ordering::Relaxed), news);
        assert!(MEMORY.take() && NEWS.take());
    }
}
