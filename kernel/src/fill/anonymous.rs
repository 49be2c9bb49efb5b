//! Memory of an address space, with content: it goes wherever it must, unless somebody pins it.

use super::content::Stamp;
use super::share::{Share, Wrong};
use super::writers::{Shares, Writers};
use super::{BATCH, CheckError, PinFailure, TakeError};
use crate::memory::mm;
use crate::sync::Mutex;
use crate::task;
use crate::vm::{AddressSpace, FaultError, PinMode, Placement};
use alloc::collections::BTreeSet;
use alloc::sync::{Arc, Weak};
use core::ops::Range;
use mm::addr::{Pfn, PfnRange, SectionId};
use mm::machine::tasks::Pace;
use mm::section::kind::ZoneKind;

/// An address space all of whose pages are there; they are given back, while others run, when this is dropped.
pub(crate) struct Taken {
    space: Arc<AddressSpace>,
    pages: u64,
}

impl Taken {
    /// Takes memory for so many pages of 4 KiB: whole ones of 2 MiB, if those are asked for.
    pub(crate) fn new(pages: u64, placement: Placement, pace: &mut dyn Pace) -> Result<Self, TakeError> {
        let unit = placement.page.order().pages();
        let is_anywhere = placement.blocks.is_none();
        let space = AddressSpace::new(pages, placement).map_err(|error| TakeError::no_table(0, error))?;
        let whole = Self { space, pages };
        let (mut taken, mut since_pause) = (0, 0);
        while taken < pages {
            let more = whole.bring(taken, unit, is_anywhere)?;
            taken += more;
            since_pause += more;
            if since_pause >= BATCH {
                since_pause = 0;
                pace.pause().map_err(TakeError::Stopped)?;
            }
        }
        Ok(whole)
    }

    /// Brings a page, and those behind it that come with it. Where no page of so many frames is to be had there are small ones,
    /// which is not what was asked for.
    fn bring(&self, page: u64, unit: u64, is_anywhere: bool) -> Result<u64, TakeError> {
        match self.space.fault_in(page) {
            Ok(pages) if pages >= unit => Ok(pages),
            Ok(_) => Err(TakeError::TooLittle { taken: page }),
            Err(FaultError::NoFrame(error)) => Err(TakeError::no_frame(page, error, is_anywhere)),
            Err(FaultError::NoTable(error)) => Err(TakeError::no_table(page, error)),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.space.discard(0..self.pages);
    }
}

/// An address space with content; freed when dropped.
pub(super) struct AnonymousFill {
    /// They end before the memory goes that they use.
    _writers: Writers,
    shares: Shares,
    memory: Taken,
}

/// What came of a pin.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) pages: u64,
    /// Where the first of them is.
    pub(crate) first: Pfn,
    /// Pages that went elsewhere first.
    pub(crate) moved: u64,
    /// Blocks of Movable zones that hold some of them and cannot go offline before they are unpinned.
    pub(crate) held_blocks: BTreeSet<SectionId>,
}

impl AnonymousFill {
    /// Writes to every page; so many tasks, of which each has a page, keep changing them from then on.
    pub(super) fn write(id: u64, memory: Taken, writers: u64, pace: &mut dyn Pace) -> Result<Self, TakeError> {
        let pages = memory.pages;
        let entered = memory.space.enter();
        for page in 0..pages {
            Stamp::first(id, page).write(entered.words(page));
            if page % BATCH == BATCH - 1 {
                pace.pause().map_err(TakeError::Stopped)?;
            }
        }
        drop(entered);
        let writers = writers.min(pages);
        // Where nobody writes, everything is one share.
        let count = writers.max(1);
        let shares = Arc::new((0..count).map(|number| Mutex::new(Share::new(id, pages, number, count))).collect());
        let writers = Writers::start(id, &memory.space, &shares, writers)?;
        Ok(Self { _writers: writers, shares, memory })
    }

    pub(super) const fn page_count(&self) -> u64 {
        self.memory.pages
    }

