//! Page frame numbers, ranges of them, sections and nodes, and every conversion between those and bytes.
//!
//! A *memory block*, the unit that a person brings online or offline, is exactly one *section* of 128 MiB, so one
//! type numbers both: block `n` is `SectionId(n)`, at physical address `n * 128 MiB`.

use core::fmt;

/// log2 of the size of a page frame.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page frame.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// log2 of the size of a section.
pub const SECTION_SHIFT: u32 = 27;
/// Bytes in a section, which is also the size of a memory block.
pub const SECTION_SIZE: u64 = 1 << SECTION_SHIFT;
/// Page frames in a section.
pub const PAGES_PER_SECTION: u64 = SECTION_SIZE >> PAGE_SHIFT;
/// Physical address bits that the direct map and the vmemmap window can hold (4-level paging).
pub const MAX_PHYS_BITS: u32 = 46;
/// One more than the largest section number that can exist.
pub const SECTION_LIMIT: u64 = 1 << (MAX_PHYS_BITS - SECTION_SHIFT);

/// A page frame number: the physical address divided by the size of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(u64);

impl Pfn {
    /// The frame with number `n`.
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The frame that holds the physical address `address`.
    #[must_use]
    pub const fn containing(address: u64) -> Self {
        Self(address >> PAGE_SHIFT)
    }

    /// The frame number as an integer.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The physical address of the first byte.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 << PAGE_SHIFT
    }

    /// The section that this frame lies in.
    #[must_use]
    pub const fn section(self) -> SectionId {
        SectionId((self.0 / PAGES_PER_SECTION) as u32)
    }

    /// Its place among the frames of its section.
    #[must_use]
    pub const fn index_in_section(self) -> u64 {
        self.0 % PAGES_PER_SECTION
    }

    /// The frame `pages` further up.
    #[must_use]
    pub const fn add(self, pages: u64) -> Self {
        Self(self.0 + pages)
    }

    /// The head of the block that merges with this one into a block of the next order.
    #[must_use]
    pub const fn buddy(self, order: Order) -> Self {
        Self(self.0 ^ order.pages())
    }

    /// The head of the block of `order` that this frame lies in.
    #[must_use]
    pub const fn align_down(self, order: Order) -> Self {
        Self(self.0 & !(order.pages() - 1))
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn:{:#x}", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The size of a block of frames as a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Order(u8);

impl Order {
    /// One frame.
    pub const PAGE: Self = Self(0);
    /// A pageblock, 2 MiB: the unit of isolation and of a large leaf in the page tables.
    pub const PAGEBLOCK: Self = Self(9);
    /// The largest block that the allocator keeps, 4 MiB.
    pub const MAX: Self = Self(10);
    /// How many orders there are.
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// The order `n`, if the allocator keeps blocks of that order.
    #[must_use]
    pub const fn new(n: u8) -> Option<Self> {
        if n <= Self::MAX.0 { Some(Self(n)) } else { None }
    }

    /// Frames in a block of this order.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << self.0
    }

    /// As an index into tables by order.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The next smaller order.
    #[must_use]
    pub const fn smaller(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(Self(self.0 - 1)) }
    }

    /// All orders, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=Self::MAX.0).map(Self)
    }
}

/// Frames from `start`, `len` of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PfnRange {
    start: Pfn,
    len: u64,
}

impl PfnRange {
    /// No frame at all.
    pub const EMPTY: Self = Self { start: Pfn(0), len: 0 };

    /// `len` frames from `start`.
    #[must_use]
    pub const fn new(start: Pfn, len: u64) -> Self {
        Self { start, len }
    }

    /// The whole frames between two physical addresses.
    #[must_use]
    pub const fn inside(start: u64, end: u64) -> Self {
        let first = start.div_ceil(PAGE_SIZE);
        let last = end / PAGE_SIZE;
        Self { start: Pfn(first), len: last.saturating_sub(first) }
    }

    /// The first frame.
    #[must_use]
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// The frame behind the last.
    #[must_use]
    pub const fn end(self) -> Pfn {
        Pfn(self.start.0 + self.len)
    }

