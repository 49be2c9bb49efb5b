//! A pageblock: 2 MiB of frames of one migrate type, which of them are free, and on which list of its zone it is.
//!
//! All of that lies in the struct pages of its own first frames:
//!
//! | struct page | `used` | `link` |
//! |---|---|---|
//! | 0 | the used frames among 0 to 63 | the [`Descriptor`] |
//! | 1, 2 | among 64 to 127, 128 to 191 | the next and the previous pageblock on the list |
//! | 3 | among 192 to 255 | first of its section: how many pageblocks of the section hold nothing |
//! | 4, 5 | ... | first of its section: the next and the previous section on the list |
//! | 6 | ... | first of its section: a block was pinned while it was on its way out |
//! | 7 | ... | |
//!
//! The bits are right whenever the pageblock has a free frame. One that is handed out whole keeps them clear.

use crate::addr::{Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId};
use crate::frame::memmap::Memmap;
use crate::frame::mobility::Mobility;
use crate::frame::pageblock_set::PageblockSet;

/// Frames in a pageblock.
pub(crate) const FRAMES: u64 = Order::PAGEBLOCK.pages();
/// Pageblocks in a section.
pub(crate) const PER_SECTION: u64 = PAGES_PER_SECTION / FRAMES;

/// The largest group of frames in a pageblock that is not free as a whole.
pub(crate) const LARGEST_PART: Order = Order::PAGEBLOCK.smaller().expect("a pageblock has parts");

/// What the count of pageblocks that hold nothing starts from in a section whose struct pages stay, so that as a whole it never
/// holds nothing. If it is in two zones, each counts its own there.
pub(crate) const KEPT_COUNT: u64 = 1 << 32;

const BITS: u64 = u64::BITS as u64;
const WORDS: u64 = FRAMES / BITS;
/// The order of the frames that one word of bits tells of.
const WORD_ORDER: u32 = BITS.ilog2();

/// A pageblock, named by its first frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pageblock(Pfn);

/// On which list of its zone a pageblock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Listing {
    /// On none: it has no free frame, or its section is not in use.
    Nowhere = 0,
    /// With others of its mobility that have some free frames.
    Partial = 1,
    /// With those that are free as a whole.
    Single = 2,
    /// The first of two that are free together.
    PairFirst = 3,
    /// The second of two that are free together, found through the first.
    PairSecond = 4,
    /// On none: what is freed in it stays out of reach.
    Isolated = 5,
}

/// What the zone knows of a pageblock, in one word.
///
/// | bits | |
/// |---|---|
/// | 0 to 15 | free frames |
/// | 16 to 31 | frames that the allocator may hand out |
/// | 32 to 39 | its list |
/// | 40 to 47 | no free group of frames in it is larger; there may be none of this order either |
/// | 48 | what it is used for while it is not free as a whole |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor(u64);

impl Descriptor {
    /// A pageblock of which `managed` frames can be handed out, all of them free, on no list.
    pub(crate) const fn unlisted(managed: u64, mobility: Mobility) -> Self {
        Self(managed | managed << 16).with_mobility(mobility).with_largest(LARGEST_PART)
    }

    #[inline]
    pub(crate) const fn free(self) -> u64 {
        self.0 & 0xffff
    }

    #[inline]
    pub(crate) const fn managed(self) -> u64 {
        self.0 >> 16 & 0xffff
    }

    #[inline]
    pub(crate) const fn listing(self) -> Listing {
        match self.0 >> 32 & 0xff {
            0 => Listing::Nowhere,
            1 => Listing::Partial,
            2 => Listing::Single,
            3 => Listing::PairFirst,
            4 => Listing::PairSecond,
            _ => Listing::Isolated,
        }
    }

    #[inline]
    pub(crate) const fn largest(self) -> Order {
        Order::new((self.0 >> 40) as u8).expect("only valid orders are stored")
    }

    #[inline]
    pub(crate) const fn mobility(self) -> Mobility {
        if self.0 >> 48 & 1 == 0 { Mobility::Unmovable } else { Mobility::Movable }
    }

