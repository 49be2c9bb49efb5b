//! Functions that shall go: QEMU's registers for PCI hotplug (QEMU docs/specs/acpi_pci_hotplug.rst). The host asks for a slot to be
//! emptied, and the device goes when it is ejected.

use crate::arch::ports::PortRange;

// Registers of 32 bits each; of the first two, a bit for each slot of the bus that is selected.
const DOWN: u16 = 0x04;
const EJECT: u16 = 0x08;
const SELECT: u16 = 0x10;

/// How many ports they are.
pub(crate) const PORTS: u16 = 0x14;

/// The registers, and how many buses there are to be selected.
pub(crate) struct Ejector {
    ports: PortRange,
    buses: u32,
}

impl Ejector {
    pub(crate) const fn new(ports: PortRange, buses: u32) -> Self {
        Self { ports, buses }
    }

    /// Lets everything go that the host wants to have back.
    pub(crate) fn eject_all(&self) {
        for bus in 0..self.buses {
            self.ports.write_u32(SELECT, bus);
            let asked = self.ports.read_u32(DOWN);
            for slot in (0..u32::BITS).filter(|slot| asked >> slot & 1 != 0) {
                log::info!(target: "pci", "slot {slot} of hotplug bus {bus} is ejected");
                self.ports.write_u32(EJECT, 1 << slot);
            }
        }
    }
}
