//! `free-list`: one sorted list of free ranges.

use crate::frames::{Frames, TakeOut};
use free_list::{FreeList, PageLayout, PageRange};
use spin::Mutex;
use std::ops::Range;

/// The ranges that are kept without a heap, as in the crate's own example.
const INLINE: usize = 16;

pub(crate) struct Ranges(Mutex<FreeList<INLINE>>);

fn range(frames: Range<u64>) -> PageRange {
    PageRange::new((frames.start << 12) as usize, (frames.end << 12) as usize).expect("whole pages")
}

impl Ranges {
    fn give(&self, frames: Range<u64>) {
        let mut list = self.0.lock();
        #[expect(unsafe_code, reason = "the crate asks for it")]
        // SAFETY: Nobody uses the memory; there is none.
        let given = unsafe { list.deallocate(range(frames)) };
        given.expect("it was not free");
    }
}

impl Frames for Ranges {
    const NAME: &'static str = "free-list";
    /// Each free range makes every operation dearer.
    const RANDOM_FRAMES: u64 = 1 << 14;
    const TAKE_FREE: Option<TakeOut<Self>> = Some(|frames, section| {
        frames.0.lock().allocate_at(range(section)).expect("all of it is free");
    });

    fn without_memory(_bytes: u64) -> Self {
        Self(Mutex::new(FreeList::new()))
    }

    fn make_allocatable(&self, bytes: u64) {
        self.give(0..bytes >> 12);
    }

    #[inline]
    fn allocate(&self, order: u8) -> Option<u64> {
        let size = 4096 << order;
        let layout = PageLayout::from_size_align(size, size).expect("whole pages");
        self.0.lock().allocate(layout).ok().map(|range| range.start() as u64 >> 12)
    }

    #[inline]
    fn free(&self, frame: u64, order: u8) {
        self.give(frame..frame + (1 << order));
    }
}