    /// How many frames.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether `pfn` is one of them.
    #[must_use]
    pub const fn contains(self, pfn: Pfn) -> bool {
        self.start.0 <= pfn.0 && pfn.0 < self.start.0 + self.len
    }

    /// The frames that both ranges hold.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        Self { start, len: end.0.saturating_sub(start.0) }
    }

    /// Every frame, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Pfn> {
        (self.start.0..self.start.0 + self.len).map(Pfn)
    }
}

impl fmt::Debug for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn:{:#x}+{:#x}", self.start.0, self.len)
    }
}

/// The number of a section, and of the memory block that it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SectionId(u32);

impl SectionId {
    /// Section `n`, if the address width can hold it.
    #[must_use]
    pub const fn new(n: u64) -> Option<Self> {
        if n < SECTION_LIMIT { Some(Self(n as u32)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// As an index into tables by section.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The section behind it, if there can be one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 as u64 + 1)
    }

    /// Every section from `first` to `last`.
    pub(crate) fn through(first: Self, last: Self) -> impl DoubleEndedIterator<Item = Self> {
        (first.0..=last.0).map(Self)
    }

    /// Its frames.
    #[must_use]
    pub const fn pages(self) -> PfnRange {
        PfnRange { start: Pfn(self.0 as u64 * PAGES_PER_SECTION), len: PAGES_PER_SECTION }
    }

    /// The physical address of its first byte.
    #[must_use]
    pub const fn address(self) -> u64 {
        (self.0 as u64) << SECTION_SHIFT
    }
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Consecutive sections, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SectionRange {
    first: SectionId,
    count: u32,
}

impl SectionRange {
    /// `count` sections from `first`, if the address width holds them and there is at least one.
    #[must_use]
    pub const fn new(first: u64, count: u64) -> Option<Self> {
        if count == 0 || count > SECTION_LIMIT || first > SECTION_LIMIT - count {
            return None;
        }
        Some(Self { first: SectionId(first as u32), count: count as u32 })
    }

    /// Just this section.
    #[must_use]
    pub const fn single(id: SectionId) -> Self {
        Self { first: id, count: 1 }
    }

    /// The whole sections between two physical addresses, if there is at least one within the address width.
    #[must_use]
    pub const fn inside(start: u64, end: u64) -> Option<Self> {
        let first = start.div_ceil(SECTION_SIZE);
        let last = end / SECTION_SIZE;
        Self::new(first, last.saturating_sub(first))
    }

    /// The lowest section.
    #[must_use]
    pub const fn first(self) -> SectionId {
        self.first
    }

    /// The highest section.
    #[must_use]
    pub const fn last(self) -> SectionId {
        SectionId(self.first.0 + self.count - 1)
    }

    /// How many sections.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count as u64
    }

    /// Its first `count` sections, or all if there are fewer. `count` is not zero.
    #[must_use]
    pub(crate) fn first_part(self, count: u64) -> Self {
        Self { count: count.clamp(1, u64::from(self.count)) as u32, ..self }
    }

    /// What is left behind `part`, which it begins with.
    #[must_use]
    pub(crate) fn behind(self, part: Self) -> Option<Self> {
        let count = self.count - part.count;
        (count > 0).then_some(Self { first: SectionId(self.first.0 + part.count), count })
    }

    /// This range and one that begins no lower as one, if there is no gap between them.
    #[must_use]
    pub fn join(self, other: Self) -> Option<Self> {
        let end = |range: Self| u64::from(range.first.0) + range.count();
        if u64::from(other.first.0) > end(self) {
            return None;
        }
        Self::new(self.first.0.into(), end(self).max(end(other)) - u64::from(self.first.0))
    }

    /// What `sorted` ranges, lowest first, cover: those without a gap between them as one.
    pub fn merged(sorted: impl IntoIterator<Item = Self>) -> impl Iterator<Item = Self> {
        let mut rest = sorted.into_iter().peekable();
        core::iter::from_fn(move || {
            let mut whole = rest.next()?;
            while let Some(joined) = rest.peek().and_then(|next| whole.join(*next)) {
                whole = joined;
                rest.next();
            }
            Some(whole)
        })
    }

    /// How many bytes.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        (self.count as u64) << SECTION_SHIFT
    }

    /// All frames of all sections.
    #[must_use]
    pub const fn pages(self) -> PfnRange {
        PfnRange { start: self.first.pages().start, len: self.count as u64 * PAGES_PER_SECTION }
    }

    /// Whether `id` is one of them.
    #[must_use]
    pub const fn contains(self, id: SectionId) -> bool {
        self.first.0 <= id.0 && id.0 - self.first.0 < self.count
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.contains(other.first()) && self.contains(other.last())
    }

    /// Whether there is a section that is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first.0 <= other.last().0 && other.first.0 <= self.last().0
    }

