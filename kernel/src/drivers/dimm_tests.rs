//! The driver against the registers as QEMU makes them, oddities included.

use super::*;
use std::vec;
use std::vec::Vec;

const MIB: u64 = 1 << 20;

/// One slot of the device.
#[derive(Clone, Copy, Default, Debug)]
struct FakeSlot {
    dimm: Option<(u64, u64, u32)>,
    is_inserting: bool,
    is_removing: bool,
    ost_event: u32,
}

/// QEMU's register block: what is selected beyond the last slot reads as zero and takes no writes, of the bits written to
/// the control byte only the lowest counts, and ejecting leaves the event bits alone.
#[derive(Default, Debug)]
pub(crate) struct FakeRegisters {
    slots: Vec<FakeSlot>,
    selector: u32,
    /// Slot, event and status of every message to the host.
    messages: Vec<(u32, u32, u32)>,
    ejected: Vec<u32>,
    /// What the host does when a DIMM is ejected, once.
    refuses_ejection: bool,
    /// Clearing an event does nothing.
    keeps_events: bool,
}

impl FakeRegisters {
    fn with_slots(count: usize) -> Self {
        Self { slots: vec![FakeSlot::default(); count], ..Self::default() }
    }

    fn selected(&self) -> Option<&FakeSlot> {
        self.slots.get(self.selector as usize)
    }
}

impl Registers for FakeRegisters {
    fn read_u8(&self, offset: u16) -> u8 {
        assert_eq!(offset, CONTROL, "only the control byte is a byte");
        let Some(slot) = self.selected() else { return 0 };
        u8::from(slot.dimm.is_some()) | u8::from(slot.is_inserting) << 1 | u8::from(slot.is_removing) << 2
    }

    fn read_u32(&self, offset: u16) -> u32 {
        let Some(slot) = self.selected() else { return 0 };
        let (start, len, domain) = slot.dimm.unwrap_or_default();
        match offset {
            0x0 => start as u32,
            0x4 => (start >> 32) as u32,
            0x8 => len as u32,
            0xc => (len >> 32) as u32,
            0x10 => domain,
            _ => panic!("no register to read at {offset:#x}"),
        }
    }

    fn write_u8(&mut self, offset: u16, value: u8) {
        assert_eq!(offset, CONTROL, "only the control byte is a byte");
        let selector = self.selector;
        let Some(slot) = self.slots.get_mut(selector as usize) else { return };
        match value {
            value if value & 2 != 0 => slot.is_inserting &= self.keeps_events,
            value if value & 4 != 0 => slot.is_removing &= self.keeps_events,
            value if value & 8 != 0 && slot.dimm.is_some() && !self.refuses_ejection => {
                slot.dimm = None;
                self.ejected.push(selector);
            }
            _ => {}
        }
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        if offset == 0 {
            self.selector = value;
            return;
        }
        let selector = self.selector;
        let Some(slot) = self.slots.get_mut(selector as usize) else { return };
        match offset {
            0x4 => slot.ost_event = value,
            0x8 => self.messages.push((selector, slot.ost_event, value)),
            _ => panic!("no register to write at {offset:#x}"),
        }
    }
}

/// The host's side.
impl Controller<FakeRegisters> {
    pub(crate) fn fake(slots: usize) -> Self {
        Self::new(FakeRegisters::with_slots(slots), slots as u32)
    }

    pub(crate) fn cold_plug(&mut self, slot: usize, start: u64, len: u64, domain: u32) {
        self.registers.slots[slot].dimm = Some((start, len, domain));
    }

    pub(crate) fn plug(&mut self, slot: usize, start: u64, len: u64, domain: u32) {
        self.cold_plug(slot, start, len, domain);
        self.registers.slots[slot].is_inserting = true;
    }

    pub(crate) fn request_removal(&mut self, slot: usize) {
        self.registers.slots[slot].is_removing = true;
    }

    pub(crate) fn refuse_ejection(&mut self) {
        self.registers.refuses_ejection = true;
    }

    pub(crate) fn ejected(&self) -> &[u32] {
        &self.registers.ejected
    }

    /// Event and status of every message about a slot.
    pub(crate) fn messages(&self, slot: u32) -> Vec<(u32, u32)> {
        let about_slot = self.registers.messages.iter().filter(|(about, ..)| *about == slot);
        about_slot.map(|(_, event, status)| (*event, *status)).collect()
    }
}

