//! QEMU's memory-hotplug controller: one DIMM per slot, told by a register block (QEMU docs/specs/acpi_mem_hotplug.rst).
//!
//! The firmware's AML drives the same registers; nothing of it runs here, so they are ours alone. A machine that is not
//! QEMU would bring a second [`DimmSlots`], made of its namespace's objects.
#![deny(unsafe_code)]

use crate::arch::ports::{self, PortRange};
use crate::sync::Mutex;
use bitflags::bitflags;

/// QEMU has no more slots than this.
pub(crate) const SLOT_LIMIT: u32 = 256;

const SELECTOR: u16 = 0x00;
const ADDRESS_LOW: u16 = 0x00;
const ADDRESS_HIGH: u16 = 0x04;
const SIZE_LOW: u16 = 0x08;
const SIZE_HIGH: u16 = 0x0c;
const DOMAIN: u16 = 0x10;
const OST_EVENT: u16 = 0x04;
/// Writing it sends the message.
const OST_STATUS: u16 = 0x08;
/// One byte; of the bits to write, the lowest one alone has an effect, so exactly one is written.
const CONTROL: u16 = 0x14;

bitflags! {
    /// What [`CONTROL`] reads of the selected slot. Writing the bit of an event clears it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Status: u8 {
        const ENABLED = 1 << 0;
        const INSERT_EVENT = 1 << 1;
        const REMOVE_EVENT = 1 << 2;
    }
}

/// Written to [`CONTROL`], takes the DIMM out of the selected slot.
const EJECT: u8 = 1 << 3;

/// A DIMM in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dimm {
    pub(crate) slot: u32,
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Its proximity domain.
    pub(crate) domain: u32,
}

/// What waits to be handled in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotEvent {
    /// A DIMM was put in.
    Inserted(Dimm),
    /// The host wants the DIMM back.
    RemovalRequested(Dimm),
}

impl SlotEvent {
    /// What it happened to.
    pub(crate) fn dimm(self) -> Dimm {
        match self {
            Self::Inserted(dimm) | Self::RemovalRequested(dimm) => dimm,
        }
    }
}

/// What the host hears of a DIMM (ACPI 6.5 §6.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    InsertionInProgress,
    Inserted,
    InsertionFailed,
    EjectionInProgress,
    Ejected,
    /// Somebody uses it; asking again later may work.
    EjectionRefused,
    EjectionFailed,
}

impl Answer {
    /// Source event and status code of `_OST`.
    pub(crate) fn codes(self) -> (u32, u32) {
        const DEVICE_CHECK: u32 = 1;
        const EJECTION_REQUEST: u32 = 3;
        match self {
            Self::InsertionInProgress => (DEVICE_CHECK, 0x80),
            Self::Inserted => (DEVICE_CHECK, 0),
            Self::InsertionFailed => (DEVICE_CHECK, 1),
            Self::EjectionInProgress => (EJECTION_REQUEST, 0x84),
            Self::Ejected => (EJECTION_REQUEST, 0),
            Self::EjectionRefused => (EJECTION_REQUEST, 0x82),
            Self::EjectionFailed => (EJECTION_REQUEST, 1),
        }
    }
}

/// Slots for DIMMs.
pub(crate) trait DimmSlots {
    /// How many there are, or can be at most.
    fn count(&self) -> u32;

    /// The DIMM in a slot.
    fn dimm(&mut self, slot: u32) -> Option<Dimm>;

    /// Takes the next event of a slot. Of two, the insertion comes first: that is the order in which they happened, as
    /// [`eject`](Self::eject) leaves no request behind for the next DIMM. An event of an empty slot is dropped: what it
    /// was about is over.
    fn take_event(&mut self, slot: u32) -> Option<SlotEvent>;

    /// Takes the DIMM out for good, and with it the host's requests for it; says whether it is gone.
    fn eject(&mut self, slot: u32) -> Ejected;

    /// Lets the host know.
    fn answer(&mut self, slot: u32, answer: Answer);
}

/// Whether an ejected DIMM is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ejected {
    Gone,
    StillThere,
}

/// Every DIMM that is in a slot. Others may use the device between two of them.
pub(crate) fn present<S: DimmSlots>(slots: &Mutex<S>) -> impl Iterator<Item = Dimm> {
    let count = slots.lock().count();
    (0..count).filter_map(|slot| slots.lock().dimm(slot))
}

/// Hands over events slot by slot until a whole round finds none: one that comes up while another is handled raises no
/// new interrupt if its slot had one pending already. Each is taken from the device under its lock and handled without it.
pub(crate) fn drain<S: DimmSlots>(slots: &Mutex<S>, mut handle: impl FnMut(SlotEvent)) {
    let count = slots.lock().count();
    let take_event = |slot| slots.lock().take_event(slot);
    loop {
        let mut found = false;
        for slot in 0..count {
            while let Some(event) = take_event(slot) {
                found = true;
                handle(event);
            }
        }
        if !found {
            return;
        }
    }
}

