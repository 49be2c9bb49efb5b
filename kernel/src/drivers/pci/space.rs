//! The ways to configuration space: by two ports, as on every PC (PCI Local Bus 3.0 §3.2.2.3.2), or in memory, where the
//! firmware says so (PCI Express 4.0 §7.2.2).
//!
//! What the firmware says is believed if it leads to the same first function as the ports do, or to one at all where there are no
//! ports. Memory that belongs to somebody else is not even looked at.

use super::{Address, ConfigSpace, ID, NOBODY, Range};
use crate::arch::ports::PortRange;
use crate::memory::mmio::Mmio;
use alloc::vec::Vec;
use thiserror::Error;

/// Configuration space of a bus, and of a function.
const BUS_BYTES: u64 = 1 << 20;
const FUNCTION_BYTES: usize = 1 << 12;

/// The configuration space of some buses of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ecam {
    /// Of the first of its buses.
    pub(crate) start: u64,
    pub(crate) segment: u16,
    pub(crate) first_bus: u8,
    pub(crate) last_bus: u8,
}

impl Ecam {
    pub(crate) fn len(&self) -> u64 {
        (u64::from(self.last_bus) - u64::from(self.first_bus) + 1) * BUS_BYTES
    }
}

/// Why configuration space is not looked for where the firmware says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("memory is there")]
    Taken,
    #[error("nothing lies at address zero")]
    Zero,
    #[error("no such address is supported")]
    OutOfReach,
    #[error("function {found:08x} is there instead of {expected:08x}")]
    Differs { found: u32, expected: u32 },
}

/// One of the ways.
pub(crate) enum Space {
    Ports(PortRange),
    Memory(Windows),
}

/// Buses in memory, each made visible when it is first asked for.
pub(crate) struct Windows {
    ecam: Ecam,
    buses: Vec<Option<Mmio>>,
}

impl Windows {
    fn new(ecam: Ecam) -> Self {
        let count = usize::from(ecam.last_bus - ecam.first_bus) + 1;
        Self { ecam, buses: (0..count).map(|_| None).collect() }
    }

    /// The registers of a bus; `None` if they are elsewhere.
    fn bus(&mut self, bus: u8) -> Option<&Mmio> {
        let number = usize::from(bus.checked_sub(self.ecam.first_bus)?);
        let slot = self.buses.get_mut(number)?;
        if slot.is_none() {
            *slot = Mmio::map(self.ecam.start + number as u64 * BUS_BYTES, BUS_BYTES as usize);
        }
        slot.as_ref()
    }
}

impl Space {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ports(_) => "by ports",
            Self::Memory(_) => "in memory",
        }
    }

    /// The way that the firmware says, if it can be believed, else by the ports.
    pub(super) fn choose(ports: PortRange, regions: &[Ecam], memory: &[Range]) -> Self {
        let mut ports = Self::Ports(ports);
        let Some(ecam) = regions.iter().find(|region| region.segment == 0 && region.first_bus == 0) else {
            return ports;
        };
        match Self::open(*ecam, ports.read(FIRST, ID), memory) {
            Ok(windows) => windows,
            Err(why) => {
                log::warn!(target: "pci", "configuration space at {:#x} is not used: {why}", ecam.start);
                ports
            }
        }
    }

    fn open(ecam: Ecam, expected: u32, memory: &[Range]) -> Result<Self, Refused> {
        check_place(ecam, memory)?;
        let mut windows = Windows::new(ecam);
        windows.bus(0).ok_or(Refused::OutOfReach)?;
        let mut space = Self::Memory(windows);
        check_first(space.read(FIRST, ID), expected)?;
        Ok(space)
    }
}

/// The function that every host bridge has.
const FIRST: Address = Address { bus: 0, device: 0, function: 0 };

/// Whether configuration space can be there at all.
fn check_place(ecam: Ecam, memory: &[Range]) -> Result<(), Refused> {
    let place = Range { start: ecam.start, len: ecam.len() };
    if ecam.start == 0 {
        return Err(Refused::Zero);
    }
    let is_taken = memory.iter().any(|range| range.start < place.end() && place.start < range.end());
    if is_taken { Err(Refused::Taken) } else { Ok(()) }
}

/// Whether the first function is the one that the ports show, if they show any.
fn check_first(found: u32, expected: u32) -> Result<(), Refused> {
    let is_there = |id: u32| id & 0xffff != NOBODY && id != 0;
    let is_right = if is_there(expected) { found == expected } else { is_there(found) };
    is_right.then_some(()).ok_or(Refused::Differs { found, expected })
}

const ADDRESS_PORT: u16 = 0;
const DATA_PORT: u16 = 4;
const ENABLE: u32 = 1 << 31;

fn select(ports: &PortRange, Address { bus, device, function }: Address, register: u8) {
    let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(register & !3);
    ports.write_u32(ADDRESS_PORT, ENABLE | place);
}

/// Where a register of a function lies in the space of its bus.
fn offset(function: Address, register: u8) -> usize {
    (usize::from(function.device) << 3 | usize::from(function.function)) * FUNCTION_BYTES + usize::from(register & !3)
}

impl ConfigSpace for Space {
    fn read(&mut self, function: Address, register: u8) -> u32 {
        match self {
            Self::Ports(ports) => {
                select(ports, function, register);
                ports.read_u32(DATA_PORT)
            }
            Self::Memory(windows) => {
                windows.bus(function.bus).map_or(u32::MAX, |bus| bus.read(offset(function, register)))
            }
        }
    }

    fn write(&mut self, function: Address, register: u8, value: u32) {
        match self {
            Self::Ports(ports) => {
                select(ports, function, register);
                ports.write_u32(DATA_PORT, value);
            }
            Self::Memory(windows) => {
                if let Some(bus) = windows.bus(function.bus) {
                    bus.write(offset(function, register), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q35: Ecam = Ecam { start: 0xb000_0000, segment: 0, first_bus: 0, last_bus: 255 };

    #[test]
    fn a_place_is_believed_where_nobody_else_is() {
        let ram = [Range { start: 0, len: 0xb000_0000 }, Range { start: 1 << 32, len: 1 << 30 }];
        assert_eq!(check_place(Q35, &ram), Ok(()));
        for start in [0xaff0_0000, 0x1000, 0xf800_0000, 1 << 32] {
            assert_eq!(check_place(Ecam { start, ..Q35 }, &ram), Err(Refused::Taken), "{start:#x}");
        }
        assert_eq!(check_place(Ecam { start: 0, last_bus: 0, ..Q35 }, &[]), Err(Refused::Zero));
        let last = Ecam { start: u64::MAX << 20, last_bus: 0, ..Q35 };
        assert_eq!(check_place(last, &ram), Ok(()), "its end does not wrap");
    }

    #[test]
    fn a_place_is_believed_that_shows_what_the_ports_show() {
        assert_eq!(check_first(0x29c0_8086, 0x29c0_8086), Ok(()));
        assert_eq!(check_first(0x0008_1b36, u32::MAX), Ok(()), "there are no ports");
        for (found, expected) in [(u32::MAX, 0x29c0_8086), (0, u32::MAX), (u32::MAX, u32::MAX), (1, 0x29c0_8086)] {
            assert_eq!(check_first(found, expected), Err(Refused::Differs { found, expected }));
        }
    }

    #[test]
    fn a_register_lies_where_the_bus_has_it() {
        assert_eq!(offset(Address { bus: 9, device: 31, function: 7 }, 0xff), 0xf_f0fc);
        assert_eq!(offset(Address { bus: 0, device: 1, function: 2 }, 0x10), 0xa010);
    }
}