fn dimm(slot: u32, start: u64, len: u64, domain: u32) -> Dimm {
    Dimm { slot, start, len, domain }
}

/// Slots behind their lock.
fn slots(count: usize) -> Mutex<Controller<FakeRegisters>> {
    Mutex::new(Controller::fake(count))
}

fn drained(slots: &Mutex<Controller<FakeRegisters>>) -> Vec<SlotEvent> {
    let mut events = Vec::new();
    drain(slots, |event| events.push(event));
    events
}

#[test]
fn dimms_plugged_before_boot_are_found() {
    let slots = slots(4);
    slots.lock().cold_plug(1, 0x1_0000_0000, 256 * MIB, 1);
    slots.lock().cold_plug(3, 0x42_1000_0000, 0x5_4321_0000, 0);
    let found: Vec<Dimm> = present(&slots).collect();
    assert_eq!(found, [dimm(1, 0x1_0000_0000, 256 * MIB, 1), dimm(3, 0x42_1000_0000, 0x5_4321_0000, 0)]);
    assert_eq!(drained(&slots), []);
}

#[test]
fn an_insertion_is_seen_once() {
    let slots = slots(4);
    slots.lock().plug(2, 0x1_0000_0000, 128 * MIB, 0);
    assert_eq!(drained(&slots), [SlotEvent::Inserted(dimm(2, 0x1_0000_0000, 128 * MIB, 0))]);
    assert_eq!(drained(&slots), []);
    assert_eq!(present(&slots).count(), 1);
}

#[test]
fn events_of_several_slots_are_all_seen() {
    let slots = slots(3);
    let dimms = [dimm(0, 0x1_0000_0000, 128 * MIB, 0), dimm(1, 0x1_0800_0000, 128 * MIB, 1)];
    slots.lock().plug(0, dimms[0].start, dimms[0].len, 0);
    slots.lock().plug(1, dimms[1].start, dimms[1].len, 1);
    slots.lock().request_removal(1);
    let expected =
        [SlotEvent::Inserted(dimms[0]), SlotEvent::Inserted(dimms[1]), SlotEvent::RemovalRequested(dimms[1])];
    assert_eq!(drained(&slots), expected);
}

#[test]
fn an_event_that_comes_while_another_is_handled_is_seen_too() {
    let slots = slots(2);
    slots.lock().plug(1, 0x1_0000_0000, 128 * MIB, 0);
    let mut events = 0;
    drain(&slots, |event| {
        events += 1;
        if let SlotEvent::Inserted(found) = event
            && found.slot == 1
        {
            slots.lock().plug(0, 0x1_0800_0000, 128 * MIB, 0);
            slots.lock().request_removal(1);
        }
    });
    assert_eq!(events, 3);
}

#[test]
fn a_removal_bit_on_an_empty_slot_is_cleared_and_nothing_else() {
    let slots = slots(2);
    slots.lock().request_removal(0);
    assert_eq!(drained(&slots), []);
    assert!(!slots.lock().registers.slots[0].is_removing);
    assert_eq!(slots.lock().messages(0), []);
    assert!(slots.lock().ejected().is_empty());
}

#[test]
fn both_bits_on_an_empty_slot_are_cleared() {
    let slots = slots(1);
    slots.lock().request_removal(0);
    slots.lock().registers.slots[0].is_inserting = true;
    assert_eq!(drained(&slots), []);
    let slot = slots.lock().registers.slots[0];
    assert!(!slot.is_removing && !slot.is_inserting);
}

#[test]
fn an_event_that_cannot_be_cleared_is_seen_once() {
    let slots = slots(2);
    let [first, second] = [dimm(0, 0x1_0000_0000, 128 * MIB, 0), dimm(1, 0x1_0800_0000, 128 * MIB, 0)];
    slots.lock().registers.keeps_events = true;
    slots.lock().plug(0, first.start, first.len, 0);
    slots.lock().request_removal(0);
    slots.lock().plug(1, second.start, second.len, 0);
    let expected = [SlotEvent::Inserted(first), SlotEvent::RemovalRequested(first), SlotEvent::Inserted(second)];
    assert_eq!(drained(&slots), expected);
    assert_eq!(drained(&slots), []);

    // It gets well again.
    slots.lock().registers.keeps_events = false;
    slots.lock().registers.slots[0].is_inserting = false;
    assert_eq!(drained(&slots), []);
    slots.lock().plug(0, first.start, first.len, 0);
    assert_eq!(drained(&slots), [SlotEvent::Inserted(first)]);
}

