//! Sets of pageblocks of a section: those that its source has not granted to the allocator.

use crate::addr::{Order, PAGES_PER_SECTION, PfnRange, SectionId};

/// Pageblocks of a section, a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageblockSet(u64);

const FRAMES: u64 = Order::PAGEBLOCK.pages();

const _: () = assert!(PAGES_PER_SECTION / FRAMES == u64::BITS as u64, "a section has a pageblock for each bit");

impl PageblockSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// All of a section.
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// The `n`th.
    pub(crate) const fn single(n: u64) -> Self {
        Self(1 << n)
    }

    /// All but the first `count`.
    pub(crate) const fn behind(count: u64) -> Self {
        Self(u64::MAX.unbounded_shl(count as u32))
    }

    /// Those that a head of so many frames lies in.
    pub(crate) const fn touching_head(frames: u64) -> Self {
        Self(!Self::behind(frames.div_ceil(FRAMES)).0)
    }

    /// The section that `frames` lie in, and the pageblocks of it that they are; `None` if they are not whole pageblocks of one
    /// section.
    pub(crate) fn of(frames: PfnRange) -> Option<(SectionId, Self)> {
        let id = SectionId::new(frames.start().number() / PAGES_PER_SECTION)?;
        let first = frames.start().index_in_section();
        let end = first.checked_add(frames.len())?;
        let is_whole = first.is_multiple_of(FRAMES) && end.is_multiple_of(FRAMES) && end <= PAGES_PER_SECTION;
        let set = Self::behind(first / FRAMES).without(Self::behind(end / FRAMES));
        (is_whole && set != Self::EMPTY).then_some((id, set))
    }

    /// Those whose bits are set.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// A bit for each.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
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
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u64> + Clone {
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
        let of = |first: u64, count: u64| PageblockSet::of(PfnRange::new(start.add(first * FRAMES), count * FRAMES));
        let set = |first, count| of(first, count).expect("whole").1;
        assert_eq!(set(0, 64), PageblockSet::ALL);
        assert_eq!(set(0, 1).union(PageblockSet::behind(1)), PageblockSet::ALL);
        assert_eq!(set(3, 2).iter().collect::<heapless::Vec<u64, 4>>().as_slice(), [3, 4]);
        assert_eq!((set(3, 2).frames(), of(5, 0)), (2 * FRAMES, None));
        assert_eq!(set(0, 64).without(set(1, 63)), PageblockSet::single(0));
        assert_eq!(of(63, 2), None);
        assert_eq!(PageblockSet::behind(64), PageblockSet::EMPTY);
        assert_eq!(PageblockSet::of(PfnRange::new(start.add(1), FRAMES)), None);
        assert_eq!(PageblockSet::of(PfnRange::new(start, FRAMES + 1)), None);
    }
}
