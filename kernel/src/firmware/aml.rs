//! Facts that only AML holds: the sleep type of S5, the number of DIMM slots, how PCI functions are ejected.
//!
//! All are definitions with constant values, so they are looked for and decoded on the spot. An interpreter for them would
//! be by far the largest part of the kernel, and the one we use for tables cannot run what QEMU's tables contain.
//! ACPI 6.5 §20.2.

use crate::arch::ports;
use crate::drivers::pci::{EJECTOR_PORTS, Ejector};

const NAME_OP: u8 = 0x08;
const IN_PORTS: u8 = 1;
const ROOT_CHARACTER: u8 = b'\\';
const BUFFER_OP: u8 = 0x11;
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;

/// What to write into the sleep-type field of PM1a and PM1b control to switch off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SleepType {
    pub(crate) a: u8,
    pub(crate) b: u8,
}

/// The sleep type of S5, from the package `_S5_`.
pub(crate) fn sleep_type_s5(aml: &[u8]) -> Option<SleepType> {
    named(aml, *b"_S5_").find_map(|value| {
        let elements = package_elements(value)?;
        let (a, rest) = constant(elements)?;
        // A package of one element says nothing about PM1b.
        let b = constant(rest).map_or(0, |(value, _)| value);
        let field = |value: u32| u8::try_from(value).ok().filter(|value| *value < 8);
        Some(SleepType { a: field(a)?, b: field(b).unwrap_or(0) })
    })
}

/// How many slots the memory-hotplug controller has, from QEMU's integer `MDNR`.
pub(crate) fn dimm_slot_count(aml: &[u8]) -> Option<u32> {
    named(aml, *b"MDNR").find_map(|value| constant(value).map(|(count, _)| count))
}

/// Where functions of PCI are ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EjectPorts {
    base: u16,
    buses: u32,
}

impl EjectPorts {
    #[expect(unsafe_code, reason = "whose ports these are is what the table says")]
    pub(crate) fn ejector(self) -> Ejector {
        // SAFETY: The base is made from the DSDT only, below.
        Ejector::new(unsafe { ports::pci_hotplug(self.base, EJECTOR_PORTS) }, self.buses)
    }
}

/// Where functions are ejected, from QEMU's region `PCST`, and on how many buses, whose highest number is the highest `BSEL`.
pub(crate) fn eject_ports(aml: &[u8]) -> Option<EjectPorts> {
    const BUSES_MAX: u32 = 256;
    let region = behind(aml, b"\x5b\x80PCST").next()?;
    let base = u16::try_from(constant(region.strip_prefix(&[IN_PORTS])?)?.0).ok()?;
    base.checked_add(EJECTOR_PORTS)?;
    let highest = named(aml, *b"BSEL").filter_map(|value| constant(value).map(|(number, _)| number)).max()?;
    Some(EjectPorts { base, buses: highest.saturating_add(1).min(BUSES_MAX) })
}

/// What follows each place where a text is, up to the next one.
pub(super) fn behind<'a>(aml: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let find = move |bytes: &[u8]| bytes.windows(text.len()).position(|window| window == text);
    let mut rest = find(aml).map(|at| &aml[at + text.len()..]);
    core::iter::from_fn(move || {
        let own = rest?;
        let next = find(own);
        rest = next.map(|at| &own[at + text.len()..]);
        Some(&own[..next.unwrap_or(own.len())])
    })
}

/// The bytes of every buffer that is defined by that name.
pub(super) fn buffers(aml: &[u8], name: [u8; 4]) -> impl Iterator<Item = &[u8]> {
    named(aml, name).filter_map(|value| {
        let body = value.strip_prefix(&[BUFFER_OP])?;
        let (length, length_bytes) = package_length(body)?;
        let (size, bytes) = constant(body.get(length_bytes..length.min(body.len()))?)?;
        Some(&bytes[..bytes.len().min(size as usize)])
    })
}

/// What follows each definition of that name.
fn named(aml: &[u8], name: [u8; 4]) -> impl Iterator<Item = &[u8]> {
    (0..aml.len()).filter_map(move |offset| {
        let rest = aml[offset..].strip_prefix(&[NAME_OP])?;
        rest.strip_prefix(&[ROOT_CHARACTER]).unwrap_or(rest).strip_prefix(&name)
    })
}

/// The elements of a package, behind its length and their count.
fn package_elements(value: &[u8]) -> Option<&[u8]> {
    let body = value.strip_prefix(&[PACKAGE_OP])?;
    let (length, length_bytes) = package_length(body)?;
    body.get(length_bytes + 1..length.min(body.len()))
}

/// A package length, which counts itself, and how many bytes it takes.
fn package_length(body: &[u8]) -> Option<(usize, usize)> {
    let lead = usize::from(*body.first()?);
    let more = lead >> 6;
    if more == 0 {
        return Some((lead & 0x3f, 1));
    }
    let high = body.get(1..=more)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    Some((high << 4 | lead & 0xf, 1 + more))
}

