//! How tables are edited, whatever they map: one bounded edit after the other, and what becomes of a table that is taken
//! out of the tree.

use super::tree::{TableMemory, Tree};
use mm::addr::{Pfn, SectionRange};
use mm::machine::trial::BadMemory;

/// Tables of which some lie in the memory that they map.
pub(crate) trait OwnMemory: TableMemory {
    /// Tries whether an unused frame can be trusted to be a table, also in memory that the direct map does not reach
    /// yet.
    fn try_frame(&mut self, frame: Pfn) -> Result<(), BadMemory>;
}

/// Gives access to the tables, one edit after the other.
pub(crate) trait Editor {
    type Memory: OwnMemory;

    fn edit<R>(&self, change: impl FnOnce(&mut Tree<Self::Memory>) -> R) -> R;

    /// Returns when no CPU can use what was unmapped, and frees the tables that were given back.
    fn settle(&self);
}

/// Whether a range had tables of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Tables {
    System,
    Own,
}

/// A table of the range goes with the range, another goes back to the system.
pub(super) fn drop_table<M: TableMemory>(tree: &mut Tree<M>, table: Pfn, range: SectionRange) -> Tables {
    if range.pages().contains(table) {
        return Tables::Own;
    }
    tree.memory.give_back(table);
    Tables::System
}