    /// With that many free frames more.
    #[inline]
    pub(crate) const fn given(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages))
    }

    /// With that many free frames less.
    #[inline]
    pub(crate) const fn taken(self, pages: u64) -> Self {
        Self(self.0 - pages)
    }

    /// When one frame less can be handed out.
    pub(crate) const fn less_one_managed(self) -> Self {
        Self(self.0 - (1 << 16))
    }

    #[inline]
    pub(crate) const fn with_listing(self, listing: Listing) -> Self {
        Self(self.0 & !(0xff << 32) | (listing as u64) << 32)
    }

    #[inline]
    pub(crate) const fn with_largest(self, largest: Order) -> Self {
        Self(self.0 & !(0xff << 40) | (largest.index() as u64) << 40)
    }

    #[inline]
    pub(crate) const fn with_mobility(self, mobility: Mobility) -> Self {
        Self(self.0 & !(1 << 48) | (mobility as u64) << 48)
    }

    /// Whether nothing in it is handed out.
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.free() == self.managed()
    }

    /// Whether all of it can be handed out at once.
    #[inline]
    pub(crate) const fn is_whole(self) -> bool {
        self.free() == FRAMES
    }
}

/// Where the bits of `used` are set at which an aligned group of 2^`order` clear bits begins.
const fn clear_groups(used: u64, order: u32) -> u64 {
    const STARTS: [u64; WORD_ORDER as usize + 1] = [
        u64::MAX,
        0x5555_5555_5555_5555,
        0x1111_1111_1111_1111,
        0x0101_0101_0101_0101,
        0x0001_0001_0001_0001,
        0x0000_0001_0000_0001,
        1,
    ];
    let mut free = !used;
    let mut step = 0;
    while step < order {
        free &= free >> (1 << step);
        step += 1;
    }
    free & STARTS[order as usize]
}

/// The bits of the aligned group of 2^`order` that `index` lies in, within their word.
const fn group(index: u64, order: u32) -> u64 {
    let len = 1 << order;
    (u64::MAX >> (BITS - len)) << ((index % BITS) & !(len - 1))
}

impl Pageblock {
    /// The pageblock that `pfn` lies in.
    #[inline]
    pub(crate) const fn of(pfn: Pfn) -> Self {
        Self(pfn.align_down(Order::PAGEBLOCK))
    }

    /// The pageblocks of a section, lowest first.
    pub(crate) fn of_section(id: SectionId) -> impl Iterator<Item = Self> {
        let start = id.pages().start();
        (0..PER_SECTION).map(move |n| Self(start.add(n * FRAMES)))
    }

    /// The `n`th of a section.
    pub(crate) const fn nth(id: SectionId, n: u64) -> Self {
        Self(id.pages().start().add(n * FRAMES))
    }

    /// Those of a section that are in `set`, lowest first.
    pub(crate) fn of_set(id: SectionId, set: PageblockSet) -> impl Iterator<Item = Self> + Clone {
        set.iter().map(move |n| Self::nth(id, n))
    }

    /// Its number in its section.
    pub(crate) const fn index(self) -> u64 {
        self.0.index_in_section() / FRAMES
    }

    pub(crate) const fn first(self) -> Pfn {
        self.0
    }

    pub(crate) const fn pages(self) -> PfnRange {
        PfnRange::new(self.0, FRAMES)
    }

    /// The first pageblock of its section.
    pub(crate) const fn section_first(self) -> Self {
        Self(self.0.section().pages().start())
    }

    /// The one that it makes a pair with.
    pub(crate) const fn buddy(self) -> Self {
        Self(self.0.buddy(Order::PAGEBLOCK))
    }

    /// The first of the pair.
    pub(crate) const fn pair_first(self) -> Self {
        Self(self.0.align_down(Order::MAX))
    }

    pub(crate) fn descriptor(self, memmap: &impl Memmap) -> Descriptor {
        Descriptor(memmap.page(self.0).link())
    }

