//! Pieces: runs of pageblocks of a block that its source grants to the allocator, or withholds from it, one by one.
//!
//! A pageblock that is withheld is not there for anybody: nothing of it is free, managed or held, and its frames have no owner. Its
//! struct pages lie in the head of the block, which is granted as long as the block is known. To withhold a piece of an open block,
//! its pageblocks get out of reach and what lies in them moves elsewhere, as when a whole block goes offline; if something stays,
//! they are where they were. Of blocks that are offline or untouched, a few counters change.

use super::empty::empty;
use super::offline::OfflineError;
use super::undo::Undo;
use crate::addr::{Order, PfnRange, SectionId, SectionRange};
use crate::alloc::caches;
use crate::errno::Errno;
use crate::frame::page::PageState;
use crate::frame::pageblock::Pageblock;
use crate::frame::pageblock_set::PageblockSet;
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::range_guard::{self, RangeGuard};
use crate::record::journal::Stopwatch;
use crate::section::kind::ZoneKind;
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::section_change;
use crate::zone::zones::zone_number;

/// Why a piece was not granted or withheld.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PieceError {
    /// The frames are not whole pageblocks of one block.
    #[error("a piece is whole pageblocks of one block")]
    NotWhole,
    /// There is no such block, or its memory is not accessible.
    #[error("block {0} is not there")]
    Absent(SectionId),
    /// The block was laid out at boot, or is a device's: it is used as a whole.
    #[error("block {0} does not come in pieces")]
    NotInPieces(SectionId),
    /// Struct pages and page tables of the block lie in the piece, which goes with the block.
    #[error("the struct pages of block {0} lie there")]
    Head(SectionId),
    /// Some of it is granted, or withheld, already.
    #[error("block {block}: {count} of the pageblocks are {state} already")]
    Already {
        /// The block.
        block: SectionId,
        /// How many.
        count: u64,
        /// What they are.
        state: &'static str,
    },
    /// A frame of it is poisoned, and so stays until its memory is removed.
    #[error("block {0} has poisoned frames there")]
    Poisoned(SectionId),
    /// Something in it stays where it is.
    #[error(transparent)]
    Stays(OfflineError),
    /// A failure was injected.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl PieceError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotWhole | Self::NotInPieces(_) => Errno::Invalid,
            Self::Absent(_) => Errno::NoEntry,
            Self::Head(_) | Self::Poisoned(_) => Errno::Busy,
            Self::Already { .. } => Errno::Exists,
            Self::Stays(error) => error.errno(),
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// A run of pageblocks of a block that nobody else changes.
struct Piece<'a, M: Machine> {
    id: SectionId,
    set: PageblockSet,
    _alone: RangeGuard<'a, M>,
}

impl<M: Machine> Memory<M> {
    /// The pageblocks of a block that are withheld.
    #[must_use]
    pub fn withheld(&self, id: SectionId) -> PageblockSet {
        self.sections.withheld(id)
    }

    /// Whether nothing of whole pageblocks of one block was in use a moment ago: to withhold them would move nothing. What is free
    /// in a CPU's page list counts as in use, see [`drain_caches`](Self::drain_caches).
    #[must_use]
    pub fn is_unused(&self, frames: PfnRange) -> bool {
        let Some((id, set)) = PageblockSet::of(frames) else { return false };
        let Some(section) = self.sections.get(id) else { return false };
        let Some(kind) = section.state.zone() else { return section.state == BlockState::Offline };
        self.with_zone(section.node, kind, |_| {
            // Nobody holds its range: it may have gone elsewhere.
            let is_there = |section: &Section| section.state == BlockState::Online(kind);
            match self.sections.get(id).filter(is_there).map(|section| section.openness) {
                Some(Openness::Open) => {
                    Pageblock::of_set(id, set).all(|block| block.descriptor(&self.machine).is_empty())
                }
                Some(Openness::Untouched | Openness::Withheld) => true,
                Some(Openness::Changing) | None => false,
            }
        })
    }

