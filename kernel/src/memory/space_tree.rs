//! The page tables of an address space: what stands for each of its pages.
//!
//! The lower half of the top-level table is the space's own; the upper half is the kernel's, which has all its entries
//! before there are spaces. A page is nothing, a leaf, or *moving*: then its entry is not present and names the frames that
//! it had. As in the kernel's own tables, leaves are noted as used and written from the start, so the CPU writes none of
//! them.

use super::entry::{ENTRIES, Entry, Level, SPACE_PAGE, TABLE};
use super::tree::{TableMemory, Tree};
use super::{OwnedFrames, layout, tables};
use crate::arch::Root;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::machine::MapError;

/// Frames that hold tables of address spaces.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// Bytes of page tables that address spaces have.
pub(crate) fn space_table_bytes() -> u64 {
    TABLES.load(Relaxed) * PAGE_SIZE
}

/// A block of frames that one entry stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// The first of them.
    pub(crate) frame: Pfn,
    /// One frame, or a pageblock.
    pub(crate) order: Order,
}

/// What stands for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// Nothing; a leaf of this order could be put there.
    Empty(Order),
    Mapped(Leaf),
    /// What it had is on its way elsewhere.
    Moving(Leaf),
}

/// Where the entry for a page stands. It stays there while the page is moving, and until the tables are changed else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    table: Pfn,
    level: Level,
    index: usize,
}

/// The tables of one space. Pages are numbered from the first address that spaces use.
pub(crate) struct SpaceTree<M: TableMemory = SpaceTables>(Tree<M>);

const fn address(page: u64) -> u64 {
    layout::SPACE + page * PAGE_SIZE
}

fn order_of(level: Level) -> Order {
    if level == Level::PAGE_TABLE { Order::PAGE } else { Order::PAGEBLOCK }
}

fn level_of(order: Order) -> Level {
    if order == Order::PAGE { Level::PAGE_TABLE } else { Level::DIRECTORY }
}

impl SpaceTree {
    /// A space without pages, whose top-level table lies in `root`.
    pub(crate) fn new(root: OwnedFrames) -> Self {
        let mut memory = SpaceTables { spare: Some(root) };
        let root = memory.take().expect("it was just put there");
        let first = Level::TOP.index(layout::DIRECT_MAP);
        tables::edit(|kernel| {
            let top = kernel.complete_root();
            memory.fill(root, &mut |index| {
                if index < first { Entry::EMPTY } else { kernel.memory.read(top, index) }
            });
        });
        Self(Tree::new(root, memory))
    }

    /// The frame of the top-level table.
    pub(crate) fn root_frame(&self) -> Pfn {
        self.0.root()
    }

    /// The top-level table, for a task.
    ///
    /// # Safety
    /// No task has it any more when this is dropped.
    pub(crate) unsafe fn root(&self) -> Root {
        // SAFETY: `new` copied the kernel's upper half, which does not change any more; how long it stays is the caller's care.
        unsafe { Root::at(self.0.root().address()) }
    }

    /// Makes a frame one of the tables, to be linked by [`split`](Self::split).
    pub(crate) fn adopt(&mut self, frame: OwnedFrames) -> Pfn {
        self.0.memory.adopt(frame)
    }

    /// Gives a frame for the next table that is missing; returns it if one is there already.
    pub(crate) fn provide(&mut self, frame: OwnedFrames) -> Option<OwnedFrames> {
        if self.0.memory.spare.is_some() {
            return Some(frame);
        }
        self.0.memory.spare = Some(frame);
        None
    }
}

impl<M: TableMemory> SpaceTree<M> {
    /// What stands for a page, and where.
    #[inline]
    pub(crate) fn look(&mut self, page: u64) -> (Place, Slot) {
        let (table, level, entry) = self.0.last_entry(address(page));
        let leaf = || Leaf { frame: entry.frame(), order: order_of(level) };
        let slot = if entry.is_leaf(level) {
            Slot::Mapped(leaf())
        } else if entry == Entry::EMPTY {
            Slot::Empty(order_of(level))
        } else {
            Slot::Moving(leaf())
        };
        (Place { table, level, index: level.index(address(page)) }, slot)
    }

