//! Lists of pageblocks and of sections that live in the struct pages of their members.

use crate::addr::Pfn;
use crate::frame::memmap::Memmap;
use crate::frame::pageblock::Pageblock;

/// Whose links a list follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Links {
    /// Those of pageblocks.
    Blocks,
    /// Those of sections, named by their first pageblock.
    Sections,
}

impl Links {
    const fn offset(self) -> u64 {
        match self {
            Self::Blocks => 1,
            Self::Sections => 4,
        }
    }
}

/// The end of a list: what is first is found first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    First,
    Last,
}

const NO_LINK: u64 = u64::MAX;

/// A list that lives in the struct pages of its members.
#[derive(Debug)]
pub(crate) struct List {
    links: Links,
    first: Option<Pageblock>,
    last: Option<Pageblock>,
    len: u64,
}

impl List {
    pub(crate) const fn new(links: Links) -> Self {
        Self { links, first: None, last: None, len: 0 }
    }

    pub(crate) const fn first(&self) -> Option<Pageblock> {
        self.first
    }

    pub(crate) const fn last(&self) -> Option<Pageblock> {
        self.last
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    fn get(&self, memmap: &impl Memmap, of: Pageblock, which: u64) -> Option<Pageblock> {
        let value = memmap.page(of.first().add(self.links.offset() + which)).link();
        (value != NO_LINK).then_some(Pageblock::of(Pfn::new(value)))
    }

    fn put(&self, memmap: &impl Memmap, of: Pageblock, which: u64, value: Option<Pageblock>) {
        let value = value.map_or(NO_LINK, |block| block.first().number());
        memmap.page(of.first().add(self.links.offset() + which)).set_link(value);
    }

    fn insert(&mut self, memmap: &impl Memmap, block: Pageblock, prev: Option<Pageblock>, next: Option<Pageblock>) {
        self.put(memmap, block, 0, next);
        self.put(memmap, block, 1, prev);
        match prev {
            Some(prev) => self.put(memmap, prev, 0, Some(block)),
            None => self.first = Some(block),
        }
        match next {
            Some(next) => self.put(memmap, next, 1, Some(block)),
            None => self.last = Some(block),
        }
        self.len += 1;
    }

    pub(crate) fn push(&mut self, memmap: &impl Memmap, block: Pageblock, end: End) {
        match end {
            End::First => self.insert(memmap, block, None, self.first),
            End::Last => self.insert(memmap, block, self.last, None),
        }
    }

    pub(crate) fn remove(&mut self, memmap: &impl Memmap, block: Pageblock) {
        let (next, prev) = (self.get(memmap, block, 0), self.get(memmap, block, 1));
        match prev {
            Some(prev) => self.put(memmap, prev, 0, next),
            None => self.first = next,
        }
        match next {
            Some(next) => self.put(memmap, next, 1, prev),
            None => self.last = prev,
        }
        self.len -= 1;
    }

    /// The member that the links tell to stand behind another, or the first.
    pub(crate) fn after(&self, memmap: &impl Memmap, block: Option<Pageblock>) -> Option<Pageblock> {
        block.map_or(self.first, |block| self.get(memmap, block, 0))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::frame::pageblock::FRAMES;
    use crate::testing::Table;
    use std::vec::Vec;

    #[test]
    fn a_list_keeps_its_order_whoever_leaves() {
        let table = Table::new(8 * FRAMES);
        let [a, b, c] = [0, 1, 2].map(|n| Pageblock::of(Pfn::new(n * FRAMES)));
        let mut list = List::new(Links::Blocks);
        list.push(&table, b, End::First);
        list.push(&table, a, End::First);
        list.push(&table, c, End::Last);
        let members = core::iter::successors(list.after(&table, None), |block| list.after(&table, Some(*block)));
        assert_eq!(members.collect::<Vec<_>>(), [a, b, c]);
        list.remove(&table, b);
        assert_eq!((list.first(), list.last(), list.len()), (Some(a), Some(c), 2));
        list.remove(&table, c);
        list.remove(&table, a);
        assert_eq!((list.first(), list.last(), list.len()), (None, None, 0));
    }
}
