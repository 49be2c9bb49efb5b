//! What devices use, from the resource templates that AML holds as constants (ACPI 6.5 §6.4): host bridges with the buses and
//! addresses that they pass on, and slots of virtio's memory-mapped bus.
//!
//! As with the other facts that only AML holds, they are looked for where they are defined; a template that a method makes is
//! not found.

use super::aml;
use super::table::u32_at;
use crate::arch::{GsiMode, Polarity, Trigger};
use crate::drivers::pci::{Ecam, HostBridge, Range};
use crate::drivers::virtio::Slot;
use alloc::vec::Vec;

/// Kinds of entries: those with a length of 16 bits have the upper bit set.
const END: u8 = 0x79;
const FIXED_MEMORY: u8 = 0x86;
const INTERRUPT: u8 = 0x89;
const DWORD_SPACE: u8 = 0x87;
const WORD_SPACE: u8 = 0x88;
const QWORD_SPACE: u8 = 0x8a;

/// What the addresses of a space are about.
const MEMORY: u8 = 0;
const BUSES: u8 = 2;

/// An entry of a template: its kind, and what follows the length.
type Entry<'a> = (u8, &'a [u8]);

/// The host bridges, each of which passes on buses and memory.
pub(super) fn host_bridges(table: &[u8]) -> Vec<HostBridge> {
    aml::buffers(table, *b"_CRS").filter_map(host_bridge).collect()
}

/// Configuration space where no table of its own tells of it, but a method of the host bridge (PCI Firmware 3.3 §4.1.3).
pub(super) fn config_space(table: &[u8]) -> Option<Ecam> {
    // A method without arguments that returns a constant.
    let start = aml::behind(table, b"_CBA\0\xa4").find_map(aml::constant)?.0;
    let last_bus = aml::buffers(table, *b"_CRS").filter_map(buses).find(|buses| buses.start == 0)?.end() - 1;
    Some(Ecam { start: start.into(), segment: 0, first_bus: 0, last_bus: u8::try_from(last_bus).ok()? })
}

/// The buses that are passed on.
fn buses(template: &[u8]) -> Option<Range> {
    entries(template).filter_map(space).find(|(kind, _)| *kind == BUSES).map(|(_, buses)| buses)
}

fn host_bridge(template: &[u8]) -> Option<HostBridge> {
    let first_bus = u8::try_from(buses(template)?.start).ok()?;
    let memory = entries(template).filter_map(|entry| space(entry).filter(|(kind, _)| *kind == MEMORY));
    Some(HostBridge { first_bus, windows: memory.map(|(_, window)| window).collect() })
}

/// What virtio's slots are called.
const VIRTIO_SLOT: &[u8] = b"LNRO0005";

/// The slots of virtio's memory-mapped bus.
pub(super) fn virtio_slots(table: &[u8]) -> Vec<Slot> {
    let devices = aml::behind(table, VIRTIO_SLOT);
    devices.filter_map(|device| aml::buffers(device, *b"_CRS").next()).filter_map(virtio_slot).collect()
}

fn virtio_slot(template: &[u8]) -> Option<Slot> {
    const IS_EDGE: u8 = 1 << 1;
    const IS_LOW: u8 = 1 << 2;
    let body_of = |wanted| entries(template).find(|(kind, _)| *kind == wanted).map(|(_, body)| body);
    let (memory, interrupt) = (body_of(FIXED_MEMORY)?, body_of(INTERRUPT)?);
    let flags = *interrupt.first()?;
    let mode = GsiMode {
        trigger: if flags & IS_EDGE != 0 { Trigger::Edge } else { Trigger::Level },
        polarity: if flags & IS_LOW != 0 { Polarity::ActiveLow } else { Polarity::ActiveHigh },
    };
    // Behind a byte that says whether it can be written, and behind flags and a count.
    let (start, len, gsi) = (u32_at(memory, 1)?, u32_at(memory, 5)?, u32_at(interrupt, 2)?);
    Some(Slot { start: start.into(), len: len.into(), gsi, mode })
}

