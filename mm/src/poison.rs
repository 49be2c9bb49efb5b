//! Memory errors: a frame in which the hardware has found one is set aside for good.
//!
//! What it holds is moved elsewhere if it can be, and the block manages one frame less from then on, in whatever state it
//! is. Which frames those are is remembered here while nothing else knows: struct pages of added sections come and go.
//! A poisoned frame does not keep its block from going offline, and is forgotten when the memory is removed.
//!
//! What somebody holds who cannot do without it, or whom others refer to, is *faulty* instead: it stays his, and when he gives it
//! back it is poisoned before anybody else can get it. Linux withholds such pages too, from `free_pages_prepare`.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::alloc::{AllocError, Mobility};
use crate::content::{Block, Blocker, Content, Hold};
use crate::errno::Errno;
use crate::evacuate::{MoveError, PATIENCE};
use crate::inject::Injected;
use crate::machine::{Machine, Pace, Stay, Stop};
use crate::memory::{Memory, zone_number};
use crate::page::{Head, Owner, PageState};
use crate::pageblock::Pageblock;
use crate::section::{Openness, Section, ZoneKind, head_range, table_range};
use crate::zone::{Origin, Zone};
use core::sync::atomic::Ordering;
use heapless::Vec;

/// Frames that can be poisoned. Memory with more errors is to be replaced.
pub const POISON_LIMIT: usize = 127;

/// Some of the frames with an error.
pub(crate) type Frames = Vec<Pfn, POISON_LIMIT>;

/// Frames with an error, [`POISON_LIMIT`] together.
pub(crate) struct BadFrames {
    pub(crate) poisoned: Frames,
    /// Somebody holds them; they are poisoned when he gives them back.
    pub(crate) faulty: Frames,
}

impl BadFrames {
    pub(crate) const NONE: Self = Self { poisoned: Vec::new(), faulty: Vec::new() };

    fn poison(&mut self, pfn: Pfn) -> Result<(), PoisonError> {
        self.make_room_for(pfn)?;
        self.faulty.retain(|other| *other != pfn);
        self.poisoned.push(pfn).expect("there is room");
        Ok(())
    }

    /// Whether it was not known as faulty.
    fn become_faulty(&mut self, pfn: Pfn) -> Result<bool, PoisonError> {
        self.make_room_for(pfn)?;
        let is_new = !self.faulty.contains(&pfn);
        if is_new {
            self.faulty.push(pfn).expect("there is room");
        }
        Ok(is_new)
    }

    fn make_room_for(&self, pfn: Pfn) -> Result<(), PoisonError> {
        let is_known = self.faulty.contains(&pfn);
        let is_full = self.poisoned.len() + self.faulty.len() >= POISON_LIMIT;
        if is_full && !is_known { Err(PoisonError::Full) } else { Ok(()) }
    }
}

