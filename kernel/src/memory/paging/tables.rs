//! The kernel's page tables and the lock around them.
//!
//! Tables are read and written through the direct map. Until that exists, and for whole tables in memory that it does not
//! reach yet, there is the scratch page: one virtual page whose own entry is set to the frame wanted.

use super::editor::{Editor, OwnMemory};
use super::entry::{DATA, ENTRIES, Entry, Level};
use super::tree::{TableMemory, Tree};
use crate::arch;
use crate::memory::frames::trial;
use crate::memory::layout;
use crate::sync::SpinLock;
use mm::addr::Pfn;
use mm::frame::page::Owner;
use mm::machine::trial::BadMemory;
use x86_64::structures::paging::PageTableFlags as Flags;

/// The page tables of the kernel. Taken before the lock of a zone, after the lock of the heap.
static TREE: SpinLock<Option<Tree<KernelTables>>> = SpinLock::new(None);

/// Hands the tables over that the CPU walks from now on.
pub(crate) fn install(tree: Tree<KernelTables>) {
    *TREE.lock() = Some(tree);
}

/// Changes or reads the tables, alone.
pub(crate) fn edit<R>(change: impl FnOnce(&mut Tree<KernelTables>) -> R) -> R {
    change(TREE.lock().as_mut().expect("the kernel has its page tables before anybody maps anything"))
}

/// The tables for [`super::ranges`].
pub(crate) struct KernelEditor;

impl Editor for KernelEditor {
    type Memory = KernelTables;

    fn edit<R>(&self, change: impl FnOnce(&mut Tree<KernelTables>) -> R) -> R {
        edit(change)
    }

    fn settle(&self) {
        // What others give back from here on waits for their own flush.
        let mut next = edit(|tree| tree.memory.given_back.take());
        arch::flush_tlb_everywhere();
        while let Some(table) = next {
            next = edit(|tree| {
                let next = tree.memory.forget(table);
                // In one step: whoever recounts memory sees a table that is counted, or a free frame.
                crate::memory::frames::frame::free_system(table);
                next
            });
        }
    }
}

/// One virtual page that can show any frame.
pub(super) struct Scratch {
    page: u64,
    entry: *mut u64,
    shown: Option<Pfn>,
}

// SAFETY: The pointer is to the page-table entry of the scratch page, which is reachable on every CPU and used under the
// lock of the tables.
unsafe impl Send for Scratch {}

impl Scratch {
    /// # Safety
    /// `entry` must be the address of the 4 KiB entry that maps `page`, and nothing else uses either.
    pub(super) const unsafe fn new(page: u64, entry: u64) -> Self {
        Self { page, entry: core::ptr::with_exposed_provenance_mut(entry as usize), shown: None }
    }

    fn show(&mut self, frame: Pfn) -> *mut u64 {
        if self.shown != Some(frame) {
            // SAFETY: By the contract of `new`, this entry maps the scratch page, which nobody else uses.
            unsafe { self.entry.write_volatile(Entry::new(frame, DATA).bits()) };
            arch::flush_page(self.page);
            self.shown = Some(frame);
        }
        core::ptr::with_exposed_provenance_mut(self.page as usize)
    }

    /// Shows a frame whatever was shown before: another CPU may have used the page since, and left its translation here.
    fn show_anew(&mut self, frame: Pfn) -> *mut u64 {
        self.shown = None;
        self.show(frame)
    }
}

/// Whether the direct map is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Scratch,
    Direct,
}

/// Where the kernel's tables lie.
pub(crate) struct KernelTables {
    reach: Reach,
    scratch: Scratch,
    count: u64,
    /// Tables that are linked nowhere and not free yet, each naming the next in its first word.
    given_back: Option<Pfn>,
}

impl KernelTables {
    /// Tables to be built through `scratch`.
    pub(super) const fn new(scratch: Scratch) -> Self {
        Self { reach: Reach::Scratch, scratch, count: 0, given_back: None }
    }

    /// The CPU walks these tables now, and the direct map in them is complete.
    pub(super) fn use_direct_map(&mut self, scratch: Scratch) {
        self.reach = Reach::Direct;
        self.scratch = scratch;
    }

    /// Table frames taken from the system and not given back.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    // This and its callers are inlined because edits of whole tables call them for every entry.
    #[inline]
    fn at(&mut self, table: Pfn, index: usize) -> *mut u64 {
        assert!(index < ENTRIES, "a table has {ENTRIES} entries");
        let start = match self.reach {
            Reach::Scratch => self.scratch.show(table),
            Reach::Direct => core::ptr::with_exposed_provenance_mut(layout::direct(table) as usize),
        };
        start.wrapping_add(index)
    }

    /// Where a whole frame is written that is no table yet.
    fn whole(&mut self, frame: Pfn) -> *mut u64 {
        match self.reach {
            Reach::Scratch => self.scratch.show(frame),
            Reach::Direct => self.scratch.show_anew(frame),
        }
    }

    /// Takes a table out of the count that was given back, and returns the one given back before it.
    fn forget(&mut self, table: Pfn) -> Option<Pfn> {
        self.count -= 1;
        let entry = self.read(table, 0);
        (entry != Entry::EMPTY).then(|| entry.frame())
    }
}

impl TableMemory for KernelTables {
    #[inline]
    fn read(&mut self, table: Pfn, index: usize) -> Entry {
        let entry = self.at(table, index);
        // SAFETY: Tables are given by the tree only, so they are mapped tables; `at` checked the index.
        Entry::from_bits(unsafe { entry.read_volatile() })
    }

    #[inline]
    fn write(&mut self, table: Pfn, index: usize, value: Entry) {
        let entry = self.at(table, index);
        // SAFETY: As for `read`. What the entry maps, and that nobody uses what it mapped before, is the caller's care.
        unsafe { entry.write_volatile(value.bits()) };
    }

    fn fill(&mut self, table: Pfn, entries: &mut dyn FnMut(usize) -> Entry) {
        let start = self.whole(table);
        for index in 0..ENTRIES {
            let entry = start.wrapping_add(index);
            // SAFETY: The scratch page shows the frame of a table that is not linked yet; the index is within it.
            unsafe { entry.write_volatile(entries(index).bits()) };
        }
    }

    #[track_caller]
    fn take(&mut self) -> Option<Pfn> {
        let table = crate::memory::frames::frame::take_system(Owner::PageTable)?;
        self.count += 1;
        Some(table)
    }

    fn give_back(&mut self, table: Pfn) {
        // The entry is not present, so a CPU that still walks the table finds nothing in it.
        let next = self.given_back.map_or(Entry::EMPTY, |next| Entry::new(next, Flags::empty()));
        self.write(table, 0, next);
        self.given_back = Some(table);
    }
}

impl OwnMemory for KernelTables {
    fn try_frame(&mut self, frame: Pfn) -> Result<(), BadMemory> {
        let page = self.whole(frame);
        // SAFETY: The scratch page shows a frame that nobody uses, by the contract of the trait.
        if unsafe { trial::keeps(page) } { Ok(()) } else { Err(BadMemory(frame)) }
    }
}

/// The leaf that maps `address`.
pub(crate) fn leaf(address: u64) -> Option<(Entry, Level)> {
    edit(|tree| tree.leaf(address))
}
