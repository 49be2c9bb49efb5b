//! Emptying blocks: what stands in the way of an offline.
//!
//! Nothing is movable yet: whatever is allocated blocks. The step that moves pages elsewhere belongs between finding an
//! allocated block and calling it a blocker.

use crate::addr::{Pfn, SectionId};
use crate::machine::Memmap;
use crate::page::{Owner, PageState};
use crate::pageblock::Pageblock;

/// Memory that keeps its block from going offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocker {
    /// The first frame of it.
    pub pfn: Pfn,
    /// Whose it is.
    pub owner: Owner,
}

/// The first frame of a section that cannot be given up: handed out, or never the allocator's and yet no memmap. What is
/// just being handed out or given back has no owner yet, or no more.
pub(crate) fn first_blocker(memmap: &impl Memmap, id: SectionId, is_boot: bool) -> Option<Blocker> {
    let blocker = |pfn| {
        let head = memmap.page(pfn).head();
        match head.state {
            PageState::Allocated | PageState::Reserved | PageState::Cached => Some(Blocker { pfn, owner: head.owner }),
            PageState::Tail | PageState::Memmap | PageState::Absent => None,
        }
    };
    Pageblock::of_section(id).find_map(|block| {
        let descriptor = block.descriptor(memmap);
        if !descriptor.is_empty() {
            let in_flight = Blocker { pfn: block.first(), owner: Owner::None };
            return Some(block.pages().iter().find_map(blocker).unwrap_or(in_flight));
        }
        // Of an added section, all that the allocator does not manage holds its struct pages and tables.
        if is_boot && !descriptor.is_whole() { block.pages().iter().find_map(blocker) } else { None }
    })
}
