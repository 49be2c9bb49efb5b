//! From a frame to the page that it is: the owner's word names the space and the page.
//!
//! The word is a hint that the space confirms: it outlives the mapping, and ids are used again when all have been used. Only
//! if the space of that id maps the frame at that page, by its page table, the frame is that page.

use super::AddressSpace;
use crate::sync::SpinLock;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::ops::Bound;

/// The bits of an owner's word that hold the page.
const PAGE_BITS: u32 = 36;

const _: () = assert!(crate::memory::SPACE_PAGES <= 1 << PAGE_BITS, "every page of a space has a number");

/// Names a space while it exists; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SpaceId(u32);

impl SpaceId {
    /// No more than an owner's word holds; the one after it is in words of all ones, which mean something else elsewhere.
    const LAST: u32 = (1 << (u64::BITS - PAGE_BITS)) - 2;

    /// The id tried after this one.
    const fn next(self) -> Self {
        Self(if self.0 == Self::LAST { 1 } else { self.0 + 1 })
    }
}

/// The page of a space that a frame, or the first frame of a block, is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Whose {
    pub(super) space: SpaceId,
    pub(super) page: u64,
}

impl Whose {
    /// As an owner's word, which is not zero.
    pub(super) const fn word(self) -> u64 {
        (self.space.0 as u64) << PAGE_BITS | self.page
    }

    /// What an owner's word says, if it can be that of a page.
    pub(super) const fn from_word(word: u64) -> Option<Self> {
        let space = (word >> PAGE_BITS) as u32;
        if space == 0 { None } else { Some(Self { space: SpaceId(space), page: word & ((1 << PAGE_BITS) - 1) }) }
    }
}

/// Every space. One that is being made or given back has an id and cannot be found.
static SPACES: SpinLock<Spaces> = SpinLock::new(Spaces { last: SpaceId(0), by_id: BTreeMap::new() });

struct Spaces {
    last: SpaceId,
    by_id: BTreeMap<SpaceId, Weak<AddressSpace>>,
}

impl Spaces {
    fn claim(&mut self) -> SpaceId {
        let mut id = self.last.next();
        while self.by_id.contains_key(&id) {
            id = id.next();
        }
        self.by_id.insert(id, Weak::new());
        self.last = id;
        id
    }
}

/// An id for a space.
pub(super) fn claim() -> SpaceId {
    SPACES.lock().claim()
}

/// From now on the space can be found.
pub(super) fn publish(id: SpaceId, space: &Arc<AddressSpace>) {
    SPACES.lock().by_id.insert(id, Arc::downgrade(space));
}

/// The space of that id, if anybody still has it.
pub(super) fn find(id: SpaceId) -> Option<Arc<AddressSpace>> {
    SPACES.lock().by_id.get(&id)?.upgrade()
}

/// The lowest id that is in use and above `last`, and its space, unless that is being made or given back.
pub(super) fn next(last: Option<SpaceId>) -> Option<(SpaceId, Option<Arc<AddressSpace>>)> {
    let spaces = SPACES.lock();
    let above = last.map_or(Bound::Unbounded, Bound::Excluded);
    let (id, space) = spaces.by_id.range((above, Bound::Unbounded)).next()?;
    Some((*id, space.upgrade()))
}

/// The id is free again.
pub(super) fn release(id: SpaceId) {
    SPACES.lock().by_id.remove(&id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owners_word_keeps_space_and_page_apart() {
        for space in [1, 77, SpaceId::LAST] {
            for page in [0, 1, crate::memory::SPACE_PAGES - 1] {
                let whose = Whose { space: SpaceId(space), page };
                assert_eq!(Whose::from_word(whose.word()), Some(whose));
            }
        }
        assert_eq!(Whose::from_word(0), None, "as in a struct page that nobody has written");
    }

    #[test]
    fn an_id_is_used_again_only_after_all_others_and_not_while_its_space_exists() {
        let mut spaces = Spaces { last: SpaceId(0), by_id: BTreeMap::new() };
        assert_eq!(spaces.claim(), SpaceId(1));
        assert_eq!(spaces.claim(), SpaceId(2));
        spaces.by_id.remove(&SpaceId(2));
        assert_eq!(spaces.claim(), SpaceId(3));
        spaces.last = SpaceId(SpaceId::LAST);
        assert_eq!(spaces.claim(), SpaceId(2), "the first has its id still");
    }
}
