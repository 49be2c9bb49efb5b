//! What the bootloader told us, as plain values; the only file that knows `bootloader_api`.
//!
//! The bootloader is asked for no physical map (it would cost half a second and megabytes of tables), only for the
//! recursive page-table entry, through which the kernel builds its own tables.
#![deny(unsafe_code)]

use bootloader_api::config::Mapping;
use bootloader_api::info::MemoryRegionKind;
use bootloader_api::{BootInfo, BootloaderConfig};
use mm::plural::Plural;
use spin::Once;

/// What the kernel asks of the bootloader.
const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = None;
    config.mappings.page_table_recursive = Some(Mapping::Dynamic);
    config.mappings.dynamic_range_start = Some(0xffff_f000_0000_0000);
    config.mappings.dynamic_range_end = Some(0xffff_fe7f_ffff_ffff);
    config.kernel_stack_size = BOOT_STACK_BYTES;
    config
};

/// The boot stack later carries the idle task.
const BOOT_STACK_BYTES: u64 = 128 * 1024;

/// OVMF hands over about 124 regions; merged they are a few dozen.
const REGIONS_MAX: usize = 256;

#[cfg(not(test))]
bootloader_api::entry_point!(crate::kernel_main, config = &CONFIG);

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

/// What the rest of the kernel learns from the bootloader.
#[derive(Debug)]
pub(crate) struct BootFacts {
    /// Sorted by address, without overlap, neighbours of one kind merged.
    pub(crate) memory: heapless::Vec<MemoryRegion, REGIONS_MAX>,
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

/// Copies what the bootloader said out of its memory.
pub(crate) fn collect(boot: &'static mut BootInfo) -> &'static BootFacts {
    FACTS.call_once(|| {
        let (memory, regions_dropped) = merge(boot.memory_regions.iter().map(|region| MemoryRegion {
            start: region.start,
            end: region.end,
            kind: match region.kind {
                MemoryRegionKind::Usable => RegionKind::Usable,
                MemoryRegionKind::Bootloader => RegionKind::Bootloader,
                _ => RegionKind::Firmware,
            },
        }));
        if regions_dropped > 0 {
            log::warn!(target: "boot", "no room for {} of the memory map; that memory stays unused", Plural(regions_dropped as u64, "region"));
        }
        BootFacts {
            memory,
            rsdp: boot.rsdp_addr.into_option(),
            ramdisk: ramdisk(boot),
            recursive_index: boot
                .recursive_index
                .into_option()
                .expect("the configuration asks for the recursive entry"),
            stack_bottom: boot.kernel_stack_bottom,
            stack_top: boot.kernel_stack_bottom + boot.kernel_stack_len,
        }
    })
}

/// The facts once collected; `None` in the first instructions of the kernel.
pub(crate) fn facts() -> Option<&'static BootFacts> {
    FACTS.get()
}

fn ramdisk(boot: &BootInfo) -> Option<&'static [u8]> {
    let start = boot.ramdisk_addr.into_option()?;
    let length = usize::try_from(boot.ramdisk_len).ok()?;
    #[expect(unsafe_code, reason = "the bootloader passes the ramdisk as two integers")]
    // SAFETY: The bootloader mapped `length` bytes of ramdisk at `start`; nobody writes to them, and the kernel's own
    // page tables keep the bootloader's dynamic range.
    Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start as usize), length) })
}

/// Joins neighbours of one kind; what does not fit is counted, and the kernel does without it.
fn merge(regions: impl Iterator<Item = MemoryRegion>) -> (heapless::Vec<MemoryRegion, REGIONS_MAX>, usize) {
    let mut merged: heapless::Vec<MemoryRegion, REGIONS_MAX> = heapless::Vec::new();
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

    #[test]
    fn the_bootloader_can_read_our_configuration() {
        assert_eq!(BootloaderConfig::deserialize(&CONFIG.serialize()), Ok(CONFIG));
    }
}
