//! Which page tables a range of sections needs, and which of them map nothing else: arithmetic, no tables.
//!
//! | window | table | covers |
//! |---|---|---|
//! | direct map | directory of 2 MiB leaves; none where a 1 GiB leaf fits | 8 sections (1 GiB) |
//! | vmemmap | page table | 2 sections (their struct pages take 1 MiB each) |
//! | vmemmap | directory | 1024 sections |
//!
//! The levels above are made at boot for all that the section table can hold, so the top-level table never changes.
//!
//! A table is the range's *own* if the range fills all that it can cover; any other is shared with a neighbour, whether
//! there is one now or not.

use mm::addr::{SectionId, SectionRange};

/// Sections behind one entry of the level above a directory of the direct map.
pub(super) const PER_DIRECT_DIRECTORY: u64 = 8;
/// Sections whose struct pages one page table of the vmemmap window maps.
pub(super) const PER_MEMMAP_TABLE: u64 = 2;
/// Sections whose struct pages one directory of the vmemmap window maps.
pub(super) const PER_MEMMAP_DIRECTORY: u64 = 1024;

/// Whether the CPU has leaves of 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HugeLeaves {
    Have,
    Lack,
}

/// The part of a range that one table covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chunk {
    pub(super) sections: SectionRange,
    /// Whether these are all sections that the table can cover.
    pub(super) is_whole: bool,
}

impl Chunk {
    pub(super) const fn first(self) -> SectionId {
        self.sections.first()
    }
}

/// Cuts `range` at every multiple of `unit`.
pub(super) fn chunks(range: SectionRange, unit: u64) -> impl Iterator<Item = Chunk> {
    let end = u64::from(range.last().number()) + 1;
    let mut at = u64::from(range.first().number());
    core::iter::from_fn(move || {
        let boundary = (at / unit + 1) * unit;
        let count = boundary.min(end).saturating_sub(at);
        let sections = SectionRange::new(at, count)?;
        at += count;
        Some(Chunk { sections, is_whole: count == unit })
    })
}

/// How many aligned runs of `unit` sections lie wholly in `range`.
fn whole_units(range: SectionRange, unit: u64) -> u64 {
    let first = u64::from(range.first().number()).div_ceil(unit);
    let last = (u64::from(range.last().number()) + 1) / unit;
    last.saturating_sub(first)
}

/// How many tables map `range` and nothing else.
pub(super) fn own_tables(range: SectionRange, leaves: HugeLeaves) -> u64 {
    let direct = match leaves {
        HugeLeaves::Have => 0,
        HugeLeaves::Lack => whole_units(range, PER_DIRECT_DIRECTORY),
    };
    direct + whole_units(range, PER_MEMMAP_DIRECTORY) + whole_units(range, PER_MEMMAP_TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, count: u64) -> SectionRange {
        SectionRange::new(first, count).expect("in reach")
    }

    #[test]
    fn an_aligned_gibibyte_has_a_page_table_for_every_two_sections() {
        assert_eq!(own_tables(range(32, 8), HugeLeaves::Have), 4);
        assert_eq!(own_tables(range(32, 8), HugeLeaves::Lack), 5);
    }

    #[test]
    fn one_section_has_no_table_of_its_own() {
        assert_eq!(own_tables(range(33, 1), HugeLeaves::Lack), 0);
    }

    #[test]
    fn sections_at_odd_ends_share_their_tables() {
        assert_eq!(own_tables(range(33, 8), HugeLeaves::Lack), 3);
        let cut: Vec<_> = chunks(range(33, 4), PER_MEMMAP_TABLE).map(|chunk| chunk.is_whole).collect();
        assert_eq!(cut, [false, true, false]);
    }

    #[test]
    fn four_tebibytes_have_directories_too() {
        let range = range(8192, 32768);
        assert_eq!(own_tables(range, HugeLeaves::Have), 16384 + 32);
        assert_eq!(own_tables(range, HugeLeaves::Lack), 16384 + 32 + 4096);
    }
}
