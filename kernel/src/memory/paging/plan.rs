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
//! there is one now or not. An own page table is only promised until the struct pages of one of its sections are mapped:
//! adding a terabyte touches none of the 16 MiB that its page tables take.

use mm::addr::{Pfn, PfnRange, SectionRange};

/// Sections behind one entry of the level above a directory of the direct map.
pub(super) const PER_DIRECT_DIRECTORY: u64 = 8;
/// Sections behind one table of the level above.
pub(super) const PER_DIRECT_POINTERS: u64 = 4096;
/// Sections whose struct pages one page table of the vmemmap window maps.
pub(super) const PER_MEMMAP_TABLE: u64 = 2;
/// Sections whose struct pages one directory of the vmemmap window maps.
pub(super) const PER_MEMMAP_DIRECTORY: u64 = 1024;

/// Sections whose own tables lie together: 4 TiB, whose page tables fill half a section. A multiple of all the above.
pub(crate) const PER_PART: u64 = 32768;

const _: () = assert!(PER_PART.is_multiple_of(PER_DIRECT_POINTERS) && PER_PART.is_multiple_of(PER_MEMMAP_DIRECTORY));

/// Whether the CPU has leaves of 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HugeLeaves {
    Have,
    Lack,
}

/// The part of a range that one table covers, or several tables that it fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chunk {
    pub(super) sections: SectionRange,
    /// Whether these are all sections that the tables can cover.
    pub(super) is_whole: bool,
}

/// Cuts `range` at every multiple of `unit`.
pub(super) fn chunks(range: SectionRange, unit: u64) -> impl Iterator<Item = Chunk> {
    runs(range, unit, unit)
}

/// Cuts `range` at every multiple of `table`, and then the units that it does not fill off both ends of what is left: a
/// chunk is whole units or a part of one.
pub(super) fn runs(range: SectionRange, unit: u64, table: u64) -> impl Iterator<Item = Chunk> {
    let end = u64::from(range.last().number()) + 1;
    let mut at = u64::from(range.first().number());
    core::iter::from_fn(move || {
        let table_end = end.min((at / table + 1) * table);
        let whole = if at.is_multiple_of(unit) { table_end.saturating_sub(at) / unit * unit } else { 0 };
        let count = if whole > 0 { whole } else { table_end.min((at / unit + 1) * unit).saturating_sub(at) };
        let sections = SectionRange::new(at, count)?;
        at += count;
        Some(Chunk { sections, is_whole: whole > 0 })
    })
}

/// How many aligned runs of `unit` sections lie wholly in `range`.
fn whole_units(range: SectionRange, unit: u64) -> u64 {
    let first = u64::from(range.first().number()).div_ceil(unit);
    let last = (u64::from(range.last().number()) + 1) / unit;
    last.saturating_sub(first)
}

/// How many tables map a range and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnTables {
    /// Directories of the direct map.
    direct: u64,
    /// Directories of the vmemmap window.
    directories: u64,
    /// Page tables of the vmemmap window.
    page_tables: u64,
}

impl OwnTables {
    pub(crate) fn of(range: SectionRange, leaves: HugeLeaves) -> Self {
        let direct = match leaves {
            HugeLeaves::Have => 0,
            HugeLeaves::Lack => whole_units(range, PER_DIRECT_DIRECTORY),
        };
        Self { direct, ..Self::for_struct_pages(range) }
    }

    /// Those for the struct pages of a range alone, which the direct map shows already.
    pub(crate) fn for_struct_pages(range: SectionRange) -> Self {
        Self {
            direct: 0,
            directories: whole_units(range, PER_MEMMAP_DIRECTORY),
            page_tables: whole_units(range, PER_MEMMAP_TABLE),
        }
    }

    pub(crate) const fn count(self) -> u64 {
        self.direct + self.directories + self.page_tables
    }
}

