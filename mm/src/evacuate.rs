//! Emptying blocks: what stands in the way of an offline.
//!
//! Nothing is movable yet: whatever is allocated blocks. The step that moves pages elsewhere belongs between finding an
//! allocated block and calling it a blocker.

use crate::addr::{Pfn, PfnRange};
use crate::machine::Memmap;
use crate::page::{Owner, PageState};
use crate::zone::stride;

/// Memory that keeps its block from going offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocker {
    /// The first frame of it.
    pub pfn: Pfn,
    /// Whose it is.
    pub owner: Owner,
}

/// The first frame in `range`, all free blocks of which are isolated, that cannot be given up.
pub(crate) fn first_blocker(memmap: &impl Memmap, range: PfnRange) -> Option<Blocker> {
    let mut at = range.start();
    while at < range.end() {
        let head = memmap.page(at).head();
        match head.state {
            PageState::Isolated | PageState::Memmap | PageState::Absent => {}
            PageState::Reserved | PageState::Allocated | PageState::Free | PageState::Tail | PageState::Offline => {
                return Some(Blocker { pfn: at, owner: head.owner });
            }
        }
        at = at.add(stride(head));
    }
    None
}