#[test]
fn a_request_repeated_before_ejection_leaves_nothing_to_do() {
    let slots = slots(1);
    slots.lock().cold_plug(0, 0x1_0000_0000, 128 * MIB, 0);
    slots.lock().request_removal(0);
    let mut ejections = Vec::new();
    drain(&slots, |_| {
        slots.lock().request_removal(0);
        ejections.push(slots.lock().eject(0));
    });
    assert_eq!(ejections, [Ejected::Gone]);
    assert_eq!(slots.lock().ejected(), [0]);
}

#[test]
fn a_request_for_an_ejected_dimm_is_not_one_for_its_successor() {
    let slots = slots(1);
    slots.lock().cold_plug(0, 0x1_0000_0000, 128 * MIB, 0);
    slots.lock().request_removal(0);
    let mut events = Vec::new();
    drain(&slots, |event| {
        events.push(event);
        if let SlotEvent::RemovalRequested(_) = event {
            slots.lock().request_removal(0);
            assert_eq!(slots.lock().eject(0), Ejected::Gone);
            slots.lock().plug(0, 0x1_0800_0000, 256 * MIB, 1);
        }
    });
    let (old, new) = (dimm(0, 0x1_0000_0000, 128 * MIB, 0), dimm(0, 0x1_0800_0000, 256 * MIB, 1));
    assert_eq!(events, [SlotEvent::RemovalRequested(old), SlotEvent::Inserted(new)]);
    assert_eq!(slots.lock().ejected(), [0]);
}

#[test]
fn ejecting_tells_whether_the_dimm_is_gone() {
    let mut controller = Controller::fake(2);
    controller.cold_plug(0, 0x1_0000_0000, 128 * MIB, 0);
    controller.cold_plug(1, 0x1_0800_0000, 128 * MIB, 0);
    controller.refuse_ejection();
    assert_eq!(controller.eject(0), Ejected::StillThere);
    controller.registers.refuses_ejection = false;
    assert_eq!(controller.eject(0), Ejected::Gone);
    assert_eq!(controller.eject(0), Ejected::Gone);
    assert_eq!(controller.ejected(), [0]);
    assert_eq!(controller.dimm(1).map(|dimm| dimm.slot), Some(1));
}

#[test]
fn the_host_hears_the_codes_of_the_slot() {
    let mut controller = Controller::fake(3);
    for answer in [
        Answer::InsertionInProgress,
        Answer::Inserted,
        Answer::InsertionFailed,
        Answer::EjectionInProgress,
        Answer::Ejected,
        Answer::EjectionRefused,
        Answer::EjectionFailed,
    ] {
        controller.answer(2, answer);
    }
    assert_eq!(controller.messages(2), [(1, 0x80), (1, 0), (1, 1), (3, 0x84), (3, 0), (3, 0x82), (3, 1)]);
    assert_eq!(controller.messages(0), []);
}

#[test]
fn slots_beyond_the_last_are_empty() {
    let slots = Mutex::new(Controller::new(FakeRegisters::with_slots(2), u32::MAX));
    assert_eq!(slots.lock().count(), SLOT_LIMIT);
    slots.lock().cold_plug(1, 0x1_0000_0000, 128 * MIB, 0);
    assert_eq!(present(&slots).count(), 1);
    assert_eq!(slots.lock().dimm(2), None);
    assert_eq!(slots.lock().take_event(9), None);
}

#[test]
fn without_a_controller_every_slot_is_empty() {
    struct Nothing;

    impl Registers for Nothing {
        fn read_u8(&self, _: u16) -> u8 {
            0xff
        }

        fn read_u32(&self, _: u16) -> u32 {
            0xffff_ffff
        }

        fn write_u8(&mut self, _: u16, _: u8) {}

        fn write_u32(&mut self, _: u16, _: u32) {}
    }

    let slots = Mutex::new(Controller::new(Nothing, SLOT_LIMIT));
    assert_eq!(present(&slots).count(), 0);
    drain(&slots, |event| panic!("{event:?} from nowhere"));
}