    pub(crate) fn set(self, memmap: &impl Memmap, descriptor: Descriptor) {
        memmap.page(self.0).set_link(descriptor.0);
    }

    fn word(self, memmap: &impl Memmap, n: u64) -> u64 {
        memmap.page(self.0.add(n)).used()
    }

    fn set_word(self, memmap: &impl Memmap, n: u64, bits: u64) {
        memmap.page(self.0.add(n)).set_used(bits);
    }

    /// Whether `pfn`, which lies in it, is free.
    pub(crate) fn is_free(self, memmap: &impl Memmap, pfn: Pfn) -> bool {
        let index = pfn.number() % FRAMES;
        self.descriptor(memmap).free() > 0 && self.word(memmap, index / BITS) & group(index, 0) == 0
    }

    /// Free frames by the bits, right if there is any.
    pub(crate) fn count_free(self, memmap: &impl Memmap) -> u64 {
        (0..WORDS).map(|n| u64::from(self.word(memmap, n).count_zeros())).sum()
    }

    /// Marks frames as used that are never handed out.
    pub(crate) fn reserve(self, memmap: &impl Memmap, pages: PfnRange) {
        let pages = pages.intersection(self.pages());
        let mut at = pages.start().number() % FRAMES;
        let end = at + pages.len();
        while at < end {
            let n = at / BITS;
            let stop = end.min((n + 1) * BITS);
            let bits = (u64::MAX >> (BITS - (stop - at))) << (at % BITS);
            self.set_word(memmap, n, self.word(memmap, n) | bits);
            at = stop;
        }
    }

    /// Takes the lowest free aligned group of 2^`order` frames, `order` below a pageblock's.
    pub(crate) fn take(self, memmap: &impl Memmap, order: Order) -> Option<Pfn> {
        let bits = order.index() as u32;
        if bits <= WORD_ORDER {
            (0..WORDS).find_map(|n| {
                let used = self.word(memmap, n);
                let groups = clear_groups(used, bits);
                if groups == 0 {
                    return None;
                }
                let index = n * BITS + u64::from(groups.trailing_zeros());
                self.set_word(memmap, n, used | group(index, bits));
                Some(self.0.add(index))
            })
        } else {
            let words = order.pages() / BITS;
            let n = (0..WORDS).step_by(words as usize).find(|n| self.are_clear(memmap, *n, words))?;
            (n..n + words).for_each(|n| self.set_word(memmap, n, u64::MAX));
            Some(self.0.add(n * BITS))
        }
    }

    /// Takes at most `most` free frames, lowest first, and says how many those were.
    pub(crate) fn take_frames(self, memmap: &impl Memmap, most: u64, mut each: impl FnMut(Pfn)) -> u64 {
        let mut taken = 0;
        for n in 0..WORDS {
            let mut used = self.word(memmap, n);
            let before = used;
            while used != u64::MAX && taken < most {
                let bit = used.trailing_ones();
                used |= 1 << bit;
                taken += 1;
                each(self.0.add(n * BITS + u64::from(bit)));
            }
            if used != before {
                self.set_word(memmap, n, used);
            }
            if taken == most {
                break;
            }
        }
        taken
    }

    /// Gives back what was taken; if the free group that it is part of now is larger than `known`, its order.
    #[inline]
    pub(crate) fn give(self, memmap: &impl Memmap, head: Pfn, order: Order, known: Order) -> Option<Order> {
        let index = head.number() % FRAMES;
        let used = self.mark_free(memmap, head, order);
        let next = known.index() as u32 + 1;
        // Most often, its word tells at once that it is not.
        if next <= WORD_ORDER && used & group(index, next) != 0 {
            return None;
        }
        self.grown(memmap, head, known)
    }

    /// Gives back what was taken; what its word says of the frames beside it then.
    #[inline]
    pub(crate) fn mark_free(self, memmap: &impl Memmap, head: Pfn, order: Order) -> u64 {
        let index = head.number() % FRAMES;
        let bits = order.index() as u32;
        let n = index / BITS;
        if bits > WORD_ORDER {
            (n..n + order.pages() / BITS).for_each(|n| self.set_word(memmap, n, 0));
            return 0;
        }
        let given = if order == Order::PAGE { 1 << (index % BITS) } else { group(index, bits) };
        let used = self.word(memmap, n) & !given;
        self.set_word(memmap, n, used);
        used
    }

