//! A space: one region of pages, where they come from, and giving them back.

use super::pin::Pins;
use super::rmap::{self, SpaceId, Whose};
use crate::arch;
use crate::memory::{EntryPlace, FrameList, Leaf, OwnedFrames, SPACE_PAGES, Slot, SpaceTree, mm};
use crate::sync::SpinLock;
use crate::task::{self, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use mm::addr::{NodeId, Order, Pfn, SectionRange};
use mm::alloc::request::{AllocError, Place, Request, Urgency};
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::site::Site;

/// Entries that are looked at under one hold of the lock, to discard what they map.
const DISCARDED_AT_ONCE: usize = 64;

/// How large the pages of a space are, where that can be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB, in each aligned stretch of that size that has no page yet; where there is no such block free, 4 KiB.
    Huge,
}

impl PageSize {
    /// The frames of a page.
    pub(crate) const fn order(self) -> Order {
        match self {
            Self::Small => Order::PAGE,
            Self::Huge => Order::PAGEBLOCK,
        }
    }
}

/// Where the pages of a space come from.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// From which nodes; `None` is wherever the allocator prefers.
    pub(crate) node: Option<Place>,
    /// Only from these blocks, whatever their node is.
    pub(crate) blocks: Option<Vec<SectionRange>>,
    pub(crate) page: PageSize,
}

impl Placement {
    fn request(&self, order: Order, owner: Owner, place: Place) -> Request {
        Request { order, mobility: Mobility::Movable, place, owner, urgency: Urgency::Bulk, site: Site::here() }
    }

    /// A block of frames for pages. `last` is the memory block in which one was found last: those below were full then, and
    /// are not looked through for each page.
    pub(super) fn take(&self, order: Order, last: &AtomicU32) -> Result<OwnedFrames, AllocError> {
        let place = self.node.unwrap_or(Place::Near(NodeId::ZERO));
        let request = self.request(order, Owner::Anonymous, place);
        let Some(blocks) = &self.blocks else { return OwnedFrames::allocate(&request) };
        let found = match take_within(&request, blocks, last.load(Relaxed)) {
            Err(AllocError::OutOfMemory) => take_within(&request, blocks, 0),
            found => found,
        }?;
        last.store(found.head().section().number(), Relaxed);
        Ok(found)
    }

    /// A frame for a page table.
    pub(super) fn take_table(&self) -> Result<OwnedFrames, AllocError> {
        let place = Place::Near(self.node.map_or(NodeId::ZERO, Place::node));
        OwnedFrames::allocate(&self.request(Order::PAGE, Owner::UserTable, place))
    }
}

/// A block of frames from that memory block on, in the order of the ranges.
fn take_within(request: &Request, ranges: &[SectionRange], from: u32) -> Result<OwnedFrames, AllocError> {
    let parts = ranges.iter().filter_map(|range| {
        let first = range.first().number().max(from);
        SectionRange::new(first.into(), (range.last().number() + 1).saturating_sub(first).into())
    });
    let mut found = parts.map(|part| OwnedFrames::allocate_within(request, part));
    let is_final = |result: &Result<_, _>| !matches!(result, Err(AllocError::OutOfMemory));
    found.find(is_final).unwrap_or(Err(AllocError::OutOfMemory))
}

/// Memory that tasks see in the lower half of their address space, from a fixed address on. Shared; whoever drops it last
/// gives all of it back.
pub(crate) struct AddressSpace {
    pub(super) id: SpaceId,
    pages: u64,
    pub(super) placement: Placement,
    /// The memory block in which a frame was found last, if only some may give them.
    pub(super) last_block: AtomicU32,
    tables: SpinLock<SpaceTree>,
    pub(super) pins: SpinLock<Pins>,
    /// Woken when pages have stopped moving.
    pub(super) settled: WaitQueue,
    /// Somebody had to wait for memory.
    pub(super) is_starved: AtomicBool,
}

impl AddressSpace {
    /// A space of so many pages of 4 KiB, none of them there yet.
    ///
    /// # Errors
    /// There is no frame for the top-level table, or the lower half is smaller than that.
    pub(crate) fn new(pages: u64, placement: Placement) -> Result<Arc<Self>, AllocError> {
        if pages > SPACE_PAGES {
            return Err(AllocError::OutOfMemory);
        }
        let root = placement.take_table()?;
        // First, so that whoever recounts tables knows of a space that has one.
        let id = rmap::claim();
        let tables = SpaceTree::new(root);
        mm().machine().page(tables.root_frame()).set_private(Whose { space: id, page: 0 }.word());
        let space = Arc::new(Self {
            id,
            pages,
            placement,
            last_block: AtomicU32::new(0),
            tables: SpinLock::new(tables),
            pins: SpinLock::new(Pins::new()),
            settled: WaitQueue::new(),
            is_starved: AtomicBool::new(false),
        });
        rmap::publish(id, &space);
        Ok(space)
    }