/// Why a frame is not poisoned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoisonError {
    /// There is no memory.
    #[error("there is no memory at {0}")]
    Absent(Pfn),
    /// It is already.
    #[error("{0} is poisoned already")]
    Already(Pfn),
    /// It lies in a block of which nobody gets anything.
    #[error("block {} is withheld as a whole", .0.section())]
    Withheld(Pfn),
    /// It is nothing that is ever given back, and cannot be replaced.
    #[error("{pfn} is held by {owner} and cannot be replaced")]
    Held {
        /// The frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// Somebody holds it who cannot do without it. It is poisoned when he gives it back.
    #[error("{pfn} is held by {owner} and cannot be replaced; it goes out of use when it is given back")]
    Used {
        /// The frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// Somebody refers to it beside its owner. It is poisoned when its owner gives it back, if not before.
    #[error("{0} is pinned; it goes out of use when it is given back")]
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
            Self::Already(_) | Self::Withheld(_) => Errno::Exists,
            Self::Held { .. } | Self::Used { .. } | Self::Pinned(_) | Self::InFlight(_) => Errno::Busy,
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
    /// See [`PoisonError`]; the frame is in use as before then, if some only for as long as it is held.
    pub fn poison(&self, pfn: Pfn, pace: &mut dyn Pace) -> Result<(), PoisonError> {
        let absent = PoisonError::Absent(pfn);
        let id = SectionId::new(pfn.number() / PAGES_PER_SECTION).ok_or(absent)?;
        let _alone = self.lock_range(SectionRange::single(id), pace).map_err(PoisonError::Stopped)?;
        let section = self.sections.get(id).ok_or(absent)?;
        self.check_poison(id, section, pfn)?;
        let Some(kind) = section.state.zone_of(pfn) else { return self.poison_offline(id, section, pfn) };
        for _ in 0..PATIENCE {
            if self.poison_once(kind, pfn, section.node)? {
                return Ok(());
            }
            self.machine.wait(&mut || false);
            pace.pause().map_err(PoisonError::Stopped)?;
        }
        Err(PoisonError::InFlight(pfn))
    }

    /// Frames of `range` that are poisoned.
    pub(crate) fn poisoned_in(&self, range: PfnRange) -> Frames {
        self.bad.lock().poisoned.iter().copied().filter(|pfn| range.contains(*pfn)).collect()
    }

    pub(crate) fn is_poisoned(&self, pfn: Pfn) -> bool {
        self.bad.lock().poisoned.contains(&pfn)
    }

    /// The hardware goes, and its errors with it.
    pub(crate) fn forget_poison(&self, range: PfnRange) {
        self.bad.lock().poisoned.retain(|pfn| !range.contains(*pfn));
    }

    /// Poisons what is faulty and was given back.
    pub(crate) fn poison_given_back(&self) {
        for pfn in self.faulty_frames() {
            if let Some(_alone) = self.try_lock_range(SectionRange::single(pfn.section())) {
                self.poison_faulty(pfn);
            }
        }
    }

    /// Poisons what is faulty in `range`, which is locked, and is not held any more, or not so that it has to stay.
    pub(crate) fn poison_faulty_in(&self, range: PfnRange) {
        // A frame becomes faulty under the lock of its range, so those that matter here have been counted.
        if self.faulty_count.load(Ordering::Relaxed) > 0 {
            self.faulty_in(range).into_iter().for_each(|pfn| self.poison_faulty(pfn));
        }
    }

    fn poison_faulty(&self, pfn: Pfn) {
        let Some(section) = self.sections.open(pfn) else { return };
        let Some(kind) = section.state.zone_of(pfn) else { return };
        let is_held_as_before = matches!(self.content_at(pfn), Content::Fixed(_));
        if !is_held_as_before {
            // Otherwise it goes on being faulty.
            let _ = self.poison_once(kind, pfn, section.node);
        }
    }

    /// What lies at an allocated frame.
    fn content_at(&self, pfn: Pfn) -> Content {
        let (head, found) = self.containing_block(pfn);
        self.content_of_any(head, found.order, found.owner)
    }

    pub(crate) fn faulty_frames(&self) -> Frames {
        self.bad.lock().faulty.clone()
    }

    pub(crate) fn has_faulty(&self, range: PfnRange) -> bool {
        self.bad.lock().faulty.iter().any(|pfn| range.contains(*pfn))
    }

    fn faulty_in(&self, range: PfnRange) -> Frames {
        self.bad.lock().faulty.iter().copied().filter(|pfn| range.contains(*pfn)).collect()
    }

    /// Marks the single frames in `range` that are faulty, all of which are allocated.
    pub(crate) fn mark_faulty_in(&self, range: PfnRange) {
        for pfn in self.faulty_in(range) {
            self.machine.page(pfn).mark_faulty(Order::PAGE);
        }
    }

    fn check_poison(&self, id: SectionId, section: Section, pfn: Pfn) -> Result<(), PoisonError> {
        if self.is_poisoned(pfn) {
            return Err(PoisonError::Already(pfn));
        }
        if section.is_withheld() {
            return Err(PoisonError::Withheld(pfn));
        }
        if head_range(id, section).contains(pfn) {
            let is_table = table_range(id, section).contains(pfn);
            return Err(PoisonError::Held { pfn, owner: if is_table { Owner::PageTable } else { Owner::Memmap } });
        }
        self.bad.lock().make_room_for(pfn)
    }

    /// Poisons a frame of a block that is in a zone; whether it did, or it is to be tried again.
    fn poison_once(&self, kind: ZoneKind, pfn: Pfn, node: NodeId) -> Result<bool, PoisonError> {
        Ok(self.poison_free(kind, pfn, node, None)? || self.poison_used(kind, pfn, node)?)
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
    /// it lies in, nobody takes it in between, or what else of that is faulty.
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
                Openness::Withheld => return Err(PoisonError::Withheld(pfn)),
                Openness::Changing => false,
                Openness::Untouched => true,
                Openness::Open => Pageblock::of(pfn).is_free(&self.machine, pfn),
            };
            if !is_free {
                return Ok(false);
            }
            if let Some(Block { head, order, .. }) = back {
                let others = self.faulty_in(PfnRange::new(head, order.pages()));
                others.into_iter().filter(|other| *other != pfn).try_for_each(|other| self.lose(zone, kind, other))?;
            }
            // There may be no room for one that was not known.
            self.lose(zone, kind, pfn)?;
            Ok(true)
        })
    }

    /// Takes a frame that is free or untouched from its zone.
    fn lose(&self, zone: &mut Zone, kind: ZoneKind, pfn: Pfn) -> Result<(), PoisonError> {
        self.remember(pfn)?;
        let id = pfn.section();
        let section = self.sections.get(id).expect("a block that is locked stays");
        let origin = Origin::of(section);
        if section.is_open() {
            zone.area_mut(origin).lose_frame(&self.machine, Pageblock::of(pfn));
            self.mark_poisoned(pfn);
        }
        zone.lose_frame(section);
        self.managed_of(kind, origin).fetch_sub(1, Ordering::Relaxed);
        self.sections.set(id, section.less_one_frame());
        Ok(())
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
        if self.machine.page(head).is_abandoned() {
            let block = Block { head, order: found.order, owner: found.owner, mobility: Mobility::Unmovable };
            return self.poison_free(kind, pfn, node, Some(block));
        }
        let block = match self.content_of_any(head, found.order, found.owner) {
            Content::Movable(block) => block,
            Content::InFlight(_) => return Ok(false),
            Content::Fixed(Blocker { hold, owner, .. }) => {
                let held =
                    if hold == Hold::Pinned { PoisonError::Pinned(pfn) } else { PoisonError::Used { pfn, owner } };
                let is_held = self.become_faulty(kind, pfn, node)? && matches!(self.content_at(pfn), Content::Fixed(_));
                return if is_held { Err(held) } else { Ok(false) };
            }
        };
        // Of a large page only one frame has to go, if it can be split.
        if block.order == Order::PAGEBLOCK && self.machine.split(head).is_ok() {
            return self.poison_used(kind, pfn, node);
        }
        match self.move_away(head, &self.destination_request(block, node)) {
            Ok(_) => self.poison_free(kind, pfn, node, Some(block)),
            // Then that is found the next time.
            Err(MoveError::Stay(Stay::InFlight | Stay::Pinned)) => Ok(false),
            Err(MoveError::Stay(Stay::Injected(injected))) => Err(PoisonError::Injected(injected)),
            Err(MoveError::Stay(Stay::NoTable)) => Err(PoisonError::NoDestination(pfn, AllocError::OutOfMemory)),
            Err(MoveError::NoDestination(error)) => Err(PoisonError::NoDestination(pfn, error)),
        }
    }

    /// Sees to it that a frame of an allocated block goes out of use when that is given back; not if it just was.
    fn become_faulty(&self, kind: ZoneKind, pfn: Pfn, node: NodeId) -> Result<bool, PoisonError> {
        let (head, Head { order, .. }) = self.containing_block(pfn);
        // Before the block is marked: whoever splits it asks which of its parts are faulty.
        let is_new = self.change_bad(|bad| bad.become_faulty(pfn))?;
        if is_new {
            self.with_zone(node, kind, |_| self.machine.page(head).mark_faulty(order));
            // Whoever was giving it back meanwhile, and has not seen the mark, has put it into his cache by now.
            self.drain_zone(zone_number(node, kind));
        }
        // Whoever splits the block holds this lock, too.
        Ok(self.with_zone(node, kind, |_| {
            let is_faulty = self.machine.page(self.containing_block(pfn).0).is_faulty();
            if !is_faulty {
                self.change_bad(|bad| bad.faulty.retain(|other| *other != pfn));
            }
            is_faulty
        }))
    }

    fn remember(&self, pfn: Pfn) -> Result<(), PoisonError> {
        self.change_bad(|bad| bad.poison(pfn))
    }

    fn change_bad<R>(&self, change: impl FnOnce(&mut BadFrames) -> R) -> R {
        let mut bad = self.bad.lock();
        let result = change(&mut bad);
        self.faulty_count.store(bad.faulty.len(), Ordering::Relaxed);
        result
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