    pub(super) fn check(&self, pace: &mut dyn Pace) -> Result<(), CheckError> {
        let entered = self.memory.space.enter();
        for page in 0..self.memory.pages {
            let share = self.shares[page as usize % self.shares.len()].lock();
            let result = share.check(page, entered.words(page));
            drop(share);
            result.map_err(|wrong| self.wrong_at(wrong))?;
            if page % BATCH == BATCH - 1 {
                pace.pause().map_err(CheckError::Stopped)?;
            }
        }
        Ok(())
    }

    fn wrong_at(&self, Wrong { page, offset }: Wrong) -> CheckError {
        let (frame, _) = self.memory.space.frame_of(page).expect("all pages of a fill are there");
        CheckError::Wrong { page, address: frame.address() + offset as u64 }
    }

    /// Pins all of `pages`, or none.
    pub(super) fn pin(&self, pages: Range<u64>, how: PinMode, pace: &mut dyn Pace) -> Result<Pinned, PinFailure> {
        let space = &*self.memory.space;
        let mut references = References { space, pages: pages.start..pages.start };
        let (mut first, mut moved, mut held_blocks) = (None, 0, BTreeSet::new());
        for page in pages.clone() {
            let before = space.frame_of(page);
            let frame = space.pin(page, how).map_err(|error| PinFailure::Refused { page, error })?;
            references.pages.end += 1;
            first.get_or_insert(frame);
            // A page of 2 MiB moves as a whole.
            let now = space.frame_of(page);
            moved += now.filter(|_| now != before).map_or(0, |(_, order)| order.pages());
            if mm().zone_of(frame) == Some(ZoneKind::Movable) {
                held_blocks.insert(frame.section());
            }
            if page % BATCH == BATCH - 1 {
                pace.pause().map_err(PinFailure::Stopped)?;
            }
        }
        references.keep();
        Ok(Pinned { pages: pages.end - pages.start, first: first.expect("a fill has a page"), moved, held_blocks })
    }

    /// Gives up one pin of each of `pages`.
    ///
    /// # Errors
    /// One of them is not pinned, and none was given up.
    pub(super) fn unpin(&self, pages: Range<u64>) -> Result<(), PinFailure> {
        let space = &*self.memory.space;
        if let Some(page) = pages.clone().find(|page| space.oldest_pin(*page..page + 1).is_none()) {
            return Err(PinFailure::NotPinned { page });
        }
        drop(References { space, pages });
        Ok(())
    }

    /// Whether any of its pages is pinned.
    pub(super) fn is_pinned(&self) -> bool {
        let pages = 0..self.memory.pages;
        // A part at a time, as it is looked at under a lock.
        let part = |start| start..pages.end.min(start + BATCH);
        pages.clone().step_by(BATCH as usize).any(|start| self.memory.space.oldest_pin(part(start)).is_some())
    }

    pub(super) fn view(&self) -> View {
        View(Arc::downgrade(&self.memory.space))
    }
}

/// References to pages of an address space in a row; given up when dropped.
struct References<'a> {
    space: &'a AddressSpace,
    pages: Range<u64>,
}

impl References<'_> {
    /// They outlive this.
    fn keep(mut self) {
        self.pages = 0..0;
    }
}

impl Drop for References<'_> {
    fn drop(&mut self) {
        for page in self.pages.clone() {
            self.space.unpin(page).expect("whoever has the references gives them up once");
            if page % BATCH == BATCH - 1 {
                task::yield_now();
            }
        }
    }
}

/// Tells where the pages of a fill are, whoever works with it.
pub(super) struct View(Weak<AddressSpace>);

impl View {
    /// Whether a page lies in one of these frames.
    pub(super) fn has(&self, page: u64, frames: PfnRange) -> bool {
        let frame = self.0.upgrade().and_then(|space| space.frame_of(page));
        frame.is_some_and(|(frame, _)| frames.contains(frame))
    }
}