    /// How many pages of 4 KiB it can have.
    pub(crate) const fn page_count(&self) -> u64 {
        self.pages
    }

    /// What the owner's word of the frame says that is this page.
    pub(super) const fn word_of(&self, page: u64) -> u64 {
        Whose { space: self.id, page }.word()
    }

    /// The frame of a page and the order of the block that it belongs to, if it is there. Waits while it is moving; afterwards
    /// it may move again, unless it is pinned.
    pub(crate) fn frame_of(&self, page: u64) -> Option<(Pfn, Order)> {
        let (leaf, ..) = self.settled_leaf(page)?;
        Some((leaf.frame.add(page % leaf.order.pages()), leaf.order))
    }

    /// The leaf that maps a page, if it is there, its place, and the tables, locked. Waits while the page is moving.
    pub(super) fn settled_leaf(&self, page: u64) -> Option<(Leaf, EntryPlace, Locked<'_>)> {
        loop {
            let mut tables = self.lock();
            match tables.look(page) {
                (_, Slot::Empty(_)) => return None,
                (place, Slot::Mapped(leaf)) => return Some((leaf, place, tables)),
                (_, Slot::Moving(_)) => drop(tables),
            }
            self.wait_while_moving(page);
        }
    }

    pub(super) fn wait_while_moving(&self, page: u64) {
        self.settled.wait_until(|| !matches!(self.lock().look(page).1, Slot::Moving(_)));
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        self.tables.lock()
    }

    /// Gives the pages of a range back, a few at a time, pinned or not; of a 2 MiB page that begins before the range, what
    /// is in it goes with the rest of it. Whoever looks at one afterwards finds zeros. Others run meanwhile.
    pub(crate) fn discard(&self, pages: Range<u64>) {
        // Ends most pins before the lock is held under which pages go, which must not be for long.
        while self.pins.lock().forget_some(pages.clone()) {
            task::yield_now();
        }
        let mut next = pages.start;
        while let Some(mut discarded) = self.discard_some(&mut next, pages.end) {
            if discarded.page_count() > 0 {
                arch::flush_tlb_everywhere();
            }
            while let Some(frames) = discarded.pop() {
                drop(frames);
            }
            task::yield_now();
        }
    }

    /// Takes some pages out of the tables, from `next` on, which becomes where to go on; `None` if there are no more. They
    /// are free to be used elsewhere once no CPU remembers them.
    fn discard_some(&self, next: &mut u64, end: u64) -> Option<FrameList> {
        let mut discarded = FrameList::new();
        let first = *next;
        let mut tables = self.lock();
        for _ in 0..DISCARDED_AT_ONCE {
            let page = *next;
            if page >= end {
                break;
            }
            let (place, slot) = tables.look(page);
            match slot {
                Slot::Empty(_) => {}
                Slot::Mapped(leaf) => {
                    let frames = tables.unmap(page).expect("it is mapped");
                    let head = page - page % leaf.order.pages();
                    self.pins.lock().forget(head..head + leaf.order.pages());
                    discarded.push(frames);
                }
                Slot::Moving(_) => {
                    drop(tables);
                    // What has been taken need not wait.
                    if discarded.page_count() == 0 {
                        self.wait_while_moving(page);
                    }
                    return Some(discarded);
                }
            }
            *next = place.end(page);
        }
        (first < end).then_some(discarded)
    }
}

/// The tables of a space, locked.
pub(super) type Locked<'a> = crate::sync::SpinLockGuard<'a, SpaceTree>;

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("id", &self.id).field("pages", &self.pages).finish_non_exhaustive()
    }
}

/// Nobody has the space: no task sees it, and nobody moves its pages, who would have it.
impl Drop for AddressSpace {
    #[expect(unsafe_code, reason = "only the owner of the tables can say that they are used no more")]
    fn drop(&mut self) {
        // SAFETY: The tables go with the space, tasks that see it have it, and so has what moves its pages.
        unsafe { self.tables.get_mut().free() };
        rmap::release(self.id);
    }
}