    /// Grants whole pageblocks of one block, which are withheld, to the allocator.
    ///
    /// # Errors
    /// See [`PieceError`]; nothing has changed then.
    pub fn grant(&self, frames: PfnRange, pace: &mut dyn Pace) -> Result<(), PieceError> {
        let Piece { id, set, _alone } = take_piece(self, frames, pace)?;
        let granted = set.without(self.sections.withheld(id));
        if granted != PageblockSet::EMPTY {
            return Err(PieceError::Already { block: id, count: granted.count(), state: "granted" });
        }
        self.check_injected(Point::PieceGrant).map_err(PieceError::Injected)?;
        while !grant_at_once(self, id, set) {
            // Somebody is just opening it.
            self.machine.rest();
            pace.pause().map_err(PieceError::Stopped)?;
        }
        Ok(())
    }

    /// Withholds whole pageblocks of one block from the allocator. What lies in them moves elsewhere.
    ///
    /// # Errors
    /// See [`PieceError`]; nothing has changed then, but that some of it may have moved.
    pub fn withhold(&self, frames: PfnRange, pace: &mut dyn Pace) -> Result<(), PieceError> {
        let Piece { id, set, _alone } = take_piece(self, frames, pace)?;
        let withheld = set.intersection(self.sections.withheld(id));
        if withheld != PageblockSet::EMPTY {
            return Err(PieceError::Already { block: id, count: withheld.count(), state: "withheld" });
        }
        check_contents(self, id, set)?;
        self.check_injected(Point::PieceWithhold).map_err(PieceError::Injected)?;
        loop {
            let section = self.sections.get(id).expect("a block that is locked stays");
            if section.is_open() {
                return withhold_open(self, id, set, pace);
            }
            if withhold_at_once(self, id, set) {
                return Ok(());
            }
            self.machine.rest();
            pace.pause().map_err(PieceError::Stopped)?;
        }
    }
}

fn take_piece<'a, M: Machine>(
    memory: &'a Memory<M>,
    frames: PfnRange,
    pace: &mut dyn Pace,
) -> Result<Piece<'a, M>, PieceError> {
    let (id, set) = PageblockSet::of(frames).ok_or(PieceError::NotWhole)?;
    let only = SectionRange::single(id);
    let alone = range_guard::lock_range(memory, only, pace).map_err(PieceError::Stopped)?;
    let section = memory.sections.get(id).filter(|section| section.ready).ok_or(PieceError::Absent(id))?;
    if !section.is_tallied() {
        return Err(PieceError::NotInPieces(id));
    }
    if set.intersection(PageblockSet::touching_head(section.head_frames())) != PageblockSet::EMPTY {
        return Err(PieceError::Head(id));
    }
    Ok(Piece { id, set, _alone: alone })
}

/// Whether nothing in a piece is poisoned.
fn check_contents<M: Machine>(memory: &Memory<M>, id: SectionId, set: PageblockSet) -> Result<(), PieceError> {
    let section = memory.sections.get(id).expect("a block that is locked stays");
    let is_poisoned =
        |block: Pageblock| block.pages().iter().any(|pfn| memory.machine.page(pfn).head().state == PageState::Poisoned);
    if section.poisoned && Pageblock::of_set(id, set).any(is_poisoned) {
        return Err(PieceError::Poisoned(id));
    }
    Ok(())
}

/// Grants a piece, unless the block is just being opened or closed.
fn grant_at_once<M: Machine>(memory: &Memory<M>, id: SectionId, set: PageblockSet) -> bool {
    let section = memory.sections.get(id).expect("a block that is locked stays");
    let Some(kind) = section.state.zone() else {
        mark_kept(memory, id, section, set, Pageblock::mark_all_free);
        section_change::grant(memory, None, id, section, set);
        return true;
    };
    memory.with_zone(section.node, kind, |zone| {
        let section = memory.sections.get(id).expect("a block that is locked stays");
        match section.openness {
            Openness::Changing => return false,
            Openness::Untouched => {
                mark_kept(memory, id, section, set, Pageblock::mark_all_free);
                zone.untouched_mut(section.origin).grant(set.frames());
            }
            Openness::Open => zone.area_mut(section.origin).grant(&memory.machine, Pageblock::of_set(id, set)),
            Openness::Withheld => {}
        }
        section_change::grant(memory, Some((zone, kind)), id, section, set);
        true
    })
}

