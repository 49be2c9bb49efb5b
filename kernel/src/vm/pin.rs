//! Pins: long-term references to pages, as a device that does DMA takes them. What is pinned stays where it is.

use super::fault::FaultError;
use super::migrate::whose;
use super::{AddressSpace, rmap};
use crate::memory::{Leaf, mm};
use crate::task::{self, TaskId};
use crate::time;
use alloc::collections::BTreeMap;
use core::ops::Range;
use mm::Errno;
use mm::addr::{NodeId, Order, Pfn};
use mm::alloc::request::{AllocError, Place, Request, Urgency};
use mm::evacuate::moving::MoveError;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::machine::mover::{Mover, Stay};
use mm::section::kind::ZoneKind;
use mm::site::Site;
use thiserror::Error;

/// Pins that are ended under one hold of the lock.
const FORGOTTEN_AT_ONCE: usize = 32;

/// How often a page is moved out of Movable that somebody else moves, too.
const ATTEMPTS: u32 = 100;

/// Where a page shall be while it is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinMode {
    /// Outside of Movable, where nothing may stay for long: it is moved if it is there.
    Move,
    /// Where it is.
    Stay,
}

/// Why a page was not pinned; where it is it can be used as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum PinError {
    #[error("{0}")]
    Missing(FaultError),
    #[error("it cannot be moved out of Movable: {0}")]
    Stuck(MoveError),
    #[error("it has as many references as can be counted")]
    TooMany,
}

impl PinError {
    /// The errno name.
    pub(crate) const fn errno(self) -> Errno {
        match self {
            Self::Missing(error) => error.errno(),
            Self::Stuck(MoveError::NoDestination(error)) => error.errno(),
            Self::Stuck(MoveError::Stay(Stay::Injected(injected))) => injected.errno,
            Self::Stuck(MoveError::Stay(Stay::NoTable)) => Errno::NoMemory,
            Self::Stuck(MoveError::Stay(Stay::Pinned | Stay::InFlight)) | Self::TooMany => Errno::Busy,
        }
    }
}

/// The page has no pin that could be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("it is not pinned")]
pub(crate) struct NotPinned;

/// A page that is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PinReport {
    pub(crate) page: u64,
    /// How many pins it has.
    pub(crate) count: u32,
    /// When the first of them was taken, on the clock of the kernel.
    pub(crate) since_ns: u64,
    /// Who took that.
    pub(crate) by: TaskId,
}

/// The pins of one space, by page. Changed under the lock of its tables.
pub(super) struct Pins(BTreeMap<u64, PinReport>);

impl Pins {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, page: u64, by: TaskId, now_ns: u64) {
        let first = PinReport { page, count: 0, since_ns: now_ns, by };
        self.0.entry(page).or_insert(first).count += 1;
    }

    fn remove(&mut self, page: u64) -> Result<(), NotPinned> {
        let pin = self.0.get_mut(&page).ok_or(NotPinned)?;
        pin.count -= 1;
        if pin.count == 0 {
            self.0.remove(&page);
        }
        Ok(())
    }

    /// Ends some pins of pages that go; whether there were any.
    pub(super) fn forget_some(&mut self, pages: Range<u64>) -> bool {
        self.0.extract_if(pages, |_, _| true).take(FORGOTTEN_AT_ONCE).count() > 0
    }

    /// Ends the pins of pages that go.
    pub(super) fn forget(&mut self, pages: Range<u64>) {
        self.0.extract_if(pages, |_, _| true).for_each(drop);
    }

    fn oldest(&self, pages: Range<u64>) -> Option<PinReport> {
        self.0.range(pages).map(|(_, pin)| *pin).min_by_key(|pin| pin.since_ns)
    }
}

