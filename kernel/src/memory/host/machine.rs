//! The machine as `mm` sees it: struct pages in their window, our page tables, our clock and our locks.

use super::keeper;
use crate::memory::frames::{Kernel, mm, trial};
use crate::memory::layout;
use crate::memory::paging::editor::Tables;
use crate::memory::paging::entry::{DATA, Entry, Level};
use crate::memory::paging::plan::{HugeLeaves, OwnTables, PER_PART};
use crate::memory::paging::tables::KernelEditor;
use crate::memory::paging::tree::TableMemory;
use crate::memory::paging::{boot_map, ranges, shared_tables, tables, vmemmap};
use crate::sync::{RawIrqSpin, RawSleep};
use crate::task::WaitQueue;
use crate::{arch, time};
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::{PAGE_SIZE, Pfn, PfnRange, SectionId, SectionRange};
use mm::frame::memmap::Memmap;
use mm::frame::page::{MEMMAP_PAGES, PAGE_INFO_SIZE, PageInfo};
use mm::machine::Machine;
use mm::machine::mapper::{DirectMap, MapRangeError, Mapper};
use mm::machine::tasks::Clock;
use mm::machine::trial::{BadMemory, Distrust, Trial};
use mm::section::kind::Origin;

/// Those who wait for their turn to change memory.
static TURNS: WaitQueue = WaitQueue::new();

/// How long they wait before they look whether to stop.
const LONGEST_WAIT_NS: u64 = 20_000_000;

/// Page tables that lie in the ranges that they map.
static OWN_TABLES: AtomicU64 = AtomicU64::new(0);

/// Whether this CPU has leaves of 1 GiB; asked once, as a hypervisor may have to answer.
static LEAVES: spin::Once<HugeLeaves> = spin::Once::new();

fn leaves() -> HugeLeaves {
    *LEAVES.call_once(boot_map::huge_leaves)
}

/// Makes the page tables for the struct pages of boot memory that nobody uses, at its head; how many frames they take there.
pub(super) fn prepare_boot(range: SectionRange) -> u64 {
    let own = ranges::prepare_boot(&KernelEditor, range).expect("boot memory is fit for its page tables");
    OWN_TABLES.fetch_add(own, Ordering::Relaxed);
    own
}

impl Memmap for Kernel {
    fn page(&self, pfn: Pfn) -> &PageInfo {
        // SAFETY: mm asks for struct pages of sections only whose memmap is mapped; a struct page is atomics, valid for any
        // bits, and stays mapped while its section is populated.
        unsafe { &*with_exposed_provenance(layout::page_info(pfn) as usize) }
    }

    fn clear(&self, range: PfnRange) {
        const WORDS: u64 = PAGE_INFO_SIZE / size_of::<u64>() as u64;
        // A word at a time: a memset would be left to the library, which may go byte by byte.
        // SAFETY: mm asks for struct pages only whose memmap is mapped and that nobody reads or writes meanwhile, the words
        // are exactly theirs, and all zeros is a struct page; the direction flag is clear in all code of ours.
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rcx") range.len() * WORDS => _,
                inout("rdi") layout::page_info(range.start()) => _,
                in("rax") 0_u64,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Trial for Kernel {
    fn try_frames(&self, frames: PfnRange) -> Result<(), BadMemory> {
        let start = with_exposed_provenance_mut(layout::direct(frames.start()) as usize);
        // SAFETY: mm asks for frames only that the direct map shows and nobody uses.
        match unsafe { trial::first_bad(start, frames.len()) } {
            None => Ok(()),
            Some(index) => Err(BadMemory(frames.start().add(index))),
        }
    }

    fn note_withheld(&self, section: SectionId, why: Distrust) {
        let is_boot = mm().section(section).is_some_and(|section| section.origin == Origin::Boot);
        let end = if is_boot { "has been offline" } else { "is removed" };
        log::warn!(target: "memory", "block {section} is withheld until it {end}: {why}");
    }
}

/// Where page `index` of the memmap of `section` lies.
fn memmap_page(section: SectionId, index: u64) -> u64 {
    shared_tables::address_of(section) + index * PAGE_SIZE
}

impl Mapper for Kernel {
    const PART: u64 = PER_PART;

    fn own_tables(&self, range: SectionRange) -> u64 {
        OwnTables::of(range, leaves()).count()
    }

    fn map_range(&self, range: SectionRange, own: PfnRange, direct_map: DirectMap) -> Result<(), MapRangeError> {
        ranges::map(&KernelEditor, range, own, leaves(), direct_map)?;
        OWN_TABLES.fetch_add(own.len(), Ordering::Relaxed);
        Ok(())
    }

    fn unmap_range(&self, range: SectionRange) {
        if ranges::unmap(&KernelEditor, range) == Tables::Own {
            OWN_TABLES.fetch_sub(self.own_tables(range), Ordering::Relaxed);
        }
    }

    fn map_memmap(&self, section: SectionId, backing: PfnRange) -> Result<(), BadMemory> {
        assert_eq!(backing.len(), MEMMAP_PAGES, "a memmap is mapped as a whole");
        tables::edit(|tree| vmemmap::write_all(tree, section, |index| Entry::new(backing.start().add(index), DATA)))
    }

    fn unmap_memmap(&self, section: SectionId) {
        let written = tables::edit(|tree| vmemmap::write_all(tree, section, |_| Entry::EMPTY));
        written.expect("what is mapped has its page table");
    }

    fn map_memmap_page(&self, section: SectionId, index: u64, frame: Pfn) {
        let address = memmap_page(section, index);
        tables::edit(|tree| {
            let table = vmemmap::page_table(tree, section).expect("a memmap in system frames has system tables");
            tree.memory.write(table, Level::PAGE_TABLE.index(address), Entry::new(frame, DATA));
        });
    }

    fn unmap_memmap_page(&self, section: SectionId, index: u64) -> Pfn {
        let address = memmap_page(section, index);
        let entry = tables::edit(|tree| tree.unmap_page(address)).expect("only mapped memmap is unmapped");
        entry.frame()
    }

    fn settle_memmaps(&self) {
        arch::flush_tlb_everywhere();
    }

    fn table_frames(&self) -> u64 {
        tables::edit(|tree| tree.memory.count()) + OWN_TABLES.load(Ordering::Relaxed)
    }
}

impl Clock for Kernel {
    fn now_ns(&self) -> u64 {
        time::now_ns()
    }
}

impl Machine for Kernel {
    type Spin = RawIrqSpin;
    type Sleep = RawSleep;
    /// Interrupts are off on this CPU.
    type Reading<'a> = arch::IrqOff;

    fn reading(&self) -> Self::Reading<'_> {
        arch::irq_off()
    }

    fn wait_for_readers(&self) {
        arch::wait_for_grace_period();
    }

    fn cpu(&self) -> usize {
        arch::cpu_id()
    }

    fn wake_keeper(&self) {
        keeper::wake();
    }

    fn wait(&self, is_over: &mut dyn FnMut() -> bool) {
        TURNS.wait_until_deadline(is_over, time::now_ns() + LONGEST_WAIT_NS);
    }

    fn wake_waiters(&self) {
        TURNS.wake_all();
    }
}