/// The frames of a range that its own tables take, or nothing if all its tables are system frames. Those that are written
/// when the range is mapped come first, so that they touch one place and not one in every 2 MiB.
pub(super) struct OwnFrames {
    direct: PfnRange,
    directories: PfnRange,
    page_tables: PfnRange,
}

impl OwnFrames {
    /// Hands out `frames`, which are as many as `tables` or none.
    pub(super) fn new(mut frames: PfnRange, tables: OwnTables) -> Self {
        assert!(frames.is_empty() || frames.len() == tables.count(), "a range has all its own tables or none");
        let mut next = |count| take(&mut frames, count).unwrap_or(PfnRange::EMPTY);
        Self {
            direct: next(tables.direct),
            directories: next(tables.directories),
            page_tables: next(tables.page_tables),
        }
    }

    /// The next directory of the direct map.
    pub(super) fn direct(&mut self) -> Option<Pfn> {
        take(&mut self.direct, 1).map(PfnRange::start)
    }

    /// The next directory of the vmemmap window.
    pub(super) fn directory(&mut self) -> Option<Pfn> {
        take(&mut self.directories, 1).map(PfnRange::start)
    }

    /// The next page tables of the vmemmap window, those of `sections`.
    pub(super) fn page_tables(&mut self, sections: SectionRange) -> Option<PfnRange> {
        take(&mut self.page_tables, sections.count() / PER_MEMMAP_TABLE)
    }

    pub(super) const fn is_used_up(&self) -> bool {
        self.direct.is_empty() && self.directories.is_empty() && self.page_tables.is_empty()
    }
}

/// Takes `count` frames from the front, if there are as many.
fn take(frames: &mut PfnRange, count: u64) -> Option<PfnRange> {
    let left = frames.len().checked_sub(count)?;
    let taken = PfnRange::new(frames.start(), count);
    *frames = PfnRange::new(taken.end(), left);
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn range(first: u64, count: u64) -> SectionRange {
        SectionRange::new(first, count).expect("in reach")
    }

    fn own_tables(range: SectionRange, leaves: HugeLeaves) -> u64 {
        OwnTables::of(range, leaves).count()
    }

    fn cut(chunks: impl Iterator<Item = Chunk>) -> Vec<(u64, bool)> {
        chunks.map(|chunk| (chunk.sections.count(), chunk.is_whole)).collect()
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
        assert_eq!(cut(chunks(range(33, 4), PER_MEMMAP_TABLE)), [(1, false), (2, true), (1, false)]);
    }

    #[test]
    fn a_range_has_the_own_tables_of_its_parts() {
        for leaves in [HugeLeaves::Have, HugeLeaves::Lack] {
            for range in [range(8240, 32768), range(1, 3 * PER_PART), range(PER_PART - 1, 2)] {
                let parts = range.cut(PER_PART).map(|part| own_tables(part, leaves));
                assert_eq!(parts.sum::<u64>(), own_tables(range, leaves));
            }
        }
    }

    #[test]
    fn the_own_tables_of_a_part_leave_room_in_a_section() {
        assert!(own_tables(range(0, PER_PART), HugeLeaves::Lack) < 21000);
    }

    #[test]
    fn whole_units_stay_together_as_far_as_one_table_goes() {
        let gibibytes = |first, count| cut(runs(range(first, count), PER_DIRECT_DIRECTORY, PER_DIRECT_POINTERS));
        assert_eq!(gibibytes(4000, 32), [(32, true)]);
        assert_eq!(gibibytes(4001, 200), [(7, false), (88, true), (104, true), (1, false)]);
        assert_eq!(gibibytes(4001, 3), [(3, false)]);
    }

    #[test]
    fn four_tebibytes_have_directories_too() {
        let range = range(8192, 32768);
        assert_eq!(own_tables(range, HugeLeaves::Have), 16384 + 32);
        assert_eq!(own_tables(range, HugeLeaves::Lack), 16384 + 32 + 4096);
    }
}
