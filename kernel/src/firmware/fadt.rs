//! What the Fixed ACPI Description Table says of the hardware that every ACPI machine has. ACPI 6.5 §5.2.9.

use crate::arch::ByteRegister;
use crate::arch::ports::{self, PortRange};
use acpi::AcpiError;
use acpi::address::{AddressSpace, GenericAddress};
use acpi::sdt::fadt::Fadt;
use alloc::vec::Vec;
use mm::addr::MAX_PHYS_BITS;
use mm::plural::Plural;
use thiserror::Error;

/// Consecutive I/O ports of one register block, as the table names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortBlock {
    pub(super) base: u16,
    pub(super) len: u16,
}

impl PortBlock {
    /// The registers, to be read and written.
    #[expect(unsafe_code, reason = "whose ports these are is what the table says")]
    pub(crate) fn registers(self) -> PortRange {
        // SAFETY: Blocks are made from the FADT only.
        unsafe { ports::from_fadt(self.base, self.len) }
    }
}

/// How to ask the firmware to hand the fixed hardware over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EnableCommand {
    pub(crate) port: PortBlock,
    pub(crate) value: u8,
}

/// Where a register of one byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BytePlace {
    Port(u16),
    /// A physical address.
    Memory(u64),
}

impl BytePlace {
    /// The register, to be written.
    #[expect(unsafe_code, reason = "whose register this is is what the table says")]
    pub(crate) fn register(self) -> ByteRegister {
        match self {
            // SAFETY: Places are made from the FADT only.
            Self::Port(port) => unsafe { ByteRegister::at_port(port) },
            // SAFETY: As above.
            Self::Memory(address) => unsafe { ByteRegister::at_address(address) },
        }
    }
}

/// What to write where to reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResetRegister {
    pub(crate) place: BytePlace,
    pub(crate) value: u8,
}

/// The power-management timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PmTimer {
    pub(crate) port: PortBlock,
    /// 24 or 32.
    pub(crate) bits: u8,
}

/// The fixed hardware, or what replaces it where hardware is reduced. Blocks that are not I/O ports are not listed: no machine
/// that we run on has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FadtFacts {
    /// The interrupt of all ACPI events, as an ISA interrupt that the MADT may override; `None` where hardware is reduced.
    pub(crate) sci: Option<u16>,
    /// `None` where ACPI mode is the only one.
    pub(crate) enable: Option<EnableCommand>,
    pub(crate) pm1a_event: Option<PortBlock>,
    pub(crate) pm1a_control: Option<PortBlock>,
    pub(crate) pm1b_control: Option<PortBlock>,
    pub(crate) pm_timer: Option<PmTimer>,
    pub(crate) gpe0: Option<PortBlock>,
    pub(crate) reset: Option<ResetRegister>,
    /// How to sleep where hardware is reduced.
    pub(crate) sleep_control: Option<BytePlace>,
    /// Whether the power button is fixed hardware rather than a device in the namespace.
    pub(crate) fixed_power_button: bool,
    /// Physical address of the DSDT.
    pub(crate) dsdt: Option<u64>,
    /// What was wrong with the table, to be logged.
    pub(crate) problems: Vec<FadtProblem>,
}

/// Why a register block is taken to be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum FadtProblem {
    #[error("PM1 event block of {}, too short for status and enable; ignored", Plural(u64::from(*.0), "byte"))]
    Pm1Event(u8),
    #[error("PM1 control block of {}, too short for its register; ignored", Plural(u64::from(*.0), "byte"))]
    Pm1Control(u8),
    #[error("GPE0 block of {}, not two halves; ignored", Plural(u64::from(*.0), "byte"))]
    Gpe0(u8),
    #[error("a register at {0:#x} is beyond any physical address; ignored")]
    OutOfReach(u64),
}

