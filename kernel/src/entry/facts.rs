//! What every way into the kernel tells it, as plain values.

use mm::plural::Plural;
use spin::Once;

/// OVMF hands over about 124 regions; merged they are a few dozen.
const REGIONS_MAX: usize = 256;

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
    /// RAM that holds the kernel, its boot stack, the first page tables, the boot information and the ramdisk.
    Bootloader,
    /// RAM or devices that the firmware keeps.
    Firmware,
}

/// Regions, sorted by address, without overlap, neighbours of one kind merged.
pub(crate) type MemoryMap = heapless::Vec<MemoryRegion, REGIONS_MAX>;

/// What the rest of the kernel learns from what started it.
#[derive(Debug)]
pub(crate) struct BootFacts {
    pub(crate) memory: MemoryMap,
    /// Physical address of the ACPI root pointer.
    pub(crate) rsdp: Option<u64>,
    /// The ramdisk, mapped in the bootloader's dynamic range.
    pub(crate) ramdisk: Option<&'static [u8]>,
    /// The top-level page-table slot that maps the tables themselves.
    pub(crate) recursive_index: u16,
    /// Lowest and first-beyond virtual address of the boot stack.
    pub(crate) stack_bottom: u64,
    pub(crate) stack_top: u64,
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

/// The memory map that is made of the regions that were found.
pub(super) fn memory_map(regions: impl Iterator<Item = MemoryRegion>) -> MemoryMap {
    let (memory, dropped) = merge(regions);
    if dropped > 0 {
        log::warn!(target: "boot", "no room for {} of the memory map; that memory stays unused", Plural(dropped as u64, "region"));
    }
    memory
}

/// Joins neighbours of one kind; what does not fit is counted, and the kernel does without it.
fn merge(regions: impl Iterator<Item = MemoryRegion>) -> (MemoryMap, usize) {
    let mut merged = MemoryMap::new();
    let mut dropped = 0;
    for region in regions.filter(|region| region.start < region.end) {
        match merged.last_mut() {
            Some(last) if last.end == region.start && last.kind == region.kind => {
                last.end = region.end;
            }
            _ => dropped += usize::from(merged.push(region).is_err()),
        }
    }
    merged.sort_unstable_by_key(|region| region.start);
    (merged, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(start: u64, end: u64) -> MemoryRegion {
        MemoryRegion { start, end, kind: RegionKind::Usable }
    }

    #[test]
    fn neighbours_of_one_kind_become_one_region() {
        let (merged, dropped) = merge([usable(0, 10), usable(10, 20), usable(30, 40)].into_iter());
        assert_eq!(merged.as_slice(), [usable(0, 20), usable(30, 40)]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn an_empty_region_vanishes() {
        let (merged, _) = merge([usable(5, 5)].into_iter());
        assert!(merged.is_empty());
    }

    #[test]
    fn regions_beyond_the_limit_are_counted() {
        let many = (0..REGIONS_MAX as u64 + 3).map(|n| usable(n * 10, n * 10 + 5));
        assert_eq!(merge(many).1, 3);
    }
}
