//! The free memory of one zone and one origin: pageblocks, on lists by what they have to give.
//!
//! A pageblock that is free as a whole has no migrate type and is kept for requests of its size, alone or as a pair. One that
//! is partly used serves one migrate type, so that what cannot move does not spread, and is on a list by the largest group of
//! frames that may still be found in it. That size is an upper bound: it is corrected where a search fails, which the frees
//! that raised it have paid for.
//!
//! Free groups coalesce by themselves: they are bits, and a group is free when all of its bits are. A pageblock whose last
//! frame is freed coalesces with its buddy into a pair.

mod isolation;

use crate::addr::{Order, Pfn, SectionId};
use crate::frame::list::{End, Links, List};
use crate::frame::memmap::Memmap;
use crate::frame::mobility::Mobility;
use crate::frame::pageblock::{Descriptor, FRAMES, LARGEST_PART, Listing, PER_SECTION, Pageblock};

/// Sizes of groups in a pageblock that is not free as a whole.
const SIZES: usize = Order::PAGEBLOCK.index();

/// Whether a request may take from pageblocks of the other mobility.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mixing {
    Never,
    Allowed,
}

/// Partly used pageblocks of one mobility, by the largest group that may be found in them.
#[derive(Debug)]
struct Partial {
    lists: [List; SIZES],
    /// Which lists have members.
    populated: u16,
}

impl Partial {
    const fn new() -> Self {
        Self { lists: [const { List::new(Links::Blocks) }; SIZES], populated: 0 }
    }

    /// A pageblock of the first list that may serve `order`.
    fn candidate(&self, order: Order) -> Option<Pageblock> {
        let lists = self.populated >> order.index();
        if lists == 0 {
            return None;
        }
        self.lists[order.index() + lists.trailing_zeros() as usize].first()
    }

    fn insert(&mut self, memmap: &impl Memmap, block: Pageblock, size: Order) {
        self.lists[size.index()].push(memmap, block, End::First);
        self.populated |= 1 << size.index();
    }

    fn remove(&mut self, memmap: &impl Memmap, block: Pageblock, size: Order) {
        let list = &mut self.lists[size.index()];
        list.remove(memmap, block);
        if list.len() == 0 {
            self.populated &= !(1 << size.index());
        }
    }
}

/// Which of the lists of partly used pageblocks, if it is one.
type Part = Option<(Mobility, Order)>;

/// A pageblock, the kind of list that it is on, and which of those.
pub(crate) type Listed = (Pageblock, Listing, Part);

/// How far a walk over all lists has come.
#[derive(Clone, Copy, Default)]
pub(crate) struct Walk {
    list: usize,
    last: Option<Pageblock>,
    /// Members of the list so far.
    seen: u64,
}

/// What looking for a group has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Search {
    Found(Pfn),
    Nothing,
    /// Several pageblocks had less than they promised, which is known now: to be asked again.
    Unfinished,
}

/// Pageblocks in which a group is looked for under one hold of the lock.
const TRIES: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct FreeArea {
    /// By mobility.
    partial: [Partial; Mobility::ALL.len()],
    /// Pageblocks that are free as a whole, and whose buddy is not.
    singles: List,
    /// The first of two buddies that are both free as a whole.
    pairs: List,
    /// Sections in which nothing is handed out.
    empty: List,
    /// Free frames within reach.
    pages: u64,
    /// Free frames of isolated pageblocks.
    isolated: u64,
}

impl FreeArea {
    pub(crate) const fn new() -> Self {
        Self {
            partial: [const { Partial::new() }; Mobility::ALL.len()],
            singles: List::new(Links::Blocks),
            pairs: List::new(Links::Blocks),
            empty: List::new(Links::Sections),
            pages: 0,
            isolated: 0,
        }
    }

    /// Free frames that can be had.
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Free frames of pageblocks that are isolated.
    pub(crate) const fn isolated(&self) -> u64 {
        self.isolated
    }

    /// Pageblocks within reach that are free as a whole.
    pub(crate) const fn whole_blocks(&self) -> u64 {
        self.singles.len() + 2 * self.pairs.len()
    }

    /// How many sections hold nothing.
    pub(crate) const fn empty_sections(&self) -> u64 {
        self.empty.len()
    }

    /// Of the sections that hold nothing, the one that has done so for longest.
    pub(crate) fn longest_empty(&self) -> Option<SectionId> {
        self.empty.last().map(|block| block.first().section())
    }

