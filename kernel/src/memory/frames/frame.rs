//! Frames: taken from the system by the rest of `memory`, and owned as values everywhere else.

use super::{EARLY, mm, mm_if_open};
use crate::memory::layout;
use core::ptr::with_exposed_provenance_mut;
use mm::addr::{Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{AllocError, Request, Urgency};
use mm::frame::memmap::Memmap;
use mm::frame::page::Owner;

/// A frame that keeps the kernel itself going: from the allocator, or from boot memory before there is one. Page tables and
/// the heap, which cannot do without, may use the reserve. Where it is called is what the frame says of its owner.
#[track_caller]
pub(crate) fn take_system(owner: Owner) -> Option<Pfn> {
    let Some(mm) = mm_if_open() else {
        return EARLY.lock().take(1, owner).map(mm::addr::PfnRange::start);
    };
    let urgency = match owner {
        Owner::PageTable | Owner::Heap => Urgency::Hotplug,
        _ => Urgency::Ordinary,
    };
    mm.allocate(&Request { urgency, ..Request::kernel(owner) }).ok()
}

/// Gives back what [`take_system`] gave.
pub(crate) fn free_system(frame: Pfn) {
    match mm_if_open() {
        Some(mm) => mm.free(frame, Order::PAGE),
        None => EARLY.lock().give_back(frame),
    }
}

/// A block of frames, freed when dropped. Their contents are whatever they were.
#[derive(Debug)]
pub(crate) struct OwnedFrames {
    head: Pfn,
    order: Order,
}

impl OwnedFrames {
    /// Takes a block of frames.
    pub(crate) fn allocate(request: &Request) -> Result<Self, AllocError> {
        mm().allocate(request).map(|head| Self { head, order: request.order })
    }

    /// Takes a block of frames in `range`, lowest first.
    pub(crate) fn allocate_within(request: &Request, range: SectionRange) -> Result<Self, AllocError> {
        mm().allocate_within(request, range).map(|head| Self { head, order: request.order })
    }

    /// Gives the ownership up without freeing, to what keeps the head; [`from_head`](Self::from_head) takes it again.
    pub(crate) fn into_head(self) -> Pfn {
        core::mem::ManuallyDrop::new(self).head
    }

    /// Owns a block again that [`into_head`](Self::into_head) gave up.
    ///
    /// # Safety
    /// What kept the head owns the block no more, and nothing else does.
    pub(crate) unsafe fn from_head(head: Pfn) -> Self {
        Self { head, order: mm().machine().page(head).head().order }
    }

    /// The first of them.
    pub(crate) const fn head(&self) -> Pfn {
        self.head
    }

    pub(crate) const fn order(&self) -> Order {
        self.order
    }

    /// How many bytes they hold.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.order.pages() * PAGE_SIZE
    }

    fn start(&self) -> *mut u8 {
        with_exposed_provenance_mut(layout::direct(self.head) as usize)
    }

    /// What they hold.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: An allocated block lies in an online section, which the direct map shows; it is ours alone until it is
        // dropped, and every byte is a valid `u8`.
        unsafe { core::slice::from_raw_parts(self.start(), self.size_bytes() as usize) }
    }

    /// What they hold, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As for `bytes`, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.start(), self.size_bytes() as usize) }
    }
}

impl Drop for OwnedFrames {
    fn drop(&mut self) {
        mm().free(self.head, self.order);
    }
}
