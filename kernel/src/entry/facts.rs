//! What every way into the kernel tells it, as plain values.

use spin::Once;

/// OVMF hands over about 124 regions; merged they are a few dozen.
pub(super) const REGIONS_MAX: usize = 256;

/// A longer command line is refused; Linux takes 2048 bytes, and QEMU's firmware has room for no more than this.
pub(super) const COMMAND_LINE_BYTES_MAX: usize = 4096;

/// One stretch of physical memory, `start..end` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRegion {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: RegionKind,
}

/// Who uses a region when the kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionKind {
    /// Free RAM.
    Usable,
    /// RAM that holds the kernel, the first page tables, and what was loaded beside it.
    Bootloader,
    /// RAM or devices that the firmware keeps.
    Firmware,
}

/// Regions, sorted by address, without overlap, neighbours of one kind merged.
pub(crate) type MemoryMap = heapless::Vec<MemoryRegion, REGIONS_MAX>;

/// Bytes of a command line, without the zero at its end.
pub(crate) type CommandLine = heapless::Vec<u8, COMMAND_LINE_BYTES_MAX>;

/// What the rest of the kernel learns from what started it.
#[derive(Debug)]
pub(crate) struct BootFacts {
    pub(crate) memory: MemoryMap,
    /// Physical address of the ACPI root pointer.
    pub(crate) rsdp: Option<u64>,
    /// The parameters that came with the kernel.
    pub(crate) command_line: CommandLine,
    /// The top-level page-table slot that maps the tables themselves.
    pub(crate) recursive_index: u16,
}

static FACTS: Once<BootFacts> = Once::new();

/// Keeps the facts for ever; called once.
pub(crate) fn keep(facts: BootFacts) -> &'static BootFacts {
    FACTS.call_once(|| facts)
}

/// The facts once they are kept; `None` in the first instructions of the kernel.
pub(crate) fn facts() -> Option<&'static BootFacts> {
    FACTS.get()
}