    /// Takes a group of 2^`order` frames.
    pub(crate) fn take(&mut self, memmap: &impl Memmap, order: Order, mobility: Mobility, mixing: Mixing) -> Search {
        if order >= Order::PAGEBLOCK {
            return self.take_whole(memmap, order, mobility).map_or(Search::Nothing, Search::Found);
        }
        for _ in 0..TRIES {
            let Some(block) = self.serving(memmap, order, mobility, mixing) else { return Search::Nothing };
            if let Some(head) = self.take_in(memmap, block, order) {
                self.use_for(memmap, block, mobility);
                return Search::Found(head);
            }
        }
        Search::Unfinished
    }

    /// Takes up to `most` frames, as many as one pageblock has.
    pub(crate) fn take_frames(
        &mut self,
        memmap: &impl Memmap,
        most: u64,
        mobility: Mobility,
        mixing: Mixing,
        each: impl FnMut(Pfn),
    ) {
        if let Some(block) = self.serving(memmap, Order::PAGE, mobility, mixing) {
            let taken = block.take_frames(memmap, most, each);
            self.note_taken(memmap, block, taken);
            self.use_for(memmap, block, mobility);
        }
    }

    /// A partly used pageblock, or one that is free as a whole and becomes this mobility's, in which 2^`order` frames may
    /// be found.
    fn serving(&mut self, memmap: &impl Memmap, order: Order, mobility: Mobility, mixing: Mixing) -> Option<Pageblock> {
        if let Some(block) = self.partial[mobility as usize].candidate(order) {
            return Some(block);
        }
        if let Some(block) = self.pop_single(memmap) {
            self.enlist(memmap, block, mobility, LARGEST_PART);
            return Some(block);
        }
        let other = match mixing {
            Mixing::Never => return None,
            Mixing::Allowed => mobility.other(),
        };
        self.partial[other as usize].candidate(order)
    }

    /// Frames of a partly used pageblock were taken for `mobility`: what cannot move makes the whole pageblock immovable,
    /// what can changes nothing.
    fn use_for(&mut self, memmap: &impl Memmap, block: Pageblock, mobility: Mobility) {
        let descriptor = block.descriptor(memmap);
        if mobility == Mobility::Movable || descriptor.mobility() == mobility {
            return;
        }
        if descriptor.listing() == Listing::Partial {
            self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
            self.enlist(memmap, block, mobility, descriptor.largest());
        } else {
            block.set(memmap, descriptor.with_mobility(mobility));
        }
    }

    /// Puts a pageblock that is on no list among the partly used ones.
    fn enlist(&mut self, memmap: &impl Memmap, block: Pageblock, mobility: Mobility, largest: Order) {
        let descriptor = block.descriptor(memmap).with_listing(Listing::Partial);
        block.set(memmap, descriptor.with_mobility(mobility).with_largest(largest));
        self.partial[mobility as usize].insert(memmap, block, largest);
    }

    /// Takes a group in a partly used pageblock; if there is none, that is remembered.
    fn take_in(&mut self, memmap: &impl Memmap, block: Pageblock, order: Order) -> Option<Pfn> {
        let taken = block.take(memmap, order);
        if taken.is_some() {
            self.note_taken(memmap, block, order.pages());
        } else {
            let descriptor = block.descriptor(memmap);
            self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
            let smaller = order.smaller().expect("one frame is found where frames are free");
            self.enlist(memmap, block, descriptor.mobility(), smaller);
        }
        taken
    }

    /// Frames of a partly used pageblock were taken.
    fn note_taken(&mut self, memmap: &impl Memmap, block: Pageblock, pages: u64) {
        let mut descriptor = block.descriptor(memmap);
        if descriptor.is_empty() {
            self.note_occupied(memmap, block);
        }
        descriptor = descriptor.taken(pages);
        self.pages -= pages;
        if descriptor.free() == 0 {
            self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
            descriptor = descriptor.with_listing(Listing::Nowhere);
        }
        block.set(memmap, descriptor);
    }

    /// Takes one pageblock or a pair.
    pub(crate) fn take_whole(&mut self, memmap: &impl Memmap, order: Order, mobility: Mobility) -> Option<Pfn> {
        let block = if order == Order::PAGEBLOCK { self.pop_single(memmap)? } else { self.pop_pair(memmap)? };
        self.hand_out(memmap, block, mobility);
        if order > Order::PAGEBLOCK {
            self.hand_out(memmap, block.buddy(), mobility);
        }
        Some(block.first())
    }