/// Reading and writing the register block.
pub(crate) trait Registers {
    fn read_u8(&self, offset: u16) -> u8;
    fn read_u32(&self, offset: u16) -> u32;
    fn write_u8(&mut self, offset: u16, value: u8);
    fn write_u32(&mut self, offset: u16, value: u32);
}

impl Registers for PortRange {
    fn read_u8(&self, offset: u16) -> u8 {
        PortRange::read_u8(self, offset)
    }

    fn read_u32(&self, offset: u16) -> u32 {
        PortRange::read_u32(self, offset)
    }

    fn write_u8(&mut self, offset: u16, value: u8) {
        PortRange::write_u8(self, offset, value);
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        PortRange::write_u32(self, offset, value);
    }
}

/// How often an event is cleared before it counts as stuck: the host may raise it again between two looks, but not each
/// time.
const CLEAR_TRIES: usize = 8;

/// The controller.
#[derive(Debug)]
pub(crate) struct Controller<R: Registers> {
    registers: R,
    slots: u32,
    /// Events that stay set whatever is written: reported once, or whoever waits for the last would wait for ever.
    stuck: [Status; SLOT_LIMIT as usize],
}

/// The controller of this machine, which has that many slots.
pub(crate) fn controller(slots: u32) -> Controller<PortRange> {
    Controller::new(ports::dimm_controller(), slots)
}

impl<R: Registers> Controller<R> {
    fn new(registers: R, slots: u32) -> Self {
        Self { registers, slots: slots.min(SLOT_LIMIT), stuck: [Status::empty(); SLOT_LIMIT as usize] }
    }

    fn select(&mut self, slot: u32) {
        self.registers.write_u32(SELECTOR, slot);
    }

    /// Of the selected slot. Where there is no controller, every bit reads as one, which means nothing.
    fn status(&self) -> Status {
        Status::from_bits(self.registers.read_u8(CONTROL)).unwrap_or(Status::empty())
    }

    /// Clears an event of the selected slot; says whether it is gone.
    fn clear_event(&mut self, event: Status) -> bool {
        (0..CLEAR_TRIES).any(|_| {
            self.registers.write_u8(CONTROL, event.bits());
            !self.status().contains(event)
        })
    }

    fn selected(&self, slot: u32) -> Option<Dimm> {
        if !self.status().contains(Status::ENABLED) {
            return None;
        }
        let wide = |low, high| u64::from(self.registers.read_u32(high)) << 32 | u64::from(self.registers.read_u32(low));
        let (start, len) = (wide(ADDRESS_LOW, ADDRESS_HIGH), wide(SIZE_LOW, SIZE_HIGH));
        Some(Dimm { slot, start, len, domain: self.registers.read_u32(DOMAIN) })
    }
}

impl<R: Registers> DimmSlots for Controller<R> {
    fn count(&self) -> u32 {
        self.slots
    }

    fn dimm(&mut self, slot: u32) -> Option<Dimm> {
        self.select(slot);
        self.selected(slot)
    }

    fn take_event(&mut self, slot: u32) -> Option<SlotEvent> {
        self.select(slot);
        let index = usize::try_from(slot).ok().filter(|index| *index < self.stuck.len())?;
        self.stuck[index] &= self.status();
        for bit in [Status::INSERT_EVENT, Status::REMOVE_EVENT] {
            if !self.status().difference(self.stuck[index]).contains(bit) {
                continue;
            }
            if !self.clear_event(bit) {
                log::error!(target: "dimm", "slot {slot}: an event cannot be cleared; it is ignored from now on");
                self.stuck[index] |= bit;
            }
            if let Some(dimm) = self.selected(slot) {
                let event = if bit == Status::INSERT_EVENT { SlotEvent::Inserted } else { SlotEvent::RemovalRequested };
                return Some(event(dimm));
            }
        }
        None
    }

    fn eject(&mut self, slot: u32) -> Ejected {
        self.select(slot);
        // A request that was repeated meanwhile stays set when the DIMM goes, and would be taken for one that asks for
        // whatever the host puts into the slot next.
        self.registers.write_u8(CONTROL, Status::REMOVE_EVENT.bits());
        self.registers.write_u8(CONTROL, EJECT);
        if !self.status().contains(Status::ENABLED) { Ejected::Gone } else { Ejected::StillThere }
    }

    fn answer(&mut self, slot: u32, answer: Answer) {
        let (event, status) = answer.codes();
        self.select(slot);
        self.registers.write_u32(OST_EVENT, event);
        self.registers.write_u32(OST_STATUS, status);
    }
}

#[cfg(test)]
#[path = "dimm_tests.rs"]
pub(crate) mod tests;