/// What kind of addresses an entry is about, and which.
fn space((kind, body): Entry<'_>) -> Option<(u8, Range)> {
    let bytes = match kind {
        WORD_SPACE => 2,
        DWORD_SPACE => 4,
        QWORD_SPACE => 8,
        _ => return None,
    };
    // Kind of addresses and flags; then granularity, first, last, translation and how many there are.
    let field = |number: usize| {
        let field = body.get(3 + number * bytes..)?.get(..bytes)?;
        Some(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (start, len) = (field(1)?, field(4)?);
    let is_sound = len > 0 && start.checked_add(len - 1).is_some();
    is_sound.then(|| (body[0], Range { start, len }))
}

/// The entries of a template, up to its end or the first that is cut off.
fn entries(mut template: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    core::iter::from_fn(move || {
        let (&kind, rest) = template.split_first()?;
        let (len, rest) = match kind {
            END => return None,
            0x80.. => {
                let (len, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_le_bytes(*len)), rest)
            }
            _ => (usize::from(kind & 7), rest),
        };
        let (body, rest) = rest.split_at_checked(len)?;
        template = rest;
        Some((kind, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::fixtures;
    use std::vec;

    #[test]
    fn every_fixture_tells_of_its_host_bridges() {
        for config in fixtures::CONFIGS {
            let bridges = host_bridges(&fixtures::bytes(config, "dsdt.aml"));
            let buses: Vec<_> = bridges.iter().map(|bridge| bridge.first_bus).collect();
            let is_cxl = config.contains("cxl");
            assert_eq!(buses, if is_cxl { vec![12, 0] } else { vec![0] }, "{config}");
            for bridge in bridges.iter().filter(|bridge| bridge.first_bus == 0) {
                // From behind configuration space nearly up to the IOAPICs.
                let is_large = |window: &Range| window.start == 0xc000_0000 && window.end() >= 0xfe00_0000;
                let all = &bridge.windows;
                assert!(all.iter().any(is_large) || config.starts_with("pc"), "{config}: {bridge:x?}");
                assert!(all.iter().any(|window| (0x1000_0000..0xfec0_0000).contains(&window.start)), "{config}");
            }
        }
    }

    #[test]
    fn a_template_that_is_cut_off_has_the_entries_before() {
        let word = |kind: u8, first: u8, count: u8| {
            let mut entry = vec![WORD_SPACE, 13, 0, kind, 0, 0, 0, 0, first, 0, 0, 0, 0, 0, count, 0];
            entry.push(END);
            entry
        };
        let bus = word(BUSES, 7, 9);
        assert_eq!(host_bridge(&bus), Some(HostBridge { first_bus: 7, windows: vec![] }));
        assert_eq!(host_bridge(&bus[..bus.len() - 2]), None);
        assert_eq!(host_bridge(&word(BUSES, 7, 0)), None, "it passes nothing on");
        let both = [&bus[..bus.len() - 1], &word(MEMORY, 0x10, 0x20)].concat();
        let windows = vec![Range { start: 0x10, len: 0x20 }];
        assert_eq!(host_bridge(&both), Some(HostBridge { first_bus: 7, windows }));
    }

    #[test]
    fn a_method_tells_of_configuration_space() {
        let crs = |first: u8, count: u8| {
            [b"\x08_CRS\x11\x14\x0a\x11\x88\x0d\0\x02\0\0\0\0" as &[u8], &[first, 0, 0, 0, 0, 0, count, 0, END]]
                .concat()
        };
        let cba = b"\x14\x0c_CBA\0\xa4\x0c\0\0\0\xe0" as &[u8];
        let ecam = Ecam { start: 0xe000_0000, segment: 0, first_bus: 0, last_bus: 63 };
        assert_eq!(config_space(&[cba, &crs(4, 1), &crs(0, 64)].concat()), Some(ecam));
        assert_eq!(config_space(&[cba, &crs(1, 64)].concat()), None, "nothing is said of the first bus");
        assert_eq!(config_space(&[&crs(0, 64), &cba[..10]].concat()), None, "it is cut off");
        assert!(fixtures::CONFIGS.iter().all(|config| config_space(&fixtures::bytes(config, "dsdt.aml")).is_none()));
    }

    /// A slot as QEMU's microvm tells of it.
    fn slot_device(crs: &[u8]) -> Vec<u8> {
        let size = crs.len() as u8;
        let name = b"\x08_HID\x0dLNRO0005\0\x08_UID\x0a\x07\x08_CCA\x01\x08_CRS\x11";
        [&name[..], &[size + 3, 0x0a, size], crs].concat()
    }

    #[test]
    fn slots_of_virtio_have_a_place_and_a_line() {
        let memory = [0x86, 9, 0, 1, 0, 0x0e, 0xb0, 0xfe, 0, 2, 0, 0];
        let line = [0x89, 6, 0, 0xb, 1, 0x1f, 0, 0, 0];
        let whole = slot_device(&[&memory[..], &line, &[END, 0]].concat());
        let mode = GsiMode { trigger: Trigger::Edge, polarity: Polarity::ActiveHigh };
        let slot = Slot { start: 0xfeb0_0e00, len: 0x200, gsi: 31, mode };
        assert_eq!(virtio_slots(&[&whole[..], b"\x08_CRS\x11\x03\x0a\x01", &whole].concat()), [slot, slot]);
        for part in [&memory[..], &line, &memory[..9], &[]] {
            assert_eq!(virtio_slots(&slot_device(part)), [], "{part:x?}");
        }
        // What another device has is not the slot's.
        let other = [b"LNRO0005\0" as &[u8], &whole].concat();
        assert_eq!(virtio_slots(&other), [slot]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(flips in fixtures::mutations(200)) {
            for bridge in host_bridges(&fixtures::mutated("q35-bios-cxl", "dsdt.aml", &flips)) {
                assert!(bridge.windows.iter().all(|window| window.len > 0 && window.end() > window.start));
            }
        }
    }
}
