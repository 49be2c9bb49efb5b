//! `buddy_system_allocator`: a balanced tree of free groups for every order.

use crate::frames::{Frames, TakeOut};
use buddy_system_allocator::FrameAllocator;
use spin::Mutex;

pub(crate) struct BuddySystem(Mutex<FrameAllocator>);

impl Frames for BuddySystem {
    const NAME: &'static str = "buddy_system_allocator";
    const TAKE_FREE: Option<TakeOut<Self>> = Some(|frames, section| {
        let count = (section.end - section.start) as usize;
        frames.0.lock().alloc_at(section.start as usize, count).expect("all of it is free");
    });
    /// There is no operation on a range, but one on a given frame.
    const TAKE_USED: Option<TakeOut<Self>> = Some(|frames, section| {
        let mut frames = frames.0.lock();
        for frame in section {
            // Half of them are in use.
            let _ = frames.alloc_at(frame as usize, 1);
        }
    });

    fn without_memory(_bytes: u64) -> Self {
        Self(Mutex::new(FrameAllocator::new()))
    }

    fn make_allocatable(&self, bytes: u64) {
        self.0.lock().insert(0..(bytes >> 12) as usize);
    }

    #[inline]
    fn allocate(&self, order: u8) -> Option<u64> {
        self.0.lock().alloc(1 << order).map(|frame| frame as u64)
    }

    #[inline]
    fn free(&self, frame: u64, order: u8) {
        self.0.lock().dealloc(frame as usize, 1 << order);
    }
}
