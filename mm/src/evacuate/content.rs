//! What lies in blocks: what of it could move elsewhere, and what is in the way.

use crate::addr::{Order, Pfn};
use crate::alloc::lookup;
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, Owner, PageInfo, PageState};
use crate::frame::pageblock::Pageblock;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::word::Section;
use crate::site::Site;

/// Why memory keeps its block from going offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// The kernel points at it.
    Kernel,
    /// It is a page table.
    PageTable,
    /// It holds struct pages of another block.
    Memmap,
    /// It could move, but is pinned.
    Pinned,
}

/// Memory that keeps its block from going offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocker {
    /// The first frame of it.
    pub pfn: Pfn,
    /// How many frames it has.
    pub pages: u64,
    /// Why it stays.
    pub hold: Hold,
    /// Whose it is.
    pub owner: Owner,
    /// Where in the source it was taken, if that is recorded; of what is pinned it is not.
    pub site: Option<Site>,
    /// When it was taken, on the machine's clock, to the second, if that is recorded.
    pub since_ns: Option<u64>,
}

impl Blocker {
    /// Whether `next` is more of the same.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        let kind = |blocker: &Self| (blocker.hold, blocker.owner, blocker.site, blocker.since_ns);
        // Who pins it is not known here: each page is told of.
        self.hold != Hold::Pinned && self.pfn.add(self.pages) == next.pfn && kind(self) == kind(next)
    }
}

/// What lies in a section that is not free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    Movable(Block),
    Fixed(Blocker),
    /// Just being taken or given back, or in a cache: something that is not free, in the pageblock of that frame.
    InFlight(Pfn),
}

/// An allocated block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) head: Pfn,
    pub(crate) order: Order,
    pub(crate) owner: Owner,
    pub(crate) mobility: Mobility,
}

impl Block {
    /// Whether both are single frames that any place serves which serves one of them.
    pub(crate) fn is_single_like(self, other: Self) -> bool {
        let is_single = |block: Self| block.order == Order::PAGE && block.mobility == Mobility::Movable;
        is_single(self) && is_single(other) && self.owner == other.owner
    }
}

/// Tells what in a pageblock, whose struct pages are mapped and stay so, is not free. Free frames in caches count as in flight.
pub(crate) fn look_into<M: Machine>(
    memory: &Memory<M>,
    block: Pageblock,
    section: Section,
    mut each: impl FnMut(Content),
) {
    if is_known_empty(memory, block, section) {
        return;
    }
    let descriptor = block.descriptor(&memory.machine);
    let mut unknown = descriptor.managed().saturating_sub(descriptor.free());
    let mut at = block.first();
    while let Some((content, allocated)) = next_content(memory, block, &mut at) {
        unknown = unknown.saturating_sub(allocated);
        each(content);
    }
    if unknown > 0 {
        each(Content::InFlight(block.first()));
    }
}

/// Whether nothing lies in a pageblock, or what does is told of with the one before it.
#[inline]
pub(crate) fn is_known_empty<M: Machine>(memory: &Memory<M>, block: Pageblock, section: Section) -> bool {
    let descriptor = block.descriptor(&memory.machine);
    // Of an added section, all that the allocator does not manage holds its own struct pages and tables, or is poisoned.
    let holds_nothing = descriptor.is_empty() && (descriptor.is_whole() || !section.has_reserved_frames());
    holds_nothing || is_second_of_pair(memory, block)
}

/// Whether a pageblock was taken together with the one before it.
#[inline(never)]
fn is_second_of_pair<M: Machine>(memory: &Memory<M>, block: Pageblock) -> bool {
    let first = block.pair_first();
    let head = memory.machine.page(first.first()).head();
    block != first && head.state == PageState::Allocated && head.order == Order::MAX
}

/// The next thing in a pageblock, from `at` on, that is neither free nor the section's own, and how many frames of it somebody has
/// taken; `at` is behind it then.
pub(crate) fn next_content<M: Machine>(memory: &Memory<M>, block: Pageblock, at: &mut Pfn) -> Option<(Content, u64)> {
    while *at < block.pages().end() {
        let pfn = *at;
        let page = memory.machine.page(pfn);
        let head = page.head();
        match head.state {
            PageState::Allocated => {
                let pages = head.order.pages();
                *at = pfn.add(pages);
                return Some((content_of(memory, pfn, page, head), pages));
            }
            PageState::Reserved => {
                *at = pfn.add(1);
                return Some((Content::Fixed(blocker(memory, pfn, Order::PAGE, hold_of(head.owner), head.owner)), 0));
            }
            PageState::Tail | PageState::Cached | PageState::Memmap | PageState::Poisoned | PageState::Absent => {
                *at = pfn.add(1)
            }
        }
    }
    None
}

/// A faulty block that could move is in flight: it is to be poisoned first.
#[inline]
fn content_of<M: Machine>(memory: &Memory<M>, head: Pfn, page: &PageInfo, was: Head) -> Content {
    match content_of_any(memory, head, page, was) {
        Content::Movable(_) if page.is_faulty() => Content::InFlight(head),
        content => content,
    }
}

/// An allocated block, faulty or not, by its struct page and what that said a moment ago.
#[inline]
pub(crate) fn content_of_any<M: Machine>(memory: &Memory<M>, head: Pfn, page: &PageInfo, was: Head) -> Content {
    let Head { order, owner, .. } = was;
    if page.is_abandoned() {
        return Content::InFlight(head);
    }
    if !memory.machine.can_move(owner) {
        return Content::Fixed(blocker(memory, head, order, hold_of(owner), owner));
    }
    match (page.asked_for(order), page.refs()) {
        // Somebody is just moving it, or it is another's by now.
        (None, _) | (_, 0) => Content::InFlight(head),
        (Some(mobility), 1) => Content::Movable(Block { head, order, owner, mobility }),
        _ => Content::Fixed(blocker(memory, head, order, Hold::Pinned, owner)),
    }
}

pub(crate) fn blocker<M: Machine>(memory: &Memory<M>, pfn: Pfn, order: Order, hold: Hold, owner: Owner) -> Blocker {
    let (site, since_ns) = match hold {
        // Whoever refers to it is told of, not its owner.
        Hold::Pinned => (None, None),
        _ => lookup::provenance(memory, memory.machine.page(pfn), order),
    };
    Blocker { pfn, pages: order.pages(), hold, owner, site, since_ns }
}

const fn hold_of(owner: Owner) -> Hold {
    match owner {
        Owner::PageTable | Owner::UserTable => Hold::PageTable,
        Owner::Memmap => Hold::Memmap,
        _ => Hold::Kernel,
    }
}
