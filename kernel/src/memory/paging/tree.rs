//! A tree of page tables: finding the table or leaf of an address, and making tables on the way there.
//!
//! Knows nothing of where tables lie and how they are reached; [`TableMemory`] does, so this runs on the host too.

use super::entry::{ENTRIES, Entry, Level, TABLE};
use mm::addr::Pfn;
use mm::machine::mapper::MapError;

/// Where tables are read and written, and where new ones come from.
pub(crate) trait TableMemory {
    fn read(&mut self, table: Pfn, index: usize) -> Entry;

    fn write(&mut self, table: Pfn, index: usize, entry: Entry);

    /// Writes every entry, also of a table in memory that the direct map does not reach yet.
    fn fill(&mut self, table: Pfn, entries: &mut dyn FnMut(usize) -> Entry);

    /// A system frame for a new table; it names the caller, as far as those between pass it on.
    #[track_caller]
    fn take(&mut self) -> Option<Pfn>;

    /// A table that [`take`](Self::take) gave is linked nowhere any more; it is free once no CPU can still walk it.
    fn give_back(&mut self, table: Pfn);
}

/// The tables below one top-level table.
pub(crate) struct Tree<M> {
    root: Pfn,
    /// No entry is added to the top-level table any more.
    is_root_complete: bool,
    pub(crate) memory: M,
}

impl<M: TableMemory> Tree<M> {
    pub(super) const fn new(root: Pfn, memory: M) -> Self {
        Self { root, is_root_complete: false, memory }
    }

    pub(super) const fn root(&self) -> Pfn {
        self.root
    }

    /// The top-level table lies elsewhere now.
    pub(super) const fn set_root(&mut self, root: Pfn) {
        self.root = root;
    }

    /// From now on the top-level table stays as it is, so that others may begin with a copy of it; says where it is.
    pub(super) const fn complete_root(&mut self) -> Pfn {
        self.is_root_complete = true;
        self.root
    }

    /// The table of `level` that covers `address`.
    pub(crate) fn table(&mut self, address: u64, level: Level) -> Option<Pfn> {
        let (mut table, mut at) = (self.root, Level::TOP);
        while at > level {
            table = self.memory.read(table, at.index(address)).table(at)?;
            at = at.below()?;
        }
        Some(table)
    }

    /// The entry for `address` that points to no further table, the table in which it stands, and the level of that.
    #[inline]
    pub(super) fn last_entry(&mut self, address: u64) -> (Pfn, Level, Entry) {
        let (mut table, mut at) = (self.root, Level::TOP);
        loop {
            let entry = self.memory.read(table, at.index(address));
            match (entry.table(at), at.below()) {
                (Some(next), Some(below)) => (table, at) = (next, below),
                _ => return (table, at, entry),
            }
        }
    }

    /// The leaf that maps `address`, and the level of the table it stands in.
    pub(super) fn leaf(&mut self, address: u64) -> Option<(Entry, Level)> {
        let (_, level, entry) = self.last_entry(address);
        entry.is_leaf(level).then_some((entry, level))
    }

    /// The table of `level` that covers `address`; those that are missing on the way are made from system frames.
    #[track_caller]
    pub(crate) fn make(&mut self, address: u64, level: Level) -> Result<Pfn, MapError> {
        let (mut table, mut at) = (self.root, Level::TOP);
        while at > level {
            table = self.make_child(table, at, address)?;
            at = at.below().ok_or(MapError)?;
        }
        Ok(table)
    }

    /// The table below `parent`, a table of `level`; if it is missing, it is made from a system frame.
    #[track_caller]
    pub(super) fn make_child(&mut self, parent: Pfn, level: Level, address: u64) -> Result<Pfn, MapError> {
        let index = level.index(address);
        let entry = self.memory.read(parent, index);
        if let Some(table) = entry.table(level) {
            return Ok(table);
        }
        assert_eq!(entry, Entry::EMPTY, "no table can be made for {address:#x}");
        assert!(parent != self.root || !self.is_root_complete, "others have copies that lack {address:#x}");
        let table = self.memory.take().ok_or(MapError)?;
        self.memory.fill(table, &mut |_| Entry::EMPTY);
        self.memory.write(parent, index, Entry::new(table, TABLE));
        Ok(table)
    }

    /// Maps `address` by a leaf of `level`.
    #[track_caller]
    pub(crate) fn map(&mut self, address: u64, level: Level, leaf: Entry) -> Result<(), MapError> {
        let table = self.make(address, level)?;
        self.memory.write(table, level.index(address), leaf);
        Ok(())
    }

    /// Takes the 4 KiB leaf of `address` away and returns it.
    pub(crate) fn unmap_page(&mut self, address: u64) -> Option<Entry> {
        let table = self.table(address, Level::PAGE_TABLE)?;
        let index = Level::PAGE_TABLE.index(address);
        let entry = self.memory.read(table, index);
        self.memory.write(table, index, Entry::EMPTY);
        entry.is_present().then_some(entry)
    }

    /// Makes sure that the leaf of `address`, if there is one, is no larger than those of level `limit`; the pieces keep
    /// memory and rights.
    #[track_caller]
    pub(crate) fn split(&mut self, address: u64, limit: Level) -> Result<(), MapError> {
        while let Some((leaf, level)) = self.leaf(address).filter(|(_, level)| *level > limit) {
            let below = level.below().ok_or(MapError)?;
            let table = self.memory.take().ok_or(MapError)?;
            let flags = leaf.flags() - x86_64::structures::paging::PageTableFlags::HUGE_PAGE;
            self.memory.fill(table, &mut |index| {
                Entry::leaf(leaf.frame().add(index as u64 * below.entry_pages()), flags, below)
            });
            let parent = self.table(address, level).ok_or(MapError)?;
            self.memory.write(parent, level.index(address), Entry::new(table, TABLE));
        }
        Ok(())
    }

    /// Clears the entry of `level` for `address`, if there is a table that holds it.
    pub(super) fn clear(&mut self, address: u64, level: Level) {
        if let Some(table) = self.table(address, level) {
            self.memory.write(table, level.index(address), Entry::EMPTY);
        }
    }

    /// Gives the directory that covers `address` back, if there is one that maps nothing and promises nothing.
    pub(super) fn drop_empty_directory(&mut self, address: u64) {
        if let Some(directory) = self.table(address, Level::DIRECTORY)
            && (0..ENTRIES).all(|index| self.memory.read(directory, index) == Entry::EMPTY)
        {
            self.clear(address, Level::POINTERS);
            self.memory.give_back(directory);
        }
    }
}
