//! Page tables in a map, for tests: touching a table that is gone is an error.

use super::editor::OwnMemory;
use super::entry::{ENTRIES, Entry};
use super::tree::{TableMemory, Tree};
use mm::addr::Pfn;
use mm::machine::trial::BadMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// System frames lie far above all sections that the tests add.
const SYSTEM: u64 = 1 << 39;

#[derive(Default)]
pub(super) struct FakeTables {
    pub(super) tables: BTreeMap<u64, Vec<Entry>>,
    next: u64,
    pub(super) budget: u64,
    pub(super) given_back: BTreeSet<u64>,
    /// Frames that do not keep what is written to them.
    pub(super) bad: BTreeSet<Pfn>,
}

impl TableMemory for FakeTables {
    fn read(&mut self, table: Pfn, index: usize) -> Entry {
        self.tables[&table.number()][index]
    }

    fn write(&mut self, table: Pfn, index: usize, entry: Entry) {
        self.tables.get_mut(&table.number()).expect("only living tables are written")[index] = entry;
    }

    fn fill(&mut self, table: Pfn, entries: &mut dyn FnMut(usize) -> Entry) {
        assert!(!self.bad.contains(&table), "{table} is not fit to be a table");
        self.tables.insert(table.number(), (0..ENTRIES).map(entries).collect());
    }

    fn take(&mut self) -> Option<Pfn> {
        self.budget = self.budget.checked_sub(1)?;
        self.next += 1;
        Some(Pfn::new(SYSTEM + self.next))
    }

    fn give_back(&mut self, table: Pfn) {
        assert!(table.number() > SYSTEM, "{table} is no system frame");
        assert!(self.given_back.insert(table.number()), "{table} is given back twice");
    }
}

impl OwnMemory for FakeTables {
    fn try_frame(&mut self, frame: Pfn) -> Result<(), BadMemory> {
        assert!(!self.tables.contains_key(&frame.number()), "{frame} is a table already");
        if self.bad.contains(&frame) { Err(BadMemory(frame)) } else { Ok(()) }
    }
}

impl FakeTables {
    /// An empty top-level table, and more frames than anybody needs.
    pub(super) fn tree() -> Tree<Self> {
        let mut memory = Self { budget: u64::MAX >> 1, ..Self::default() };
        let root = memory.take().expect("there are frames");
        memory.fill(root, &mut |_| Entry::EMPTY);
        Tree::new(root, memory)
    }
}
