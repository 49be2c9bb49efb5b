//! The altmap: the frames at the head of an added range that hold its own struct pages and page tables.
//!
//! ```text
//! first section:  | tables of the whole range | its memmap | managed ...            |
//! every other:    | its memmap | managed ...                                        |
//! ```
//!
//! Every section carries its own memmap, so that bringing one block offline leaves the struct pages of the others in
//! place; the tables come first and together, so that one place at the head of the range is touched at add. A range
//! that is larger than [`PART`](crate::machine::mapper::Mapper::PART) is several of these, one behind the other, as all its tables
//! would not fit into one section.

use crate::addr::{PfnRange, SectionId, SectionRange};
use crate::frame::page::MEMMAP_PAGES;

/// Where a range, or one part of it, keeps its own tables and struct pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Altmap {
    range: SectionRange,
    tables: u64,
}

impl Altmap {
    /// An altmap for `range`, with `tables` page-table frames that map nothing else. `None` if the first section could
    /// not hold them and its memmap besides anything useful.
    #[must_use]
    pub fn new(range: SectionRange, tables: u64) -> Option<Self> {
        (tables + MEMMAP_PAGES < range.first().pages().len()).then_some(Self { range, tables })
    }

    /// The page tables of the range.
    #[must_use]
    pub fn tables(self) -> PfnRange {
        PfnRange::new(self.range.first().pages().start(), self.tables)
    }

    /// How many frames at the head of `section` are set aside.
    #[must_use]
    pub fn head_frames(self, section: SectionId) -> u64 {
        self.tables_in(section) + MEMMAP_PAGES
    }

    /// The struct pages of `section`.
    #[must_use]
    pub fn memmap(self, section: SectionId) -> PfnRange {
        PfnRange::new(section.pages().start().add(self.tables_in(section)), MEMMAP_PAGES)
    }

    fn tables_in(self, section: SectionId) -> u64 {
        if section == self.range.first() { self.tables } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_lie_before_the_memmap_of_the_first_section_only() {
        let range = SectionRange::new(32, 2).expect("in reach");
        let altmap = Altmap::new(range, 3).expect("fits");
        let [first, second] = [range.first(), range.last()];
        assert_eq!(altmap.tables(), PfnRange::new(first.pages().start(), 3));
        assert_eq!(altmap.memmap(first).start(), altmap.tables().end());
        assert_eq!(altmap.head_frames(first), altmap.head_frames(second) + 3);
        assert_eq!(altmap.memmap(second).start(), second.pages().start());
    }

    #[test]
    fn a_range_that_would_be_all_tables_is_refused() {
        let range = SectionRange::new(32, 1).expect("in reach");
        assert!(Altmap::new(range, 32768 - MEMMAP_PAGES).is_none());
    }
}
