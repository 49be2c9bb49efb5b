//! `frame-alloc`: a lock-free buddy allocator of bitmaps, behind the caches for each CPU that the crate recommends.

use crate::frames::Frames;
use frame_alloc::{
    DepotAllocator, NoCpuId, PageSize, PhysicalAllocator, Provenance, RegionInit, SummaryBuddyAllocator,
};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// Orders 0 to 10, as in the crate's own example.
const ORDERS: usize = 11;
const FRAME: PageSize = PageSize::from_log2(12);

pub(crate) struct FrameAlloc(Box<DepotAllocator<SummaryBuddyAllocator<ORDERS, Arena>, NoCpuId, 1>>);

thread_local! {
    /// The memory at address zero, in which the allocator keeps its bitmaps.
    static ARENA: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

struct Arena;

#[expect(unsafe_code, reason = "the crate asks for it")]
// SAFETY: The arena is one allocation that is never given back.
unsafe impl Provenance for Arena {
    unsafe fn create(address: usize) -> NonNull<u8> {
        assert_eq!(address, 0, "the bitmaps lie at the beginning");
        NonNull::new(ARENA.get()).expect("there is an arena")
    }

    unsafe fn destroy<T>(_pointer: NonNull<T>) -> usize {
        0
    }
}

fn count(order: u8) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_mul(NonZeroUsize::new(1 << order).expect("not zero"))
}

impl Frames for FrameAlloc {
    const NAME: &'static str = "frame-alloc";

    fn without_memory(bytes: u64) -> Self {
        // Two bits for a frame, their summaries, and some to spare.
        let arena = vec![0_u64; (bytes >> 12) as usize / 16 + 4096];
        ARENA.set(arena.leak().as_mut_ptr().cast());
        let backend = SummaryBuddyAllocator::new(FRAME);
        Self(Box::new(DepotAllocator::new(FRAME, backend)))
    }

    fn make_allocatable(&self, bytes: u64) {
        #[expect(unsafe_code, reason = "the crate asks for it")]
        // SAFETY: Nobody uses the memory: there is none but the arena, which this allocator has for itself.
        unsafe {
            self.0.init_region(0, bytes as usize);
        }
    }

    #[inline]
    fn allocate(&self, order: u8) -> Option<u64> {
        self.0.allocate_physical(FRAME, count(order)).ok().map(|address| address as u64 >> 12)
    }

    #[inline]
    fn free(&self, frame: u64, order: u8) {
        #[expect(unsafe_code, reason = "the crate asks for it")]
        // SAFETY: It was allocated with this order and nobody uses it.
        unsafe {
            self.0.deallocate_physical(FRAME, count(order), (frame << 12) as usize);
        }
    }
}