    /// The smallest range around both.
    #[must_use]
    pub(crate) fn hull(self, other: Self) -> Self {
        let (first, last) = (self.first.min(other.first), self.last().max(other.last()));
        Self { first, count: last.0 - first.0 + 1 }
    }

    /// The smallest range around it between multiples of `unit`.
    #[must_use]
    pub(crate) fn widened(self, unit: u64) -> Self {
        let first = u64::from(self.first.0) / unit * unit;
        let end = (u64::from(self.first.0) + self.count()).next_multiple_of(unit);
        Self::new(first, end - first).expect("the table ends at a multiple of all units")
    }

    /// Whether it is cut at multiples of `unit`.
    #[must_use]
    pub(crate) fn is_whole(self, unit: u64) -> bool {
        u64::from(self.first.0).is_multiple_of(unit) && self.count().is_multiple_of(unit)
    }

    /// Its parts between multiples of `unit`, lowest first.
    pub fn cut(self, unit: u64) -> impl Iterator<Item = Self> {
        let end = u64::from(self.first.0) + self.count();
        let mut at = u64::from(self.first.0);
        core::iter::from_fn(move || {
            let count = end.min((at / unit + 1) * unit) - at;
            let part = Self { first: SectionId(at as u32), count: count as u32 };
            at += count;
            (count > 0).then_some(part)
        })
    }

    /// Every section, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = SectionId> {
        (self.first.0..self.first.0 + self.count).map(SectionId)
    }
}

/// A NUMA node: the proximity domain of the firmware.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(u8);

impl NodeId {
    /// How many nodes there can be (QEMU makes at most 128).
    pub const LIMIT: usize = 128;
    /// Where memory goes whose node is not known.
    pub const ZERO: Self = Self(0);

    /// The node of a proximity domain, if it is one that we can hold.
    #[must_use]
    pub const fn new(domain: u32) -> Option<Self> {
        if (domain as usize) < Self::LIMIT { Some(Self(domain as u8)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// As an index into tables by node.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every node that can exist.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::LIMIT as u8).map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_section_is_128_mib_of_frames() {
        let section = SectionId::new(32).expect("in reach");
        assert_eq!(section.address(), 4 << 30);
        assert_eq!(section.pages().len(), 32768);
        assert_eq!(section.pages().start().section(), section);
        assert_eq!(section.pages().end().section().number(), 33);
    }

    #[test]
    fn only_whole_sections_lie_inside_addresses() {
        let mib = |n: u64| n << 20;
        assert_eq!(SectionRange::inside(mib(4096), mib(4096 + 192)), SectionRange::new(32, 1));
        assert_eq!(SectionRange::inside(mib(4098), mib(4096 + 256)), SectionRange::new(33, 1));
        assert_eq!(SectionRange::inside(mib(4098), mib(4096 + 200)), None);
        assert_eq!(SectionRange::inside(0, u64::MAX), None);
    }

    #[test]
    fn ranges_without_a_gap_between_them_merge() {
        let range = |first, count| SectionRange::new(first, count).expect("in reach");
        let sorted = [range(1, 2), range(3, 1), range(5, 6), range(6, 2), range(7, 9), range(40, 1)];
        assert!(SectionRange::merged(sorted).eq([range(1, 3), range(5, 11), range(40, 1)]));
    }

    proptest! {
        #[test]
        fn buddies_are_mutual(n in 0u64..1 << 34, order in 0u8..=10) {
            let order = Order::new(order).expect("kept");
            let head = Pfn::new(n).align_down(order);
            prop_assert_ne!(head.buddy(order), head);
            prop_assert_eq!(head.buddy(order).buddy(order), head);
        }
    }
}
