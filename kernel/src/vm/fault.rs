//! Pages that are missing, brought on demand: a zeroed one, or, when the page is moving, the same page in its new place.

use super::rmap::{self, Whose};
use super::{AddressSpace, PageSize};
use crate::memory::{OwnedFrames, SPACE, Slot, mm};
use crate::task::{self, WaitQueue};
use crate::time;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use mm::Errno;
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::alloc::request::AllocError;
use mm::frame::memmap::Memmap;
use thiserror::Error;

/// How long a task that needs memory waits before it asks again.
const RETRY: Duration = Duration::from_millis(10);

/// Those who wait for memory. Nobody wakes them.
static STARVED: WaitQueue = WaitQueue::new();

/// Why a page could not be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum FaultError {
    #[error("no frame for a page: {0}")]
    NoFrame(AllocError),
    #[error("no frame for a page table: {0}")]
    NoTable(AllocError),
}

impl FaultError {
    /// The errno name.
    pub(crate) const fn errno(self) -> Errno {
        match self {
            Self::NoFrame(error) | Self::NoTable(error) => error.errno(),
        }
    }
}

impl AddressSpace {
    /// Brings a page if it is not there, as touching it does. Says how many pages are there now from this one on: one, or
    /// all up to the end of a 2 MiB page. Waits while it is moving.
    ///
    /// # Errors
    /// There is no memory where its pages may come from, or none for page tables.
    ///
    /// # Panics
    /// The space has no such page.
    pub(crate) fn fault_in(&self, page: u64) -> Result<u64, FaultError> {
        assert!(page < self.page_count(), "page {page} of {}", self.page_count());
        loop {
            let (_, slot) = self.lock().look(page);
            match slot {
                Slot::Mapped(leaf) => return Ok(leaf.order.pages() - page % leaf.order.pages()),
                Slot::Moving(_) => self.wait_while_moving(page),
                Slot::Empty(largest) => self.bring(page, largest)?,
            }
        }
    }

    /// Puts zeroed frames where nothing was, unless somebody else is faster.
    fn bring(&self, page: u64, largest: Order) -> Result<(), FaultError> {
        let mut frames = self.take_for(page, largest).map_err(FaultError::NoFrame)?;
        frames.zero();
        let first = page - page % frames.order().pages();
        mm().machine().page(frames.head()).set_private(self.word_of(first));
        let mut frames = Some(frames);
        // Frames that were not mapped go back.
        while !self.try_to_map(first, &mut frames) {
            let table = self.placement.take_table().map_err(FaultError::NoTable)?;
            // If somebody else gave one meanwhile, this goes back when the lock is free again.
            let _surplus = self.lock().provide(table);
        }
        Ok(())
    }

    /// Maps frames where nothing was; they are still the caller's if something is there by now. Says whether that is settled,
    /// which it is not when a frame for a table is missing.
    fn try_to_map(&self, page: u64, frames: &mut Option<OwnedFrames>) -> bool {
        let mut tables = self.lock();
        let slot = tables.look(page).1;
        let fit = |frames: &mut OwnedFrames| matches!(slot, Slot::Empty(largest) if largest >= frames.order());
        if let Some(fitting) = frames.take_if(fit) {
            tables.make_tables_for(self.word_of(page));
            if let Err(unmapped) = tables.map(page, fitting) {
                *frames = Some(unmapped);
                return false;
            }
        }
        // One that nobody needed shall not stay in the way of whoever empties its block.
        let spare = tables.take_spare();
        drop(tables);
        drop(spare);
        true
    }

    /// Frames for a page: as many as its size asks for, if all of them are in the region and nothing stands there yet.
    fn take_for(&self, page: u64, largest: Order) -> Result<OwnedFrames, AllocError> {
        let wanted = self.placement.page.order().min(largest);
        let end = page - page % wanted.pages() + wanted.pages();
        if wanted > PageSize::Small.order() && end <= self.page_count() {
            match self.placement.take(wanted, &self.last_block) {
                Err(AllocError::OutOfMemory) => {}
                result => return result,
            }
        }
        self.placement.take(PageSize::Small.order(), &self.last_block)
    }
}

/// A page that the current task touched and that is not there.
pub(crate) struct Missing {
    space: Arc<AddressSpace>,
    page: u64,
}

/// The page at an address of the lower half, if the current task has a space with such a page. Takes spin locks only.
pub(crate) fn missing_page(address: u64) -> Option<Missing> {
    let root = task::root();
    let page = address.checked_sub(SPACE)? / PAGE_SIZE;
    if root == crate::arch::Root::KERNEL {
        return None;
    }
    let word = mm().machine().page(Pfn::containing(root.address())).private();
    let space = rmap::find(Whose::from_word(word)?.space)?;
    (page < space.page_count()).then_some(Missing { space, page })
}

impl Missing {
    /// Brings the page, however long that takes: whoever touched it cannot go on without. Those who can do without memory
    /// ask by [`AddressSpace::fault_in`] first.
    pub(crate) fn bring(self) {
        while let Err(error) = self.space.fault_in(self.page) {
            if !self.space.is_starved.swap(true, Relaxed) {
                log::warn!(target: "vm", "task {} waits for memory: {error}", task::current());
            }
            STARVED.wait_until_deadline(|| false, time::deadline_after(RETRY));
        }
    }
}