/// A 16-bit status and a 16-bit enable register.
const PM1_EVENT_BYTES: u8 = 4;
/// One 16-bit register.
const PM1_CONTROL_BYTES: u8 = 2;

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
        let Lengths { pm1_event, pm1_control, gpe0, mut problems } = Lengths::new(table);
        let flags = fadt.flags;
        let is_reduced = flags.system_is_hw_reduced_acpi();
        let smi_port = u16::try_from(fadt.smi_cmd_port).ok().filter(|port| *port != 0);
        let enable = smi_port.filter(|_| fadt.acpi_enable != 0);
        let sleep_control = fadt.sleep_control_register().ok().flatten().filter(|_| is_reduced);
        let timer_bits = if flags.pm_timer_is_32_bit() { 32 } else { 24 };
        Self {
            sci: (!is_reduced).then_some(fadt.sci_interrupt),
            enable: enable
                .map(|port| EnableCommand { port: PortBlock { base: port, len: 1 }, value: fadt.acpi_enable }),
            pm1a_event: port_block(fadt.pm1a_event_block().map(Some), pm1_event),
            pm1a_control: port_block(fadt.pm1a_control_block().map(Some), pm1_control),
            pm1b_control: port_block(fadt.pm1b_control_block(), pm1_control),
            pm_timer: port_block(fadt.pm_timer_block(), 4).map(|port| PmTimer { port, bits: timer_bits }),
            gpe0: port_block(fadt.gpe0_block(), gpe0),
            reset: reset_register(fadt, &mut problems),
            sleep_control: sleep_control.and_then(|address| place(address, &mut problems)),
            fixed_power_button: !flags.power_button_is_control_method(),
            dsdt: fadt.dsdt_address().ok().map(|address| address as u64),
            problems,
        }
    }
}

/// How long the register blocks are: zero for one that cannot hold its registers. Only the general-purpose events may be
/// absent without a word.
struct Lengths {
    pm1_event: u8,
    pm1_control: u8,
    gpe0: u8,
    problems: Vec<FadtProblem>,
}

impl Lengths {
    fn new(table: &Fadt) -> Self {
        let flags = table.flags;
        if flags.system_is_hw_reduced_acpi() {
            return Self { pm1_event: 0, pm1_control: 0, gpe0: 0, problems: Vec::new() };
        }
        let (event, control, gpe0) = (table.pm1_event_length, table.pm1_control_length, table.gpe0_block_length);
        let mut problems = Vec::new();
        let mut sound = |len: u8, least: u8, multiple_of: u8, problem: FadtProblem| {
            let is_sound = len >= least && len.is_multiple_of(multiple_of);
            problems.extend((!is_sound).then_some(problem));
            if is_sound { len } else { 0 }
        };
        Self {
            pm1_event: sound(event, PM1_EVENT_BYTES, 1, FadtProblem::Pm1Event(event)),
            pm1_control: sound(control, PM1_CONTROL_BYTES, 1, FadtProblem::Pm1Control(control)),
            gpe0: sound(gpe0, 0, 2, FadtProblem::Gpe0(gpe0)),
            problems,
        }
    }
}

fn reset_register(fadt: &Fadt, problems: &mut Vec<FadtProblem>) -> Option<ResetRegister> {
    let flags = fadt.flags;
    let present = fadt.header.length >= RESET_END && flags.supports_system_reset_via_fadt();
    let address = GenericAddress::from_raw(fadt.reset_reg).ok().filter(|_| present)?;
    Some(ResetRegister { place: place(address, problems)?, value: fadt.reset_value })
}

fn place(address: GenericAddress, problems: &mut Vec<FadtProblem>) -> Option<BytePlace> {
    match address.address_space {
        AddressSpace::SystemIo => port(address).map(BytePlace::Port),
        AddressSpace::SystemMemory if address.address >> MAX_PHYS_BITS != 0 => {
            problems.push(FadtProblem::OutOfReach(address.address));
            None
        }
        AddressSpace::SystemMemory => Some(address.address).filter(|address| *address != 0).map(BytePlace::Memory),
        _ => None,
    }
}

fn port_block(address: Result<Option<GenericAddress>, AcpiError>, len: u8) -> Option<PortBlock> {
    let base = port(address.ok()??)?;
    let len = u16::from(len);
    base.checked_add(len)?;
    (len > 0).then_some(PortBlock { base, len })
}

fn port(address: GenericAddress) -> Option<u16> {
    let port = u16::try_from(address.address).ok()?;
    (address.address_space == AddressSpace::SystemIo && port != 0).then_some(port)
}
