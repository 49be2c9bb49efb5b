//! I/O ports, as claimed ranges that are safe to use.
//!
//! A driver gets the range of its own device from one of the functions below; an access outside the range panics.

use uart_16550::Uart16550;
use uart_16550::backend::PioBackend;

/// A stretch of I/O ports that belongs to one device.
#[derive(Debug)]
pub(crate) struct PortRange {
    base: u16,
    length: u16,
}

impl PortRange {
    /// Claims `length` ports from `base` on.
    ///
    /// # Safety
    /// The ports must belong to one device whose accesses cannot violate memory safety (no bus-master programming).
    pub(super) const unsafe fn claim(base: u16, length: u16) -> Self {
        Self { base, length }
    }

    pub(crate) fn read_u8(&self, offset: u16) -> u8 {
        let port = self.port(offset, 1);
        let value: u8;
        // SAFETY: The range was claimed for a device that is safe to access.
        unsafe {
            core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
        }
        value
    }

    pub(crate) fn read_u16(&self, offset: u16) -> u16 {
        let port = self.port(offset, 2);
        let value: u16;
        // SAFETY: The range was claimed for a device that is safe to access.
        unsafe {
            core::arch::asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags));
        }
        value
    }

    pub(crate) fn read_u32(&self, offset: u16) -> u32 {
        let port = self.port(offset, 4);
        let value: u32;
        // SAFETY: The range was claimed for a device that is safe to access.
        unsafe {
            core::arch::asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
        }
        value
    }

    pub(crate) fn write_u8(&self, offset: u16, value: u8) {
        let port = self.port(offset, 1);
        // SAFETY: The range was claimed for a device that is safe to access.
        unsafe {
            core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
        }
    }

    pub(crate) fn write_u16(&self, offset: u16, value: u16) {
        let port = self.port(offset, 2);
        // SAFETY: The range was claimed for a device that is safe to access.
        unsafe {
            core::arch::asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags));
        }
    }

    pub(crate) fn write_u32(&self, offset: u16, value: u32) {
        let port = self.port(offset, 4);
        // SAFETY: The range was claimed for a device that is safe to access.
        unsafe {
            core::arch::asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
        }
    }

    fn port(&self, offset: u16, width: u16) -> u16 {
        assert!(
            offset.checked_add(width).is_some_and(|end| end <= self.length),
            "port offset {offset:#x} lies outside the {} ports from {:#x}",
            self.length,
            self.base
        );
        self.base + offset
    }
}

/// QEMU's fw_cfg: selector and data ports.
pub(crate) fn fw_cfg() -> PortRange {
    // SAFETY: fixed by QEMU's pc and q35 machines; used by the fw_cfg driver only, which reads through the data port.
    unsafe { PortRange::claim(0x510, 2) }
}

/// The memory-hotplug controller (QEMU docs/specs/acpi_mem_hotplug.rst).
pub(crate) fn dimm_controller() -> PortRange {
    // SAFETY: fixed by QEMU's pc and q35 machines; used by the DIMM driver only.
    unsafe { PortRange::claim(0xa00, 0x18) }
}

/// The address and the data of PCI's configuration space.
pub(crate) const fn pci_config() -> PortRange {
    // SAFETY: fixed on every PC, by nobody else on machines without PCI; only the PCI driver asks for it, by 32 bits at a time,
    // which do not reach the chipset's reset control between the two. A function becomes a bus master only for a driver that has
    // reset it, and that tells it of no memory but what was set aside for it.
    unsafe { PortRange::claim(0xcf8, 8) }
}

/// QEMU's registers for PCI hotplug.
///
/// # Safety
/// The DSDT names these ports, with the name that QEMU gives them.
pub(crate) const unsafe fn pci_hotplug(base: u16, length: u16) -> PortRange {
    // SAFETY: By the contract they belong to that device, which masters no bus.
    unsafe { PortRange::claim(base, length) }
}

/// A register block that the FADT names: PM1 event and control, PM timer, GPE, SMI command, reset register.
///
/// # Safety
/// The FADT names these ports. Then they belong to ACPI's fixed hardware, which masters no bus.
pub(crate) const unsafe fn from_fadt(base: u16, length: u16) -> PortRange {
    // SAFETY: By the contract, and accesses of several parts of the kernel to one such register cannot violate memory safety.
    unsafe { PortRange::claim(base, length) }
}

/// The chipset's reset control.
pub(crate) fn chipset_reset() -> PortRange {
    // SAFETY: on machines without it the port belongs to nobody; only `power` asks for it.
    unsafe { PortRange::claim(0xcf9, 1) }
}

/// The command port of the keyboard controller.
pub(crate) fn keyboard_controller() -> PortRange {
    // SAFETY: fixed on every PC; only `power` asks for it.
    unsafe { PortRange::claim(0x64, 1) }
}

/// The modem-control register of the first serial port.
pub(crate) fn com1_modem_control() -> PortRange {
    // SAFETY: part of COM1, and only its driver asks for it.
    unsafe { PortRange::claim(0x3fc, 1) }
}

/// Channel 2 of the PIT, and the command port behind it.
pub(super) fn pit_channel_2() -> PortRange {
    // SAFETY: fixed on every PC; only `pit` asks for it.
    unsafe { PortRange::claim(0x42, 2) }
}

/// The port that lets channel 2 of the PIT count, and makes the speaker hear it.
pub(super) fn pit_gate() -> PortRange {
    // SAFETY: fixed on every PC; only `pit` asks for it, and changes these two bits.
    unsafe { PortRange::claim(0x61, 1) }
}

/// The first 8259.
pub(super) fn pic_primary() -> PortRange {
    // SAFETY: fixed on every PC; only `pic` asks for it.
    unsafe { PortRange::claim(0x20, 2) }
}

/// The second 8259.
pub(super) fn pic_secondary() -> PortRange {
    // SAFETY: fixed on every PC; only `pic` asks for it.
    unsafe { PortRange::claim(0xa0, 2) }
}

/// QEMU's isa-debug-exit, where the host tool puts it.
pub(super) fn debug_exit() -> PortRange {
    // SAFETY: the port belongs to that device or to nobody.
    unsafe { PortRange::claim(0xf4, 1) }
}

/// The first serial port beside its owner, for the last words of a panic: everybody else has stopped. QEMU's and real
/// devices keep their settings, and sending looks at the device only.
pub(crate) fn com1_unlocked() -> Uart16550<PioBackend> {
    com1()
}

/// The first serial port.
pub(crate) const fn com1() -> Uart16550<PioBackend> {
    // SAFETY: COM1 lies at 0x3f8 on every PC; only the console driver asks for it.
    match unsafe { Uart16550::new_port(0x3f8) } {
        Ok(uart) => uart,
        Err(_) => panic!("0x3f8 is a valid port"),
    }
}