    /// Takes a pageblock off the lists that is free as a whole, of a pair if there is no other.
    fn pop_single(&mut self, memmap: &impl Memmap) -> Option<Pageblock> {
        if let Some(block) = self.singles.first() {
            self.singles.remove(memmap, block);
            return Some(block);
        }
        let block = self.pop_pair(memmap)?;
        self.put_single(memmap, block.buddy());
        Some(block)
    }

    fn pop_pair(&mut self, memmap: &impl Memmap) -> Option<Pageblock> {
        let block = self.pairs.first()?;
        self.pairs.remove(memmap, block);
        Some(block)
    }

    /// Takes a pageblock that is free as a whole off the lists.
    fn pull(&mut self, memmap: &impl Memmap, block: Pageblock) {
        if block.descriptor(memmap).listing() == Listing::Single {
            self.singles.remove(memmap, block);
        } else {
            self.pairs.remove(memmap, block.pair_first());
            self.put_single(memmap, block.buddy());
        }
    }

    fn put_single(&mut self, memmap: &impl Memmap, block: Pageblock) {
        set_listing(memmap, block, Listing::Single);
        self.singles.push(memmap, block, End::First);
    }

    /// A pageblock that is free as a whole and on no list goes to somebody.
    fn hand_out(&mut self, memmap: &impl Memmap, block: Pageblock, mobility: Mobility) {
        let descriptor = block.descriptor(memmap).taken(FRAMES).with_listing(Listing::Nowhere);
        self.note_occupied(memmap, block);
        self.pages -= FRAMES;
        block.set(memmap, descriptor.with_mobility(mobility));
    }

    /// Gives frames back that were taken together.
    pub(crate) fn put(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let block = Pageblock::of(head);
        if order < Order::PAGEBLOCK {
            let before = block.descriptor(memmap);
            let grown = block.give(memmap, head, order, before.largest());
            let after = before.given(order.pages());
            // Most often it stays on its list.
            if grown.is_none() && after.listing() == Listing::Partial && !after.is_empty() {
                self.pages = self.pages.wrapping_add(order.pages());
                return block.set(memmap, after);
            }
            return self.note_given(memmap, block, before, order, grown);
        }
        self.note_given(memmap, block, block.descriptor(memmap), Order::PAGEBLOCK, None);
        if order > Order::PAGEBLOCK {
            let second = block.buddy();
            self.note_given(memmap, second, second.descriptor(memmap), Order::PAGEBLOCK, None);
        }
    }

    /// 2^`order` frames of a pageblock were given back; what was known of it before, and the order of the free group that they
    /// are part of now, if it is larger than any known before.
    fn note_given(
        &mut self,
        memmap: &impl Memmap,
        block: Pageblock,
        before: Descriptor,
        order: Order,
        grown: Option<Order>,
    ) {
        let descriptor = before.given(order.pages());
        block.set(memmap, descriptor);
        match (descriptor.listing(), grown) {
            (Listing::Isolated, _) => {
                self.isolated += order.pages();
                // What may be found in it is known when it comes back.
                let largest = if before.free() == 0 { Some(order.min(LARGEST_PART)) } else { grown };
                let largest = largest.unwrap_or(descriptor.largest());
                return block.set(memmap, descriptor.with_largest(largest));
            }
            (Listing::Partial, _) if descriptor.is_whole() => {
                self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
                self.enter(memmap, block, LARGEST_PART, End::First);
            }
            (Listing::Partial, None) => {}
            (Listing::Partial, Some(grown)) => {
                self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
                self.enlist(memmap, block, descriptor.mobility(), grown);
            }
            // It had no free frame, so what it has now is one group.
            _ => self.enter(memmap, block, order.min(LARGEST_PART), End::First),
        }
        self.pages += order.pages();
        if descriptor.is_empty() {
            self.note_empty(memmap, block);
        }
    }

    /// Puts a pageblock on the list where it belongs.
    fn enter(&mut self, memmap: &impl Memmap, block: Pageblock, largest: Order, end: End) {
        let descriptor = block.descriptor(memmap);
        if descriptor.is_whole() {
            let buddy = block.buddy();
            if buddy.descriptor(memmap).listing() != Listing::Single {
                set_listing(memmap, block, Listing::Single);
                return self.singles.push(memmap, block, end);
            }
            self.singles.remove(memmap, buddy);
            let first = block.pair_first();
            set_listing(memmap, first, Listing::PairFirst);
            set_listing(memmap, first.buddy(), Listing::PairSecond);
            self.pairs.push(memmap, first, end);
        } else if descriptor.free() > 0 {
            self.enlist(memmap, block, descriptor.mobility(), largest);
        }
    }