impl AddressSpace {
    /// Pins a page, which is brought if it is not there; says in which frame it is until it is unpinned. Pins are counted, and
    /// one of a page keeps the whole 2 MiB page around it. They end when the page is discarded.
    ///
    /// # Errors
    /// It cannot be brought, or not be moved to where it shall be.
    ///
    /// # Panics
    /// The space has no such page.
    pub(crate) fn pin(&self, page: u64, how: PinMode) -> Result<Pfn, PinError> {
        let mut failed = 0;
        loop {
            self.fault_in(page).map_err(PinError::Missing)?;
            let Some((leaf, _, tables)) = self.settled_leaf(page) else { continue };
            if how == PinMode::Stay || mm().zone_of(leaf.frame) != Some(ZoneKind::Movable) {
                if !mm().pin(leaf.frame) {
                    return Err(PinError::TooMany);
                }
                self.pins.lock().add(page, task::current(), time::now_ns());
                return Ok(leaf.frame.add(page % leaf.order.pages()));
            }
            drop(tables);
            match move_out_of_movable(leaf) {
                Ok(()) => {}
                // It has gone elsewhere meanwhile.
                Err(MoveError::Stay(Stay::InFlight)) if failed < ATTEMPTS => failed += 1,
                Err(error) => return Err(PinError::Stuck(error)),
            }
        }
    }

    /// Gives up a pin of a page.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn unpin(&self, page: u64) -> Result<(), NotPinned> {
        let (leaf, _, tables) = self.settled_leaf(page).ok_or(NotPinned)?;
        self.pins.lock().remove(page)?;
        let head = mm().machine().page(leaf.frame);
        // With the last pin goes what kept it outside of Movable.
        if head.refs() == 2 {
            head.become_movable();
        }
        head.unpin();
        drop(tables);
        Ok(())
    }

    /// The oldest pin of some pages.
    pub(crate) fn oldest_pin(&self, pages: Range<u64>) -> Option<PinReport> {
        self.pins.lock().oldest(pages)
    }
}

/// The oldest pin of the block that begins with a frame, if a space has it.
pub(crate) fn pin_of(head: Pfn, order: Order) -> Option<PinReport> {
    let whose = whose(head)?;
    rmap::find(whose.space)?.oldest_pin(whose.page..whose.page + order.pages())
}

/// Moves a page to where the kernel's own memory is. If there is no place for a large one, it becomes small ones, of which
/// none has moved yet.
fn move_out_of_movable(leaf: Leaf) -> Result<(), MoveError> {
    let node = mm().section(leaf.frame.section()).map_or(NodeId::ZERO, |section| section.node);
    let request = Request {
        order: leaf.order,
        mobility: Mobility::Unmovable,
        place: Place::Near(node),
        owner: Owner::Anonymous,
        urgency: Urgency::Bulk,
        site: Site::here(),
    };
    match mm().move_block(leaf.frame, &request) {
        Ok(_) => Ok(()),
        Err(MoveError::NoDestination(AllocError::OutOfMemory)) if leaf.order == Order::PAGEBLOCK => {
            mm().machine().split(leaf.frame).map_err(MoveError::Stay)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_a_page_are_counted_and_the_first_is_remembered() {
        let mut pins = Pins::new();
        pins.add(5, TaskId::from(1), 100);
        pins.add(5, TaskId::from(2), 200);
        let both = PinReport { page: 5, count: 2, since_ns: 100, by: TaskId::from(1) };
        assert_eq!(pins.oldest(0..512), Some(both));
        assert_eq!(pins.oldest(6..512), None);
        assert_eq!(pins.remove(5), Ok(()));
        assert_eq!(pins.oldest(5..6), Some(PinReport { count: 1, ..both }));
        assert_eq!(pins.remove(5), Ok(()));
        assert_eq!(pins.remove(5), Err(NotPinned));
    }

    #[test]
    fn pages_that_are_gone_take_their_pins_with_them() {
        let mut pins = Pins::new();
        [3, 4, 9].into_iter().for_each(|page| pins.add(page, TaskId::from(1), page));
        pins.forget(3..9);
        assert_eq!(pins.oldest(0..100).map(|pin| pin.page), Some(9));
    }
}