    /// Changes what stands in a place between nothing, mapped and moving, of the same order.
    #[inline]
    pub(crate) fn set(&mut self, place: Place, slot: Slot) {
        let entry = match slot {
            Slot::Empty(_) => Entry::EMPTY,
            Slot::Mapped(leaf) => Entry::leaf(leaf.frame, SPACE_PAGE, place.level),
            Slot::Moving(leaf) => Entry::moving(leaf.frame),
        };
        self.0.memory.write(place.table, place.index, entry);
    }

    /// Maps a page, or as many as the leaf has, for which nothing stood.
    ///
    /// # Errors
    /// A frame for a table is missing. Then nothing is mapped.
    pub(crate) fn map(&mut self, page: u64, leaf: Leaf) -> Result<(), MapError> {
        let level = level_of(leaf.order);
        self.0.map(address(page), level, Entry::leaf(leaf.frame, SPACE_PAGE, level))
    }

    /// Replaces the moving leaf of a pageblock by leaves of the single frames, in a new table.
    pub(crate) fn split(&mut self, place: Place, leaf: Leaf, table: Pfn) {
        self.0.memory.fill(table, &mut |index| Entry::new(leaf.frame.add(index as u64), SPACE_PAGE));
        self.0.memory.write(place.table, place.index, Entry::new(table, TABLE));
    }

    /// The first page from `page` on for which something stands that is not nothing, before `end`.
    pub(crate) fn next_used(&mut self, mut page: u64, end: u64) -> Option<u64> {
        while page < end {
            let (_, level, entry) = self.0.last_entry(address(page));
            if entry != Entry::EMPTY {
                return Some(page);
            }
            page = (page / level.entry_pages() + 1) * level.entry_pages();
        }
        None
    }

    /// Takes everything apart: `each` gets every leaf, and every table is given back.
    fn take_apart(&mut self, each: &mut dyn FnMut(Leaf)) {
        let root = self.0.root();
        let own = Level::TOP.index(layout::DIRECT_MAP);
        (0..own).for_each(|index| self.take_entry_apart(root, Level::TOP, index, each));
        self.0.memory.give_back(root);
    }

    fn take_entry_apart(&mut self, table: Pfn, level: Level, index: usize, each: &mut dyn FnMut(Leaf)) {
        let entry = self.0.memory.read(table, index);
        if entry.is_leaf(level) {
            each(Leaf { frame: entry.frame(), order: order_of(level) });
        } else if let (Some(lower), Some(below)) = (entry.table(level), level.below()) {
            (0..ENTRIES).for_each(|index| self.take_entry_apart(lower, below, index, each));
            self.0.memory.give_back(lower);
        } else {
            assert_eq!(entry, Entry::EMPTY, "nothing is moving in a space that nobody has");
        }
    }
}

impl SpaceTree {
    /// Gives all frames back, those of pages and those of tables. No task has the space, and nobody moves its pages.
    pub(crate) fn free(&mut self) {
        self.take_apart(&mut |leaf| drop(OwnedFrames::from_head(leaf.frame)));
    }
}

/// Where the tables of spaces lie.
pub(crate) struct SpaceTables {
    /// For the next table: frames are taken with no lock held.
    spare: Option<OwnedFrames>,
}

impl SpaceTables {
    fn adopt(&mut self, frame: OwnedFrames) -> Pfn {
        TABLES.fetch_add(1, Relaxed);
        frame.into_head()
    }
}

/// Where an entry is seen.
fn seen(table: Pfn, index: usize) -> *mut u64 {
    assert!(index < ENTRIES, "a table has {ENTRIES} entries");
    core::ptr::with_exposed_provenance_mut::<u64>(layout::direct(table) as usize).wrapping_add(index)
}

impl TableMemory for SpaceTables {
    #[inline]
    fn read(&mut self, table: Pfn, index: usize) -> Entry {
        // SAFETY: Tables are allocated frames, which the direct map shows; the index is checked.
        Entry::from_bits(unsafe { seen(table, index).read_volatile() })
    }

    #[inline]
    fn write(&mut self, table: Pfn, index: usize, value: Entry) {
        // SAFETY: As for `read`. What the entry maps, and that nobody uses what it mapped before, is the caller's care.
        unsafe { seen(table, index).write_volatile(value.bits()) };
    }