    /// The order of the free group, below a pageblock's, that `pfn` is part of, if it is above `order`.
    pub(crate) fn grown(self, memmap: &impl Memmap, pfn: Pfn, order: Order) -> Option<Order> {
        let index = pfn.number() % FRAMES;
        let is_clear = |bits: u32| {
            if bits <= WORD_ORDER {
                self.word(memmap, index / BITS) & group(index, bits) == 0
            } else {
                let words = 1 << (bits - WORD_ORDER);
                self.are_clear(memmap, (index / BITS) & !(words - 1), words)
            }
        };
        let mut bits = order.index() as u32;
        while bits + 1 < Order::PAGEBLOCK.index() as u32 && is_clear(bits + 1) {
            bits += 1;
        }
        Order::new(bits as u8).filter(|grown| *grown > order)
    }

    fn are_clear(self, memmap: &impl Memmap, n: u64, words: u64) -> bool {
        (n..n + words).all(|n| self.word(memmap, n) == 0)
    }

    /// The largest aligned free groups, below a pageblock's order, that its free frames make: how many of each order.
    pub(crate) fn free_groups(self, memmap: &impl Memmap, mut each: impl FnMut(Pfn, Order)) {
        let mut index = 0;
        while index < FRAMES {
            if self.word(memmap, index / BITS) & group(index, 0) != 0 {
                index += 1;
                continue;
            }
            let order = self.group_at(memmap, index);
            each(self.0.add(index), order);
            index += order.pages();
        }
    }

    /// The order of the largest aligned free group that begins at `index`, a free frame.
    fn group_at(self, memmap: &impl Memmap, index: u64) -> Order {
        let fits = |order: &Order| {
            let bits = order.index() as u32;
            index.is_multiple_of(order.pages())
                && if bits <= WORD_ORDER {
                    self.word(memmap, index / BITS) & group(index, bits) == 0
                } else {
                    self.are_clear(memmap, index / BITS, order.pages() / BITS)
                }
        };
        Order::all().take(Order::PAGEBLOCK.index()).take_while(fits).last().unwrap_or(Order::PAGE)
    }

    /// It was handed out as a whole, and its frames are given back one by one from now on.
    pub(crate) fn mark_all_used(self, memmap: &impl Memmap) {
        (0..WORDS).for_each(|n| self.set_word(memmap, n, u64::MAX));
    }

    /// All of its frames are free.
    pub(crate) fn mark_all_free(self, memmap: &impl Memmap) {
        (0..WORDS).for_each(|n| self.set_word(memmap, n, 0));
    }

    /// How many pageblocks of the section, whose first this is, hold nothing.
    pub(crate) fn empty_count(self, memmap: &impl Memmap) -> u64 {
        memmap.page(self.0.add(3)).link()
    }

    /// Changes that, in two's complement; what it was.
    pub(crate) fn add_empty_count(self, memmap: &impl Memmap, change: u64) -> u64 {
        memmap.page(self.0.add(3)).add_to_link(change)
    }

    pub(crate) fn set_empty_count(self, memmap: &impl Memmap, count: u64) {
        memmap.page(self.0.add(3)).set_link(count);
    }

    /// Notes that something in the section, whose first this is, was pinned.
    pub(crate) fn note_pin(self, memmap: &impl Memmap) {
        memmap.page(self.0.add(6)).set_link(1);
    }

    /// Forgets that; whether there was such a note.
    pub(crate) fn take_pin_note(self, memmap: &impl Memmap) -> bool {
        let page = memmap.page(self.0.add(6));
        let is_noted = page.link() != 0;
        if is_noted {
            page.set_link(0);
        }
        is_noted
    }
}

#[cfg(test)]
#[path = "pageblock_tests.rs"]
mod tests;