/// A constant integer of at most 32 bits and what follows it.
pub(super) fn constant(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&prefix, rest) = bytes.split_first()?;
    let width = match prefix {
        ZERO_OP => return Some((0, rest)),
        ONE_OP => return Some((1, rest)),
        BYTE_PREFIX => 1,
        WORD_PREFIX => 2,
        DWORD_PREFIX => 4,
        _ => return None,
    };
    let (field, rest) = rest.split_at_checked(width)?;
    Some((field.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::fixtures;

    #[test]
    fn every_fixture_says_how_to_switch_off() {
        for config in fixtures::CONFIGS {
            let dsdt = fixtures::bytes(config, "dsdt.aml");
            assert_eq!(sleep_type_s5(&dsdt), Some(SleepType { a: 0, b: 0 }), "{config}");
        }
    }

    #[test]
    fn machines_with_slots_say_how_many() {
        for config in fixtures::CONFIGS {
            let expected = if config.ends_with("-plain") { None } else { Some(4) };
            assert_eq!(dimm_slot_count(&fixtures::bytes(config, "dsdt.aml")), expected, "{config}");
        }
    }

    #[test]
    fn every_fixture_says_where_functions_are_ejected() {
        for config in fixtures::CONFIGS {
            let base = if config.starts_with("pc") { 0xae00 } else { 0xcc0 };
            let ports = eject_ports(&fixtures::bytes(config, "dsdt.aml"));
            if let Some(ports) = ports {
                assert_eq!((ports.base, ports.buses), (base, 1), "{config}");
            }
            assert!(ports.is_some() || config.starts_with("q35"), "{config}");
        }
        let with = |region: &[u8], bus: &[u8]| eject_ports(&[b"\x5b\x80PCST", region, b"\x08BSEL", bus].concat());
        assert_eq!(with(&[1, 0x0b, 0xc0, 0x0c], &[0x0a, 7]), Some(EjectPorts { base: 0xcc0, buses: 8 }));
        assert_eq!(with(&[1, 0x0b, 0xc0, 0x0c], &[0x0c, 0xff, 0xff, 0xff, 0xff]).map(|ports| ports.buses), Some(256));
        for nowhere in [&[0, 0x0b, 0xc0, 0x0c][..], &[1, 0x0b, 0xf0, 0xff], &[1, 0x0c, 0, 0, 1, 0], &[1]] {
            assert_eq!(with(nowhere, &[0]), None, "{nowhere:x?}");
        }
        assert_eq!(with(&[1, 0x0b, 0xc0, 0x0c], &[]), None);
    }

    #[test]
    fn every_width_of_constant_is_read() {
        let count = |value: &[u8]| dimm_slot_count(&[b"\x08MDNR", value].concat());
        assert_eq!(count(&[0]), Some(0));
        assert_eq!(count(&[1]), Some(1));
        assert_eq!(count(&[0x0a, 0xff]), Some(255));
        assert_eq!(count(&[0x0b, 0x00, 0x01]), Some(256));
        assert_eq!(count(&[0x0c, 4, 3, 2, 1]), Some(0x0102_0304));
        assert_eq!(count(&[0x0a]), None);
        assert_eq!(count(&[0x0d, b'4', 0]), None);
        assert_eq!(count(&[]), None);
    }

    #[test]
    fn a_definition_with_a_root_prefix_and_other_values_is_read() {
        let package = [0x12, 0x0a, 0x04, 0x0a, 5, 0x0b, 7, 0, 0x00, 0x00, 0xff];
        assert_eq!(sleep_type_s5(&[b"\x08\\_S5_", &package[..]].concat()), Some(SleepType { a: 5, b: 7 }));
        let long = [0x12, 0x44, 0x00, 0x01, 0x0a, 6];
        assert_eq!(sleep_type_s5(&[b"\x08_S5_", &long[..]].concat()), None);
        let long = [0x12, 0x45, 0x00, 0x01, 0x0a, 6];
        assert_eq!(sleep_type_s5(&[b"\x08_S5_", &long[..]].concat()), Some(SleepType { a: 6, b: 0 }));
    }

    #[test]
    fn a_use_of_the_name_is_not_its_definition() {
        assert_eq!(dimm_slot_count(b"\x95\x68MDNR\x0a\x04"), None);
        assert_eq!(dimm_slot_count(b"\x08MDNR\x11\x04\x08MDNR\x0a\x09"), Some(9));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(flips in fixtures::mutations(200)) {
            let aml = fixtures::mutated("q35-bios-numa", "dsdt.aml", &flips);
            assert!(sleep_type_s5(&aml).is_none_or(|sleep| sleep.a < 8 && sleep.b < 8));
            dimm_slot_count(&aml);
            eject_ports(&aml);
        }
    }
}
