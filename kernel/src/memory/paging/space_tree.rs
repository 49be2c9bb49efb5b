//! The page tables of an address space: what stands for each of its pages.
//!
//! The lower half of the top-level table is the space's own; the upper half is the kernel's, which has all its entries
//! before there are spaces. A page is nothing, a leaf, or *moving*: then its entry is not present and names the frames that
//! it had; so are all pages of a table that is moving. As in the kernel's own tables, leaves are noted as used and written from the start, so the CPU writes none of
//! them.

use super::entry::{ENTRIES, Entry, Level, SPACE_PAGE, TABLE};
use super::tables;
use super::tree::{TableMemory, Tree};
use crate::arch::Root;
use crate::memory::frames::OwnedFrames;
use crate::memory::layout;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use heapless::Vec;
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::frame::memmap::Memmap;
use mm::machine::mapper::MapError;

/// Levels of tables.
const LEVELS: usize = Level::TOP.number() as usize;

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
pub(crate) struct EntryPlace {
    table: Pfn,
    level: Level,
    index: usize,
}

impl EntryPlace {
    /// The first page behind `page`, which the entry is for, that it is not for.
    pub(crate) const fn end(self, page: u64) -> u64 {
        let pages = self.level.entry_pages();
        (page / pages + 1) * pages
    }
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
        let mut memory = SpaceTables { spare: Some(root), word: 0 };
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

    /// The top-level table lies elsewhere now, with the same contents.
    ///
    /// # Safety
    /// That frame is allocated, and this space has it from now on instead of the old one.
    pub(crate) unsafe fn set_root_frame(&mut self, frame: Pfn) {
        self.0.set_root(frame);
    }

    /// The top-level table, for a task.
    ///
    /// # Safety
    /// No task has it any more when this is dropped, nor when it lies elsewhere.
    pub(crate) unsafe fn root(&self) -> Root {
        // SAFETY: `new` copied the kernel's upper half, which does not change any more; how long it stays is the caller's care.
        unsafe { Root::at(self.0.root().address()) }
    }

    /// Maps a page, or as many as there are frames, for which nothing stood. The space has the frames then.
    ///
    /// # Errors
    /// A frame for a table is missing. Then nothing is mapped, and the frames come back.
    pub(crate) fn map(&mut self, page: u64, frames: OwnedFrames) -> Result<(), OwnedFrames> {
        let leaf = Leaf { frame: frames.head(), order: frames.order() };
        match self.put(page, leaf) {
            Ok(()) => {
                frames.into_head();
                Ok(())
            }
            Err(MapError) => Err(frames),
        }
    }

    /// Takes the frames away that are mapped at a page, if there are any. They may be used for something else when no CPU
    /// remembers them.
    pub(crate) fn unmap(&mut self, page: u64) -> Option<OwnedFrames> {
        let (place, Slot::Mapped(leaf)) = self.look(page) else { return None };
        self.change(place, Slot::Empty(leaf.order));
        // SAFETY: What a space maps it has, by `map` and by the contract of `set`, and now it maps them no more.
        Some(unsafe { OwnedFrames::from_head(leaf.frame) })
    }

    /// Replaces the moving leaf of a pageblock by leaves of the single frames, in a new table.
    ///
    /// # Safety
    /// The leaf stands in that place, of which these tables told, as moving, and its frames were made single blocks.
    pub(crate) unsafe fn split(&mut self, place: EntryPlace, leaf: Leaf, table: OwnedFrames) {
        let table = self.0.memory.adopt(table);
        self.split_into(place, leaf, table);
    }

    /// What the owner's word of tables says that are made from here on: it names a page that they are for.
    pub(crate) fn make_tables_for(&mut self, word: u64) {
        self.0.memory.word = word;
    }

    /// Gives a frame for the next table that is missing; returns it if one is there already.
    pub(crate) fn provide(&mut self, frame: OwnedFrames) -> Option<OwnedFrames> {
        if self.0.memory.spare.is_some() {
            return Some(frame);
        }
        self.0.memory.spare = Some(frame);
        None
    }

    /// The frame that was given and not needed.
    pub(crate) fn take_spare(&mut self) -> Option<OwnedFrames> {
        self.0.memory.spare.take()
    }
}

impl<M: TableMemory> SpaceTree<M> {
    /// What stands for a page, and where.
    #[inline]
    pub(crate) fn look(&mut self, page: u64) -> (EntryPlace, Slot) {
        let (table, level, entry) = self.0.last_entry(address(page));
        let leaf = || Leaf { frame: entry.frame(), order: order_of(level) };
        let slot = if entry.is_leaf(level) {
            Slot::Mapped(leaf())
        } else if entry == Entry::EMPTY {
            Slot::Empty(order_of(level))
        } else {
            Slot::Moving(leaf())
        };
        (EntryPlace { table, level, index: level.index(address(page)) }, slot)
    }

