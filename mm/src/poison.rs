//! Memory errors: a frame in which the hardware has found one is set aside for good.
//!
//! What it holds is moved elsewhere if it can be, and the block manages one frame less from then on, in whatever state it
//! is. Which frames those are is remembered here while nothing else knows: struct pages of added sections come and go.
//! A poisoned frame does not keep its block from going offline, and is forgotten when the memory is removed.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::alloc::AllocError;
use crate::content::{Block, Blocker, Content, Hold};
use crate::errno::Errno;
use crate::evacuate::{MoveError, PATIENCE};
use crate::inject::Injected;
use crate::machine::{Machine, Pace, Stay, Stop};
use crate::memory::{Memory, zone_number};
use crate::page::{Head, Owner, PageState};
use crate::pageblock::Pageblock;
use crate::section::{Openness, Section, ZoneKind, head_range, table_range};
use crate::zone::Origin;
use core::sync::atomic::Ordering;
use heapless::Vec;

/// Frames that can be poisoned. Memory with more errors is to be replaced.
pub const POISON_LIMIT: usize = 127;

/// Poisoned frames.
pub(crate) type Frames = Vec<Pfn, POISON_LIMIT>;

/// Why a frame is not poisoned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoisonError {
    /// There is no memory.
    #[error("there is no memory at {0}")]
    Absent(Pfn),
    /// It is already.
    #[error("{0} is poisoned already")]
    Already(Pfn),
    /// Somebody holds it who cannot do without it.
    #[error("{pfn} is held by {owner} and cannot be replaced")]
    Held {
        /// The frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// Somebody refers to it beside its owner.
    #[error("{0} is pinned")]
    Pinned(Pfn),
    /// It does not stay anybody's for long enough.
    #[error("{0} is just being taken, given back or moved")]
    InFlight(Pfn),
    /// What it holds could not go elsewhere.
    #[error("what {0} holds cannot go elsewhere: {1}")]
    NoDestination(Pfn, AllocError),
    /// Somebody asked for a failure of the move.
    #[error("{0}")]
    Injected(Injected),
    /// There are [`POISON_LIMIT`] already.
    #[error("{POISON_LIMIT} frames are poisoned, and no more can be remembered")]
    Full,
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl PoisonError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Absent(_) => Errno::NoDevice,
            Self::Already(_) => Errno::Exists,
            Self::Held { .. } | Self::Pinned(_) | Self::InFlight(_) => Errno::Busy,
            Self::NoDestination(_, error) => error.errno(),
            Self::Injected(injected) => injected.errno,
            Self::Full => Errno::NoMemory,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Takes a frame out of use until its memory is removed. What it holds moves first, if it can.
    ///
    /// # Errors
    /// See [`PoisonError`]; the frame is in use as before then.
    pub fn poison(&self, pfn: Pfn, pace: &mut dyn Pace) -> Result<(), PoisonError> {
        let absent = PoisonError::Absent(pfn);
        let id = SectionId::new(pfn.number() / PAGES_PER_SECTION).ok_or(absent)?;
        let _alone = self.lock_range(SectionRange::single(id), pace).map_err(PoisonError::Stopped)?;
        let section = self.sections.get(id).ok_or(absent)?;
        self.check_poison(id, section, pfn)?;
        let Some(kind) = section.state.zone_of(pfn) else { return self.poison_offline(id, section, pfn) };
        for _ in 0..PATIENCE {
            if self.poison_free(kind, pfn, section.node, None)? || self.poison_used(kind, pfn, section.node)? {
                return Ok(());
            }
            self.machine.wait(&mut || false);
            pace.pause().map_err(PoisonError::Stopped)?;
        }
        Err(PoisonError::InFlight(pfn))
    }

    /// Frames of `range` that are poisoned.
    pub(crate) fn poisoned_in(&self, range: PfnRange) -> Frames {
        self.poisoned.lock().iter().copied().filter(|pfn| range.contains(*pfn)).collect()
    }

    pub(crate) fn is_poisoned(&self, pfn: Pfn) -> bool {
        self.poisoned.lock().contains(&pfn)
    }

    /// The hardware goes, and its errors with it.
    pub(crate) fn forget_poison(&self, range: PfnRange) {
        self.poisoned.lock().retain(|pfn| !range.contains(*pfn));
    }

    fn check_poison(&self, id: SectionId, section: Section, pfn: Pfn) -> Result<(), PoisonError> {
        if self.is_poisoned(pfn) {
            return Err(PoisonError::Already(pfn));
        }
        if head_range(id, section).contains(pfn) {
            let is_table = table_range(id, section).contains(pfn);
            return Err(PoisonError::Held { pfn, owner: if is_table { Owner::PageTable } else { Owner::Memmap } });
        }
        if self.poisoned.lock().is_full() { Err(PoisonError::Full) } else { Ok(()) }
    }

    /// Poisons a frame of an offline block, which has struct pages if it was there at boot.
    fn poison_offline(&self, id: SectionId, section: Section, pfn: Pfn) -> Result<(), PoisonError> {
        if section.is_boot() {
            check_head(pfn, self.machine.page(pfn).head())?;
        }
        self.remember(pfn)?;
        if section.is_boot() {
            self.mark_poisoned(pfn);
        }
        self.sections.set(id, section.less_one_frame());
        Ok(())
    }

    /// Poisons a frame that is free or lies in an untouched section; whether it did. If there is something to be given `back` that
    /// it lies in, nobody takes it in between.
    fn poison_free(&self, kind: ZoneKind, pfn: Pfn, node: NodeId, back: Option<Block>) -> Result<bool, PoisonError> {
        let id = pfn.section();
        self.with_zone(node, kind, |zone| {
            let section = self.sections.get(id).expect("a block that is locked stays");
            let origin = Origin::of(section);
            if let Some(Block { head, order, .. }) = back {
                self.machine.page(head).set_head(Head::TAIL);
                zone.area_mut(origin).put(&self.machine, head, order);
            }
            let is_free = match section.openness {
                Openness::Changing => false,
                Openness::Untouched => true,
                Openness::Open => Pageblock::of(pfn).is_free(&self.machine, pfn),
            };
            if !is_free {
                return Ok(false);
            }
            self.remember(pfn)?;
            if section.is_open() {
                zone.area_mut(origin).lose_frame(&self.machine, Pageblock::of(pfn));
                self.mark_poisoned(pfn);
            }
            zone.lose_frame(section);
            self.managed_of(kind, origin).fetch_sub(1, Ordering::Relaxed);
            self.sections.set(id, section.less_one_frame());
            Ok(true)
        })
    }

    /// Poisons a frame of an open section that is not free; whether it did, or it is to be tried again.
    fn poison_used(&self, kind: ZoneKind, pfn: Pfn, node: NodeId) -> Result<bool, PoisonError> {
        // Whoever closed it would have locked its range, so its struct pages stay.
        if self.sections.open(pfn).is_none() {
            return Ok(false);
        }
        let (head, found) = self.containing_block(pfn);
        check_head(pfn, found)?;
        if found.state != PageState::Allocated {
            self.drain_zone(zone_number(node, kind));
            return self.poison_free(kind, pfn, node, None);
        }
        let block = match self.content_of(head, found.order, found.owner) {
            Content::Movable(block) => block,
            Content::InFlight(_) => return Ok(false),
            Content::Fixed(Blocker { hold: Hold::Pinned, .. }) => return Err(PoisonError::Pinned(pfn)),
            Content::Fixed(Blocker { owner, .. }) => return Err(PoisonError::Held { pfn, owner }),
        };
        // Of a large page only one frame has to go, if it can be split.
        if block.order == Order::PAGEBLOCK && self.machine.split(head).is_ok() {
            return self.poison_used(kind, pfn, node);
        }
        match self.move_away(head, &self.destination_request(block, node)) {
            Ok(_) => self.poison_free(kind, pfn, node, Some(block)),
            Err(MoveError::Stay(Stay::InFlight)) => Ok(false),
            Err(MoveError::Stay(Stay::Pinned)) => Err(PoisonError::Pinned(pfn)),
            Err(MoveError::Stay(Stay::Injected(injected))) => Err(PoisonError::Injected(injected)),
            Err(MoveError::Stay(Stay::NoTable)) => Err(PoisonError::NoDestination(pfn, AllocError::OutOfMemory)),
            Err(MoveError::NoDestination(error)) => Err(PoisonError::NoDestination(pfn, error)),
        }
    }

    fn remember(&self, pfn: Pfn) -> Result<(), PoisonError> {
        self.poisoned.lock().push(pfn).map_err(|_| PoisonError::Full)
    }

    /// The struct page of a poisoned frame says so, and so do the bits of its pageblock.
    pub(crate) fn mark_poisoned(&self, pfn: Pfn) {
        self.machine.page(pfn).set_head(Head::single(PageState::Poisoned, Owner::None));
        Pageblock::of(pfn).reserve(&self.machine, PfnRange::new(pfn, 1));
    }
}

/// Whether what a struct page says of a frame leaves a way to poison it.
fn check_head(pfn: Pfn, head: Head) -> Result<(), PoisonError> {
    match head.state {
        PageState::Absent => Err(PoisonError::Absent(pfn)),
        PageState::Memmap | PageState::Reserved => Err(PoisonError::Held { pfn, owner: head.owner }),
        PageState::Tail | PageState::Cached | PageState::Allocated | PageState::Poisoned => Ok(()),
    }
}