    fn note_empty(&mut self, memmap: &impl Memmap, block: Pageblock) {
        let section = block.section_first();
        if section.add_empty_count(memmap, 1) == PER_SECTION - 1 {
            self.empty.push(memmap, section, End::First);
        }
    }

    fn note_occupied(&mut self, memmap: &impl Memmap, block: Pageblock) {
        let section = block.section_first();
        if section.add_empty_count(memmap, 1_u64.wrapping_neg()) == PER_SECTION {
            self.empty.remove(memmap, section);
        }
    }

    /// Takes a free group of 2^`order` frames in `block`, if it serves that mobility.
    pub(crate) fn take_at(
        &mut self,
        memmap: &impl Memmap,
        block: Pageblock,
        order: Order,
        mobility: Mobility,
        mixing: Mixing,
    ) -> Option<Pfn> {
        let descriptor = block.descriptor(memmap);
        match descriptor.listing() {
            Listing::Nowhere | Listing::Isolated => return None,
            Listing::Partial => {
                if order > descriptor.largest() || (descriptor.mobility() != mobility && mixing == Mixing::Never) {
                    return None;
                }
                let head = self.take_in(memmap, block, order)?;
                self.use_for(memmap, block, mobility);
                return Some(head);
            }
            Listing::Single | Listing::PairSecond if order > Order::PAGEBLOCK => return None,
            Listing::PairFirst if order > Order::PAGEBLOCK => self.pairs.remove(memmap, block),
            Listing::Single | Listing::PairFirst | Listing::PairSecond => self.pull(memmap, block),
        }
        if order < Order::PAGEBLOCK {
            self.enlist(memmap, block, mobility, LARGEST_PART);
            return self.take_in(memmap, block, order);
        }
        self.hand_out(memmap, block, mobility);
        if order > Order::PAGEBLOCK {
            self.hand_out(memmap, block.buddy(), mobility);
        }
        Some(block.first())
    }

    /// A free frame of `block` is nobody's from now on; its bit is the caller's.
    pub(crate) fn lose_frame(&mut self, memmap: &impl Memmap, block: Pageblock) {
        let descriptor = block.descriptor(memmap);
        if descriptor.listing() == Listing::Isolated {
            self.isolated -= 1;
            let largest = if descriptor.is_whole() { LARGEST_PART } else { descriptor.largest() };
            return block.set(memmap, descriptor.taken(1).less_one_managed().with_largest(largest));
        }
        if block.descriptor(memmap).is_whole() {
            self.pull(memmap, block);
            self.enlist(memmap, block, block.descriptor(memmap).mobility(), LARGEST_PART);
        }
        self.note_taken(memmap, block, 1);
        let descriptor = block.descriptor(memmap).less_one_managed();
        block.set(memmap, descriptor);
        if descriptor.is_empty() {
            self.note_empty(memmap, block);
        }
    }

    /// The next pageblock on a list, with the listing and mobility that the list stands for, as the links tell; of each list
    /// at most one more than are counted.
    pub(crate) fn walk_on(&self, memmap: &impl Memmap, walk: &mut Walk) -> Option<Listed> {
        loop {
            let (list, listing, part) = self.list(walk.list)?;
            let next = if walk.seen > list.len() { None } else { list.after(memmap, walk.last) };
            if let Some(block) = next {
                *walk = Walk { last: next, seen: walk.seen + 1, ..*walk };
                return Some((block, listing, part));
            }
            *walk = Walk { list: walk.list + 1, last: None, seen: 0 };
        }
    }

    /// The lists of pageblocks, by number, with what they stand for.
    fn list(&self, number: usize) -> Option<(&List, Listing, Part)> {
        if let Some(mobility) = Mobility::ALL.get(number / SIZES) {
            let list = &self.partial[*mobility as usize].lists[number % SIZES];
            return Some((list, Listing::Partial, Some((*mobility, Order::new((number % SIZES) as u8)?))));
        }
        match number - Mobility::ALL.len() * SIZES {
            0 => Some((&self.singles, Listing::Single, None)),
            1 => Some((&self.pairs, Listing::PairFirst, None)),
            _ => None,
        }
    }
}

fn set_listing(memmap: &impl Memmap, block: Pageblock, listing: Listing) {
    block.set(memmap, block.descriptor(memmap).with_listing(listing));
}

#[cfg(test)]
#[path = "free_area_tests.rs"]
mod tests;