/// Withholds a piece of a block that is not open, unless it is just being opened or closed.
fn withhold_at_once<M: Machine>(memory: &Memory<M>, id: SectionId, set: PageblockSet) -> bool {
    let section = memory.sections.get(id).expect("a block that is locked stays");
    let Some(kind) = section.state.zone() else {
        mark_kept(memory, id, section, set, Pageblock::mark_all_used);
        section_change::withhold(memory, None, id, section, set);
        return true;
    };
    memory.with_zone(section.node, kind, |zone| {
        let section = memory.sections.get(id).expect("a block that is locked stays");
        match section.openness {
            Openness::Changing | Openness::Open => return false,
            Openness::Untouched => {
                mark_kept(memory, id, section, set, Pageblock::mark_all_used);
                zone.untouched_mut(section.origin).withhold(set.frames());
            }
            Openness::Withheld => {}
        }
        section_change::withhold(memory, Some((zone, kind)), id, section, set);
        true
    })
}

/// A block with poisoned frames keeps its struct pages while it is closed, and is opened by what they say.
fn mark_kept<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
    set: PageblockSet,
    mark: fn(Pageblock, &M),
) {
    if section.poisoned {
        Pageblock::of_set(id, set).for_each(|pageblock| mark(pageblock, &memory.machine));
    }
}

fn withhold_open<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    set: PageblockSet,
    pace: &mut dyn Pace,
) -> Result<(), PieceError> {
    let stopwatch = Stopwatch::start(&memory.machine, "isolate");
    let section = memory.sections.get(id).expect("a block that is locked stays");
    let kind = section.state.zone().expect("an open block is in a zone");
    let isolated = memory.with_zone(section.node, kind, |zone| {
        section_change::begin_shrinking(memory, id, section, kind);
        let isolated = set.union(pairs_across(memory, id, set));
        zone.area_mut(section.origin).isolate_pieces(&memory.machine, Pageblock::of_set(id, isolated));
        isolated
    });
    let undo = Undo::new(&stopwatch, || end_shrinking(memory, id, kind, isolated, PageblockSet::EMPTY));
    caches::drain_zone(memory, zone_number(section.node, kind));
    memory.check_injected(Point::OfflineEvacuate).map_err(PieceError::Injected)?;
    let only = [SectionRange::single(id)];
    empty(memory, &only, isolated, pace, &stopwatch).map_err(|error| PieceError::Stays(error.into()))?;
    // What was poisoned meanwhile stays.
    check_contents(memory, id, set)?;

    // Nothing below can fail.
    undo.disarm();
    end_shrinking(memory, id, kind, isolated.without(set), set);
    Ok(())
}

/// The pageblocks that lie in a pair, handed out as one, with one of `set`: they move together.
fn pairs_across<M: Machine>(memory: &Memory<M>, id: SectionId, set: PageblockSet) -> PageblockSet {
    let is_pair = |block: &Pageblock| {
        let head = memory.machine.page(block.pair_first().first()).head();
        matches!(head.state, PageState::Allocated | PageState::Cached) && head.order == Order::MAX
    };
    let pairs = Pageblock::of_set(id, set).filter(is_pair);
    pairs.fold(PageblockSet::EMPTY, |found, block| found.union(PageblockSet::single(block.buddy().index())))
}

/// Has isolated pageblocks come back within reach, and those of `gone`, which are empty, be withheld.
fn end_shrinking<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    kind: ZoneKind,
    back: PageblockSet,
    gone: PageblockSet,
) {
    let section = memory.sections.get(id).expect("a block that is locked stays");
    memory.with_zone(section.node, kind, |zone| {
        // It may have got faulty frames.
        let section = memory.sections.get(id).expect("a block that is locked stays");
        let area = zone.area_mut(section.origin);
        area.admit_pieces(&memory.machine, Pageblock::of_set(id, back));
        area.retire_pieces(&memory.machine, Pageblock::of_set(id, gone));
        let section = Section { state: BlockState::Online(kind), ..section };
        section_change::withhold(memory, Some((zone, kind)), id, section, gone);
    });
}
