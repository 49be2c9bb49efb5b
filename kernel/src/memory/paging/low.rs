//! The few pages below 1 MiB in which other CPUs begin: their code, and page tables that map it where it lies.

use super::entry::{ENTRIES, Entry, TABLE};
use super::tables;
use crate::entry::{self, MemoryRegion, RegionKind};
use crate::memory::layout;
use core::ptr::with_exposed_provenance_mut;
use mm::addr::{PAGE_SIZE, Pfn, PfnRange};

/// A page for code, then one table of each level.
const PAGES: u64 = 5;
/// Below lie the interrupt vectors and data of the BIOS, and where it loads boot sectors.
const LOWEST: Pfn = Pfn::containing(0x8000);
/// A start-up interrupt reaches no further.
const END: Pfn = Pfn::containing(0xa_0000);

/// Pages below 1 MiB that nothing else uses.
pub(crate) struct LowPages {
    first: Pfn,
}

/// Finds such pages; `None` if the firmware keeps them all.
pub(crate) fn low_pages() -> Option<LowPages> {
    let first = find(&entry::facts()?.memory)?;
    let pages = LowPages { first };
    let is_mapped = |page| tables::leaf(layout::direct(first.add(page))).is_some();
    (0..PAGES).all(is_mapped).then_some(pages)
}

fn find(memory: &[MemoryRegion]) -> Option<Pfn> {
    let usable = memory.iter().filter(|region| region.kind == RegionKind::Usable);
    let mut runs = usable.map(|region| PfnRange::inside(region.start, region.end));
    runs.find_map(|run| {
        let first = run.start().max(LOWEST);
        (first.add(PAGES) <= run.end().min(END)).then_some(first)
    })
}

impl LowPages {
    /// Where the first of them lies.
    pub(crate) fn address(&self) -> u32 {
        self.first.address() as u32
    }

    /// Writes to the first page.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= PAGE_SIZE as usize, "the code fits one page");
        let start = with_exposed_provenance_mut::<u8>(layout::direct(self.first) as usize).wrapping_add(offset);
        // SAFETY: The direct map shows the page, `find` says that it is nobody else's, and the bytes stay within it.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Makes tables that map the kernel, and the first page where it lies; the address of the topmost one.
    pub(crate) fn map_themselves(&mut self) -> u32 {
        let [top, pointers, directory, table] = [1, 2, 3, 4].map(|page| self.first.add(page));
        let kernel = tables::edit(|tree| tree.root());
        let in_kernel = |index| if index < ENTRIES / 2 { Entry::EMPTY } else { Self::entry(kernel, index) };
        self.fill(top, |index| if index == 0 { Entry::new(pointers, TABLE) } else { in_kernel(index) });
        self.fill(pointers, |index| if index == 0 { Entry::new(directory, TABLE) } else { Entry::EMPTY });
        self.fill(directory, |index| if index == 0 { Entry::new(table, TABLE) } else { Entry::EMPTY });
        let (number, first) = (self.first.number() as usize, self.first);
        self.fill(table, |index| if index == number { Entry::new(first, TABLE) } else { Entry::EMPTY });
        top.address() as u32
    }

    fn entry(table: Pfn, index: usize) -> Entry {
        let entry = with_exposed_provenance_mut::<u64>(layout::direct(table) as usize).wrapping_add(index);
        // SAFETY: The direct map shows every table, and an entry is a word that may be read at any moment.
        Entry::from_bits(unsafe { entry.read_volatile() })
    }

    fn fill(&mut self, table: Pfn, entries: impl Fn(usize) -> Entry) {
        let start = with_exposed_provenance_mut::<u64>(layout::direct(table) as usize);
        for index in 0..ENTRIES {
            // SAFETY: The direct map shows the page, which is ours; the index is within it.
            unsafe { start.wrapping_add(index).write_volatile(entries(index).bits()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64, kind: RegionKind) -> MemoryRegion {
        MemoryRegion { start, end, kind }
    }

    #[test]
    fn the_pages_are_usable_ones_below_the_limit() {
        use RegionKind::{Firmware, Usable};
        let found = |regions: &[MemoryRegion]| find(regions).map(Pfn::address);
        assert_eq!(found(&[region(0, 0x9_fc00, Usable), region(0x9_fc00, 0xa_0000, Firmware)]), Some(0x8000));
        assert_eq!(found(&[region(0x1000, 0xc000, Usable), region(0x8_0000, 0xa_0000, Usable)]), Some(0x8_0000));
        assert_eq!(found(&[region(0x9_c000, 0xa_0000, Usable), region(0x10_0000, 0x20_0000, Usable)]), None);
        assert_eq!(found(&[region(0, 0xa_0000, Firmware)]), None);
    }
}
