//! Where the frames of a fill come from, and how much of them is left to the kernel.

use super::BATCH;
use crate::memory::{FrameList, OwnedFrames, mm};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::{AllocError, Mobility, Place, Request, Urgency};
use mm::inject::Injected;
use mm::machine::{Pace, Stop};
use mm::memory::{KERNEL_PAGES, RESERVE_PAGES};
use mm::page::Owner;
use mm::section::ZoneKind;
use mm::site::Site;
use thiserror::Error;

/// Bytes that a fill leaves free in Normal zones: the reserve of hotplug, and what the kernel itself needs to go on.
pub(crate) const LEFT_FREE: u64 = (RESERVE_PAGES + KERNEL_PAGES) * PAGE_SIZE;

/// Where to take frames from.
pub(crate) struct Source {
    /// [`Owner::Anonymous`] is movable, anybody else is not.
    pub(crate) owner: Owner,
    pub(crate) node: Option<NodeId>,
    pub(crate) blocks: Option<Vec<SectionRange>>,
}

/// Why the frames could not be had; what was taken has been given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TakeError {
    #[error("only {taken} pages could be had")]
    TooLittle { taken: u64 },
    #[error("the kernel would not have enough left")]
    KernelShort,
    #[error("{0}")]
    Injected(Injected),
    #[error("{0}")]
    Stopped(Stop),
}

impl TakeError {
    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::TooLittle { .. } | Self::KernelShort => Errno::NoMemory,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl Source {
    /// Takes frames, in pieces as they come.
    pub(crate) fn take(&self, pages: u64, pace: &mut dyn Pace) -> Result<FrameList, TakeError> {
        let mut taken = FrameList::new();
        // Inside blocks large pieces first: each request there looks for its piece from the first frame on.
        let mut order = if self.blocks.is_some() { Order::MAX } else { Order::PAGE };
        // The first block counts as a whole batch, so that small fills look, too.
        let mut since_pause = BATCH;
        let mut last = Pfn::new(0);
        while taken.page_count() < pages {
            let missing = pages - taken.page_count();
            while order.pages() > missing {
                order = order.smaller().expect("one page is not more than what is missing");
            }
            match self.take_one(order) {
                Ok(frames) => {
                    last = frames.head();
                    taken.push(frames);
                }
                Err(AllocError::OutOfMemory) => match order.smaller() {
                    Some(smaller) => order = smaller,
                    None => return Err(TakeError::TooLittle { taken: taken.page_count() }),
                },
                Err(AllocError::Injected(injected)) => return Err(TakeError::Injected(injected)),
            }
            since_pause += order.pages();
            if since_pause >= BATCH {
                since_pause = 0;
                pace.pause().map_err(TakeError::Stopped)?;
                if is_normal(last) && kernel_is_short() {
                    return Err(TakeError::KernelShort);
                }
            }
        }
        Ok(taken)
    }

    /// Takes one block of frames.
    pub(crate) fn take_one(&self, order: Order) -> Result<OwnedFrames, AllocError> {
        let mobility = if self.owner == Owner::Anonymous { Mobility::Movable } else { Mobility::Unmovable };
        let place = self.node.map_or(Place::Near(NodeId::ZERO), Place::On);
        let request =
            Request { order, mobility, place, owner: self.owner, urgency: Urgency::Ordinary, site: Site::here() };
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

fn is_normal(frame: Pfn) -> bool {
    mm().section(frame.section()).and_then(|section| section.state.zone()) == Some(ZoneKind::Normal)
}

/// Whether Normal zones have no more than the kernel itself may need.
pub(crate) fn kernel_is_short() -> bool {
    let mut free = 0;
    mm().for_each_zone(|zone| {
        if zone.kind == ZoneKind::Normal {
            free += zone.free;
        }
    });
    free < LEFT_FREE
}
