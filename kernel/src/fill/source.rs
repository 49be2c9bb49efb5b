//! Where the frames of the kernel's own fills come from.

use super::{BATCH, TakeError};
use crate::memory::{FrameList, OwnedFrames};
use alloc::vec::Vec;
use mm::addr::{Order, SectionRange};
use mm::alloc::request::{AllocError, Request, Urgency};
use mm::frame::page::Owner;
use mm::machine::tasks::Pace;

/// Where to take frames for the kernel from.
pub(crate) struct Source {
    /// Only inside these, lowest address first; anywhere else without them.
    pub(crate) blocks: Option<Vec<SectionRange>>,
}

impl Source {
    /// Takes frames, in pieces as they come.
    pub(crate) fn take(&self, pages: u64, pace: &mut dyn Pace) -> Result<FrameList, TakeError> {
        let mut taken = FrameList::new();
        // Inside blocks large pieces first: each request there looks for its piece from the first frame on.
        let mut order = if self.blocks.is_some() { Order::MAX } else { Order::PAGE };
        let mut since_pause = 0;
        while taken.page_count() < pages {
            let missing = pages - taken.page_count();
            while order.pages() > missing {
                order = order.smaller().expect("one page is not more than what is missing");
            }
            match self.take_one(order) {
                Ok(frames) => taken.push(frames),
                Err(error) => match order.smaller() {
                    Some(smaller) if error == AllocError::OutOfMemory => order = smaller,
                    _ => return Err(TakeError::no_frame(taken.page_count(), error, self.blocks.is_none())),
                },
            }
            since_pause += order.pages();
            if since_pause >= BATCH {
                since_pause = 0;
                pace.pause().map_err(TakeError::Stopped)?;
            }
        }
        Ok(taken)
    }

    /// Takes one block of frames.
    pub(crate) fn take_one(&self, order: Order) -> Result<OwnedFrames, AllocError> {
        let request = Request { order, urgency: Urgency::Bulk, ..Request::kernel(Owner::Kfill) };
        let Some(blocks) = &self.blocks else {
            return OwnedFrames::allocate(&request);
        };
        for range in blocks {
            match OwnedFrames::allocate_within(&request, *range) {
                Err(AllocError::OutOfMemory) => {}
                found => return found,
            }
        }
        Err(AllocError::OutOfMemory)
    }
}
