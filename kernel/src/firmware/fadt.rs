//! What the Fixed ACPI Description Table says of the hardware that every ACPI machine has. ACPI 6.5 §5.2.9.

use acpi::AcpiError;
use acpi::address::{AddressSpace, GenericAddress};
use acpi::sdt::fadt::Fadt;

/// Consecutive I/O ports of one register block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortBlock {
    pub(crate) base: u16,
    pub(crate) len: u16,
}

/// How to ask the firmware to hand the fixed hardware over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EnableCommand {
    pub(crate) port: u16,
    pub(crate) value: u8,
}

/// What to write where to reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResetRegister {
    pub(crate) port: u16,
    pub(crate) value: u8,
}

/// The power-management timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PmTimer {
    pub(crate) port: u16,
    /// 24 or 32.
    pub(crate) bits: u8,
}

/// The fixed hardware. Blocks that are not I/O ports are not listed: no machine that we run on has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FadtFacts {
    /// The interrupt of all ACPI events, as an ISA interrupt that the MADT may override.
    pub(crate) sci: u16,
    /// `None` where ACPI mode is the only one.
    pub(crate) enable: Option<EnableCommand>,
    pub(crate) pm1a_event: Option<PortBlock>,
    pub(crate) pm1a_control: Option<PortBlock>,
    pub(crate) pm1b_control: Option<PortBlock>,
    pub(crate) pm_timer: Option<PmTimer>,
    pub(crate) gpe0: Option<PortBlock>,
    pub(crate) reset: Option<ResetRegister>,
    /// Whether the power button is fixed hardware rather than a device in the namespace.
    pub(crate) fixed_power_button: bool,
    /// Physical address of the DSDT.
    pub(crate) dsdt: Option<u64>,
}

/// Bytes of the table that revision 1 has; later revisions go on with the reset register.
const RESET_END: u32 = 129;

impl FadtFacts {
    pub(crate) fn new(table: &Fadt) -> Self {
        // The crate turns the lengths into bits in a byte, which not every length fits into, for a value that we do
        // not look at.
        let mut without_lengths = *table;
        without_lengths.pm1_event_length = 0;
        without_lengths.pm1_control_length = 0;
        without_lengths.gpe0_block_length = 0;
        let fadt = &without_lengths;
        let flags = fadt.flags;
        let smi_port = u16::try_from(fadt.smi_cmd_port).ok().filter(|port| *port != 0);
        let enable = smi_port.filter(|_| fadt.acpi_enable != 0);
        let timer_bits = if flags.pm_timer_is_32_bit() { 32 } else { 24 };
        Self {
            sci: fadt.sci_interrupt,
            enable: enable.map(|port| EnableCommand { port, value: fadt.acpi_enable }),
            pm1a_event: ports(fadt.pm1a_event_block().map(Some), table.pm1_event_length),
            pm1a_control: ports(fadt.pm1a_control_block().map(Some), table.pm1_control_length),
            pm1b_control: ports(fadt.pm1b_control_block(), table.pm1_control_length),
            pm_timer: ports(fadt.pm_timer_block(), 4).map(|block| PmTimer { port: block.base, bits: timer_bits }),
            gpe0: ports(fadt.gpe0_block(), table.gpe0_block_length),
            reset: reset_register(fadt),
            fixed_power_button: !flags.power_button_is_control_method(),
            dsdt: fadt.dsdt_address().ok().map(|address| address as u64),
        }
    }
}

fn reset_register(fadt: &Fadt) -> Option<ResetRegister> {
    let flags = fadt.flags;
    let present = fadt.header.length >= RESET_END && flags.supports_system_reset_via_fadt();
    let address = GenericAddress::from_raw(fadt.reset_reg).ok().filter(|_| present)?;
    let port = port(address)?;
    Some(ResetRegister { port, value: fadt.reset_value })
}

fn ports(address: Result<Option<GenericAddress>, AcpiError>, len: u8) -> Option<PortBlock> {
    let base = port(address.ok()??)?;
    let len = u16::from(len);
    base.checked_add(len)?;
    (len > 0).then_some(PortBlock { base, len })
}

fn port(address: GenericAddress) -> Option<u16> {
    let port = u16::try_from(address.address).ok()?;
    (address.address_space == AddressSpace::SystemIo && port != 0).then_some(port)
}
