//! Sets of pageblocks of a section: those that its source has not granted to the allocator.

use crate::addr::{Order, PAGES_PER_SECTION, PfnRange};

/// Pageblocks of a section, a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageblockSet(pub(super) u64);

const FRAMES: u64 = Order::PAGEBLOCK.pages();

const _: () = assert!(PAGES_PER_SECTION / FRAMES == u64::BITS as u64, "a section has a pageblock for each bit");

impl PageblockSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// All but the first `count`.
    pub(crate) const fn behind(count: u64) -> Self {
        Self(u64::MAX.unbounded_shl(count as u32))
    }

    /// Those that a head of so many frames lies in.
    pub(crate) const fn touching_head(frames: u64) -> Self {
        Self(!Self::behind(frames.div_ceil(FRAMES)).0)
    }

    /// Those that `frames`, which are whole pageblocks of one section, consist of.
    ///
    /// # Panics
    /// They are not.
    pub(crate) const fn of(frames: PfnRange) -> Self {
        let first = frames.start().index_in_section();
        let end = first + frames.len();
        let is_whole = first.is_multiple_of(FRAMES) && end.is_multiple_of(FRAMES) && end <= PAGES_PER_SECTION;
        assert!(is_whole, "whole pageblocks of one section");
        let low = Self::behind(first / FRAMES).0;
        Self(low & !Self::behind(end / FRAMES).0)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0.count_ones() as u64
    }

    /// How many frames they have.
    #[must_use]
    pub const fn frames(self) -> u64 {
        self.count() * FRAMES
    }

    /// Whether the `n`th of the section is among them.
    #[must_use]
    pub const fn contains(self, n: u64) -> bool {
        self.0 >> n & 1 != 0
    }

    /// Those of either.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of both.
    pub(crate) const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Their numbers, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u64> {
        (0..u64::from(u64::BITS)).filter(move |n| self.contains(*n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;

    #[test]
    fn whole_pageblocks_of_a_section_are_a_set() {
        let start = Pfn::new(7 * PAGES_PER_SECTION);
        let set = |first: u64, count: u64| PageblockSet::of(PfnRange::new(start.add(first * FRAMES), count * FRAMES));
        assert_eq!(set(0, 64), PageblockSet::behind(0));
        assert_eq!(set(0, 1).union(PageblockSet::behind(1)), set(0, 64));
        assert_eq!(set(3, 2).iter().collect::<heapless::Vec<u64, 4>>().as_slice(), [3, 4]);
        assert_eq!((set(3, 2).frames(), set(5, 0)), (2 * FRAMES, PageblockSet::EMPTY));
        assert_eq!(set(0, 64).without(set(1, 63)), set(0, 1));
        assert_eq!(PageblockSet::behind(64), PageblockSet::EMPTY);
    }

    #[test]
    #[should_panic(expected = "whole pageblocks")]
    fn a_part_of_a_pageblock_is_no_set() {
        let _ = PageblockSet::of(PfnRange::new(Pfn::new(1), FRAMES));
    }
}