    /// Changes what stands in a place between mapped and moving, of the same order.
    ///
    /// # Safety
    /// The place is one of which these tables told, and nothing but this has changed it since. What is mapped then are frames
    /// that the space has: those that were moving, or those that they were moved to.
    #[inline]
    pub(crate) unsafe fn set(&mut self, place: EntryPlace, slot: Slot) {
        self.change(place, slot);
    }

    fn change(&mut self, place: EntryPlace, slot: Slot) {
        let entry = match slot {
            Slot::Empty(_) => Entry::EMPTY,
            Slot::Mapped(leaf) => Entry::leaf(leaf.frame, SPACE_PAGE, place.level),
            Slot::Moving(leaf) => Entry::moving(leaf.frame),
        };
        self.0.memory.write(place.table, place.index, entry);
    }

    /// The tables on the way to a page that begin with it, the topmost first.
    pub(crate) fn tables_from(&mut self, page: u64) -> Vec<Pfn, LEVELS> {
        let mut tables = Vec::new();
        let (mut table, mut level) = (self.0.root(), Level::TOP);
        loop {
            if page.is_multiple_of(level.entry_pages() * ENTRIES as u64) {
                tables.push(table).expect("there is one at each level");
            }
            let entry = self.0.memory.read(table, level.index(address(page)));
            match (entry.table(level), level.below()) {
                (Some(next), Some(below)) => (table, level) = (next, below),
                _ => return tables,
            }
        }
    }

    /// The place that points to `table`, one of those for a page but not the topmost. Nothing that stands in it is moving.
    pub(crate) fn find_table(&mut self, page: u64, table: Pfn) -> Option<EntryPlace> {
        let (mut at, mut level) = (self.0.root(), Level::TOP);
        loop {
            let index = level.index(address(page));
            let next = self.0.memory.read(at, index).table(level)?;
            if next == table {
                return self.is_settled(table).then_some(EntryPlace { table: at, level, index });
            }
            (at, level) = (next, level.below()?);
        }
    }

    /// Whether nothing that stands in a table is moving.
    pub(crate) fn is_settled(&mut self, table: Pfn) -> bool {
        let mut entries = (0..ENTRIES).map(|index| self.0.memory.read(table, index));
        entries.all(|entry| entry == Entry::EMPTY || entry.is_present())
    }

    /// Makes a place point to a table that was moving.
    ///
    /// # Safety
    /// As for [`set`](Self::set).
    pub(crate) unsafe fn link(&mut self, place: EntryPlace, table: Pfn) {
        self.point_to(place, table);
    }

    fn point_to(&mut self, place: EntryPlace, table: Pfn) {
        self.0.memory.write(place.table, place.index, Entry::new(table, TABLE));
    }

    fn put(&mut self, page: u64, leaf: Leaf) -> Result<(), MapError> {
        let level = level_of(leaf.order);
        self.0.map(address(page), level, Entry::leaf(leaf.frame, SPACE_PAGE, level))
    }

    fn split_into(&mut self, place: EntryPlace, leaf: Leaf, table: Pfn) {
        self.0.memory.fill(table, &mut |index| Entry::new(leaf.frame.add(index as u64), SPACE_PAGE));
        self.point_to(place, table);
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
    /// Gives all frames back, those of pages and those of tables.
    ///
    /// # Safety
    /// This is the last use of the tables: no task has the space, and its pages do not move.
    pub(crate) unsafe fn free(&mut self) {
        // SAFETY: The space has what it maps, as for `unmap`, and by the contract it maps nothing any more.
        self.take_apart(&mut |leaf| drop(unsafe { OwnedFrames::from_head(leaf.frame) }));
    }
}

/// Where the tables of spaces lie.
pub(crate) struct SpaceTables {
    /// For the next table: frames are taken with no lock held.
    spare: Option<OwnedFrames>,
    /// What its owner's word will say.
    word: u64,
}

impl SpaceTables {
    fn adopt(&mut self, frame: OwnedFrames) -> Pfn {
        TABLES.fetch_add(1, Relaxed);
        let table = frame.into_head();
        crate::memory::frames::mm().machine().page(table).set_private(self.word);
        table
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
        // SAFETY: `adopt` took the ownership, and the tree gives back what it has linked nowhere.
        drop(unsafe { OwnedFrames::from_head(table) });
    }
}

#[cfg(test)]
#[path = "space_tree_tests.rs"]
mod tests;
