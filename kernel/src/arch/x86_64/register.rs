//! A register of one byte, wherever the firmware says that it is.

use super::ports::{self, PortRange};
use crate::memory;

/// The register, to be written.
#[derive(Debug)]
pub(crate) enum ByteRegister {
    Port(PortRange),
    /// Where its byte is mapped.
    Mapped(*mut u8),
}

// SAFETY: The register is mapped for good and may be reached from every CPU.
unsafe impl Send for ByteRegister {}
// SAFETY: An access is a single store.
unsafe impl Sync for ByteRegister {}

impl ByteRegister {
    /// The register at a port.
    ///
    /// # Safety
    /// The FADT names it.
    pub(crate) const unsafe fn at_port(port: u16) -> Self {
        // SAFETY: By the contract.
        Self::Port(unsafe { ports::from_fadt(port, 1) })
    }

    /// The register at a physical address.
    ///
    /// # Safety
    /// The FADT names it: it belongs to ACPI's hardware and is no memory of the kernel's.
    pub(crate) unsafe fn at_address(address: u64) -> Self {
        Self::Mapped(memory::map_mmio(address, 1))
    }

    pub(crate) fn write(&self, value: u8) {
        match self {
            Self::Port(port) => port.write_u8(0, value),
            // SAFETY: The register stays mapped, and whoever made this knew that it is one of ACPI's hardware.
            Self::Mapped(byte) => unsafe { byte.write_volatile(value) },
        }
    }
}