    fn fill(&mut self, table: Pfn, entries: &mut dyn FnMut(usize) -> Entry) {
        for index in 0..ENTRIES {
            self.write(table, index, entries(index));
        }
    }

    fn take(&mut self) -> Option<Pfn> {
        let frame = self.spare.take()?;
        Some(self.adopt(frame))
    }

    fn give_back(&mut self, table: Pfn) {
        TABLES.fetch_sub(1, Relaxed);
        drop(OwnedFrames::from_head(table));
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_tables::FakeTables;
    use super::*;
    use std::vec::Vec;

    const PAGE: Leaf = Leaf { frame: Pfn::new(0x1_2345), order: Order::PAGE };
    const BLOCK: Leaf = Leaf { frame: Pfn::new(0x1_2200), order: Order::PAGEBLOCK };

    fn space() -> SpaceTree<FakeTables> {
        SpaceTree(FakeTables::tree())
    }

    #[test]
    fn a_page_is_empty_then_mapped_then_moving_and_mapped_elsewhere() {
        let mut space = space();
        assert_eq!(space.look(7).1, Slot::Empty(Order::PAGEBLOCK));
        space.map(7, PAGE).expect("there are frames");
        assert_eq!(space.look(8).1, Slot::Empty(Order::PAGE));
        let (place, slot) = space.look(7);
        assert_eq!(slot, Slot::Mapped(PAGE));
        space.set(place, Slot::Moving(PAGE));
        assert_eq!(space.look(7).1, Slot::Moving(PAGE));
        let there = Leaf { frame: Pfn::new(0x54321), ..PAGE };
        space.set(place, Slot::Mapped(there));
        assert_eq!(space.look(7).1, Slot::Mapped(there));
        space.set(place, Slot::Empty(Order::PAGE));
        assert_eq!(space.look(7).1, Slot::Empty(Order::PAGE));
    }

    #[test]
    fn a_pageblock_stands_for_all_its_pages_until_it_is_split() {
        let mut space = space();
        space.map(512, BLOCK).expect("there are frames");
        for page in [512, 700, 1023] {
            assert_eq!(space.look(page).1, Slot::Mapped(BLOCK));
        }
        assert_eq!(space.look(1024).1, Slot::Empty(Order::PAGEBLOCK));
        let (place, _) = space.look(512);
        space.set(place, Slot::Moving(BLOCK));
        assert_eq!(space.look(700).1, Slot::Moving(BLOCK));
        let table = space.0.memory.take().expect("there are frames");
        space.split(place, BLOCK, table);
        for page in [512, 700, 1023] {
            let frame = BLOCK.frame.add(page - 512);
            assert_eq!(space.look(page).1, Slot::Mapped(Leaf { frame, order: Order::PAGE }));
        }
    }

    #[test]
    fn without_a_frame_for_a_table_nothing_is_mapped_and_what_was_made_is_used_later() {
        let mut space = space();
        space.0.memory.budget = 1;
        assert!(space.map(0, PAGE).is_err());
        assert_eq!(space.look(0).1, Slot::Empty(Order::PAGEBLOCK));
        space.0.memory.budget = 2;
        assert!(space.map(0, PAGE).is_ok());
        assert_eq!(space.look(0).1, Slot::Mapped(PAGE));
    }

    #[test]
    fn what_is_used_is_found_across_holes() {
        let mut space = space();
        let far = 3 << 27;
        for page in [5, 600, far + 1] {
            space.map(page, Leaf { frame: Pfn::new(page), order: Order::PAGE }).expect("there are frames");
        }
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(page) = space.next_used(at, far + 512) {
            found.push(page);
            at = page + 1;
        }
        assert_eq!(found, [5, 600, far + 1]);
        assert_eq!(space.next_used(6, 600), None);
    }

    #[test]
    fn taking_a_space_apart_finds_every_leaf_and_gives_every_table_back() {
        let mut space = space();
        space.map(3, PAGE).expect("there are frames");
        space.map(1024, BLOCK).expect("there are frames");
        space.map(1 << 27, PAGE).expect("there are frames");
        let mut leaves = Vec::new();
        space.take_apart(&mut |leaf| leaves.push(leaf));
        assert_eq!(leaves, [PAGE, BLOCK, PAGE]);
        assert_eq!(space.0.memory.given_back.len(), space.0.memory.tables.len());
    }
}
