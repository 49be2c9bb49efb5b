//! What a PVH loader hands over, as bytes that nobody has checked.
//!
//! Layout: xen/include/public/arch-x86/hvm/start_info.h. All of it may lie in memory that the map calls usable, so everything is
//! copied before any memory is used.

use super::super::facts::{COMMAND_LINE_BYTES_MAX, CommandLine, MemoryMap, MemoryRegion, RegionKind};
use super::super::map::memory_map;
use super::rsdp;
use core::ops::Range;
use thiserror::Error;

const MAGIC: u32 = 0x336e_c578;
/// The start info as of version 1.
const BYTES: usize = 56;
const MODULE_BYTES: usize = 32;
const ENTRY_BYTES: usize = 24;
/// No firmware has so many; a number beyond it is no number of entries.
const ENTRIES_MAX: u32 = 1 << 16;
const MODULES_MAX: u32 = 1 << 10;
/// As in the map of a PC's BIOS (ACPI 6.5 §15.1).
const TYPE_RAM: u32 = 1;
/// No CPU has more address bits.
const ADDRESS_END: u64 = 1 << 52;

/// What the kernel takes from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HandedOver {
    pub(super) memory: MemoryMap,
    /// Physical address of the ACPI root pointer.
    pub(super) rsdp: Option<u64>,
    pub(super) command_line: CommandLine,
}

/// Why the kernel cannot be started by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum StartInfoError {
    #[error("the start info at {0:#x} is out of reach")]
    OutOfReach(u64),
    #[error("the start info has the magic number {0:#x}")]
    Magic(u32),
    #[error("the start info is of version 0, which has no memory map")]
    Version,
    #[error("the memory map at {address:#x} with {count} entries cannot be read")]
    Map { address: u64, count: u32 },
    #[error("the list of modules at {address:#x} with {count} entries cannot be read")]
    Modules { address: u64, count: u32 },
    #[error("the memory map has no RAM")]
    NoRam,
}

/// Reads what lies at `address` and what that points to. `view` shows physical memory, less than asked for where there is no
/// more; the kernel's image lies at `image`.
pub(super) fn read<'a>(
    view: impl Fn(u64, usize) -> &'a [u8],
    address: u64,
    image: Range<u64>,
) -> Result<HandedOver, StartInfoError> {
    let bytes = view(address, BYTES);
    if bytes.len() < BYTES {
        return Err(StartInfoError::OutOfReach(address));
    }
    let [magic, version, _flags, module_count] = [0, 4, 8, 12].map(|at| word(bytes, at));
    if magic != MAGIC {
        return Err(StartInfoError::Magic(magic));
    }
    if version == 0 {
        return Err(StartInfoError::Version);
    }
    let [module_list, command_line, root, map] = [16, 24, 32, 40].map(|at| long(bytes, at));
    let count = word(bytes, 48);
    let entries = table(&view, map, count, ENTRY_BYTES, ENTRIES_MAX);
    let entries = entries.ok_or(StartInfoError::Map { address: map, count })?;
    let modules = table(&view, module_list, module_count, MODULE_BYTES, MODULES_MAX);
    let modules = modules.ok_or(StartInfoError::Modules { address: module_list, count: module_count })?;

    let image = MemoryRegion { start: image.start, end: image.end, kind: RegionKind::Bootloader };
    let memory = memory_map(mapped(entries).chain(loaded(modules)).chain([image]));
    if memory.iter().all(|region| region.kind != RegionKind::Usable) {
        return Err(StartInfoError::NoRam);
    }
    Ok(HandedOver {
        memory,
        rsdp: Some(root).filter(|root| *root != 0).or_else(|| rsdp::find(&view)),
        command_line: copy_command_line(&view, command_line),
    })
}

/// The bytes of a table, if all of them are there.
fn table<'a>(
    view: &impl Fn(u64, usize) -> &'a [u8],
    address: u64,
    count: u32,
    entry_bytes: usize,
    count_max: u32,
) -> Option<&'a [u8]> {
    if count == 0 {
        return Some(&[]);
    }
    let bytes = (count <= count_max).then_some(count as usize * entry_bytes)?;
    Some(view(address, bytes)).filter(|table| table.len() == bytes)
}

/// What the map says of memory. What is no RAM is left to the firmware; what makes no sense is left out.
fn mapped(entries: &[u8]) -> impl Iterator<Item = MemoryRegion> + Clone {
    entries.as_chunks::<ENTRY_BYTES>().0.iter().filter_map(|entry| {
        let kind = if word(entry, 16) == TYPE_RAM { RegionKind::Usable } else { RegionKind::Firmware };
        region(long(entry, 0), long(entry, 8), kind)
    })
}

/// Where modules lie. Nobody looks into them, so it is enough that their memory is not ours.
fn loaded(modules: &[u8]) -> impl Iterator<Item = MemoryRegion> + Clone {
    let modules = modules.as_chunks::<MODULE_BYTES>().0.iter();
    modules.filter_map(|module| region(long(module, 0), long(module, 8), RegionKind::Firmware))
}

/// RAM that ends nowhere is none; what is kept from us is kept as far as it can reach.
fn region(start: u64, bytes: u64, kind: RegionKind) -> Option<MemoryRegion> {
    let end = match start.checked_add(bytes).filter(|end| *end <= ADDRESS_END) {
        Some(end) => end,
        None if kind == RegionKind::Usable => return None,
        None => ADDRESS_END,
    };
    Some(MemoryRegion { start, end, kind })
}

/// The command line up to its zero byte. Of one that is too long a part could say something else than the whole.
fn copy_command_line<'a>(view: &impl Fn(u64, usize) -> &'a [u8], address: u64) -> CommandLine {
    if address == 0 {
        return CommandLine::new();
    }
    let bytes = view(address, COMMAND_LINE_BYTES_MAX + 1);
    let line = bytes.iter().position(|byte| *byte == 0).and_then(|end| CommandLine::from_slice(&bytes[..end]).ok());
    line.unwrap_or_else(|| {
        log::warn!(target: "boot", "the command line at {address:#x} does not end within {COMMAND_LINE_BYTES_MAX} bytes of memory and is ignored");
        CommandLine::new()
    })
}

/// The 32-bit word at an offset that lies inside.
fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|at| bytes[offset + at]))
}

fn long(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|at| bytes[offset + at]))
}

#[cfg(test)]
#[path = "start_info_tests.rs"]
mod tests;
