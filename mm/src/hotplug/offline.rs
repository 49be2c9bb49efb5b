//! Offline: the reverse of online. What is in use must first go elsewhere; where it cannot, everything stays as it was.

use super::batch::{BATCH, first_batch, hull, in_batches, is_sorted};
use super::empty::empty;
use super::steps;
use super::undo::Undo;
use crate::addr::{Pfn, SectionId, SectionRange};
use crate::alloc::{ahead, caches};
use crate::errno::Errno;
use crate::evacuate::content::{Blocker, Hold};
use crate::evacuate::evacuation::EvacuateError;
use crate::frame::page::Owner;
use crate::frame::pageblock_set::PageblockSet;
use crate::hotplug::{batch, listeners};
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::plural::Plural;
use crate::record::journal::{Op, Stopwatch};
use crate::record::notifier::{Direction, Veto};
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::{poison, range_guard, section_change};

/// Why blocks could not be taken offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OfflineError {
    /// No block was named, or not in order.
    #[error("no blocks, or not in order")]
    BadList,
    /// There is no such block.
    #[error("there is no block {0}")]
    Absent(SectionId),
    /// The block is not online.
    #[error("block {block} is {state} already")]
    NotOnline {
        /// The block.
        block: SectionId,
        /// What it is.
        state: &'static str,
    },
    /// The block is in both zones, which no block can leave.
    #[error("block {0} is in both zones, and stays")]
    Mixed(SectionId),
    /// There is memory in use in it that cannot be moved.
    #[error("{pfn} in block {} is held by {owner}", pfn.section())]
    Unmovable {
        /// The first such frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// There is memory in it that is pinned, and could be moved otherwise.
    #[error("{pfn} of {owner} in block {} is pinned", pfn.section())]
    Pinned {
        /// The first such frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// Something in it went on being taken, given back or moved by others.
    #[error("{pfn} in block {} is being taken or given back all the time", pfn.section())]
    InFlight {
        /// The first frame of its pageblock, or the frame itself.
        pfn: Pfn,
    },
    /// There is no room elsewhere for what it holds.
    #[error("there is no place elsewhere for {} of what is in use", Plural(*short_by, "page"))]
    NoDestination {
        /// So many frames are missing.
        short_by: u64,
    },
    /// Hotplug would not have enough left to go on.
    #[error("hotplug itself would have {} too few", Plural(*short_by, "page"))]
    ReserveShort {
        /// So many frames are missing.
        short_by: u64,
    },
    /// It was told to stop while memory was moving.
    #[error("{stop}, and {pfn} in block {} had not moved", pfn.section())]
    Unfinished {
        /// Why.
        stop: Stop,
        /// The first frame that had not moved.
        pfn: Pfn,
    },
    /// A listener refused.
    #[error("{0}")]
    Vetoed(Veto),
    /// A failure was injected.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl OfflineError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadList | Self::NotOnline { .. } | Self::Mixed(_) => Errno::Invalid,
            Self::Absent(_) => Errno::NoEntry,
            Self::Unmovable { .. } | Self::Pinned { .. } | Self::InFlight { .. } | Self::Vetoed(_) => Errno::Busy,
            Self::NoDestination { .. } | Self::ReserveShort { .. } => Errno::NoMemory,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) | Self::Unfinished { stop, .. } => stop.errno(),
        }
    }
}

impl From<EvacuateError> for OfflineError {
    fn from(error: EvacuateError) -> Self {
        match error {
            EvacuateError::Fixed(Blocker { pfn, owner, hold: Hold::Pinned, .. }) => Self::Pinned { pfn, owner },
            EvacuateError::Fixed(Blocker { pfn, owner, .. }) => Self::Unmovable { pfn, owner },
            EvacuateError::InFlight(pfn) => Self::InFlight { pfn },
            EvacuateError::NoDestination { short_by } => Self::NoDestination { short_by },
            EvacuateError::ReserveShort { short_by } => Self::ReserveShort { short_by },
            EvacuateError::Injected(injected) => Self::Injected(injected),
            EvacuateError::Stopped(stop) => Self::Stopped(stop),
            EvacuateError::Unfinished(stop, pfn) => Self::Unfinished { stop, pfn },
        }
    }
}

impl From<Veto> for OfflineError {
    fn from(veto: Veto) -> Self {
        Self::Vetoed(veto)
    }
}

impl<M: Machine> Memory<M> {
    /// Takes all blocks of `ranges`, lowest first and without overlap, offline, or none.
    ///
    /// # Errors
    /// See [`OfflineError`]; nothing has changed then.
    pub fn offline(&self, ranges: &[SectionRange], pace: &mut dyn Pace) -> Result<(), OfflineError> {
        let range = hull(ranges).ok_or(OfflineError::BadList)?;
        let _alone = range_guard::lock_units(self, range, pace).map_err(OfflineError::Stopped)?;
        offline_locked(self, ranges, pace)
    }
}

/// The same, for a caller that has locked all of `ranges`.
pub(super) fn offline_locked<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    pace: &mut dyn Pace,
) -> Result<(), OfflineError> {
    let hull = hull(ranges).filter(|_| is_sorted(ranges)).ok_or(OfflineError::BadList)?;
    let stopwatch = Stopwatch::start(&memory.machine, "begin");
    let result = offline_steps(memory, ranges, pace, &stopwatch);
    batch::record_ranges(memory, &stopwatch, Op::Offline, ranges, hull, result.map_err(OfflineError::errno));
    result
}

fn offline_steps<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), OfflineError> {
    check_online(memory, ranges)?;
    memory.check_injected(Point::OfflineBegin).map_err(OfflineError::Injected)?;
    stopwatch.enter("isolate");

    let isolated = Undo::new(stopwatch, || {
        for (run, section) in memory.sections.present_runs(ranges) {
            unisolate(memory, run, section);
        }
    });
    memory.check_injected(Point::OfflineIsolate).map_err(OfflineError::Injected)?;
    let mut matters = false;
    for range in ranges {
        matters |= isolate(memory, *range, pace).map_err(OfflineError::Stopped)?;
    }
    // Of blocks that nobody has touched and nobody counts on, there is nothing to be looked at from here on.
    let open = if matters { ranges } else { &[] };
    caches::drain_zones_of(memory, open);
    if matters {
        ahead::open_reserve(memory);
    }
    stopwatch.enter("prepare");

    memory.check_injected(Point::OfflinePrepare).map_err(OfflineError::Injected)?;
    let isolated = listeners::with_consent(memory, ranges, Direction::Offline, isolated, || {
        stopwatch.enter("look");
        memory.check_injected(Point::OfflineEvacuate).map_err(OfflineError::Injected)?;
        empty(memory, open, PageblockSet::ALL, pace, stopwatch).map_err(OfflineError::from)
    })?;
    stopwatch.enter("withdraw");

    // Nothing below can fail.
    isolated.disarm();
    close_for_readers(memory, open);
    let mut is_any_standby = false;
    in_batches(ranges, pace, |range| steps::leave(memory, range, &mut is_any_standby));
    if !open.is_empty() {
        memory.machine.settle_memmaps();
    }
    if is_any_standby {
        stopwatch.enter("release");
        steps::make_empty_units_unready(memory, ranges);
    }
    stopwatch.enter("committed");
    listeners::committed_all(memory, ranges, Direction::Offline);
    Ok(())
}

pub(crate) fn check_online<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) -> Result<(), OfflineError> {
    for range in ranges {
        for (run, section) in memory.sections.runs(*range) {
            let block = run.first();
            let section = section.ok_or(OfflineError::Absent(block))?;
            if matches!(section.state, BlockState::Mixed(_)) {
                return Err(OfflineError::Mixed(block));
            }
            // A part of it may just be withheld, for somebody who only looks.
            if !matches!(section.state, BlockState::Online(_) | BlockState::Shrinking(_)) {
                return Err(OfflineError::NotOnline { block, state: section.state.name() });
            }
        }
    }
    Ok(())
}

/// Puts what is free in the blocks out of reach, and what will be freed in them too; whether any is open, or may hold the reserve.
pub(super) fn isolate<M: Machine>(memory: &Memory<M>, range: SectionRange, pace: &mut dyn Pace) -> Result<bool, Stop> {
    // What is faulty would only hold it up.
    poison::poison_faulty_in(memory, range);
    let mut matters = false;
    let mut rest = Some(range);
    while let Some(range) = rest {
        rest = isolate_some(memory, range, &mut matters);
        if rest.is_some() {
            pace.pause()?;
        }
    }
    Ok(matters)
}

/// Isolates the first blocks of `range`; the blocks behind those. A block that somebody is just opening or closing is
/// left for the next time.
fn isolate_some<M: Machine>(memory: &Memory<M>, range: SectionRange, matters: &mut bool) -> Option<SectionRange> {
    let section = memory.sections.get(range.first())?;
    let kind = section.state.zone()?;
    *matters |= section.may_hold_reserve();
    memory.with_zone(section.node, kind, |zone| {
        let (run, section) = first_batch(memory, range, |section| section.openness == Openness::Open);
        match section.openness {
            Openness::Changing => return Some(range),
            Openness::Untouched => zone.claim_untouched(run, section),
            Openness::Withheld => {}
            Openness::Open => {
                *matters = true;
                zone.area_mut(section.origin).isolate(&memory.machine, run.first());
            }
        }
        section_change::set_leaving(memory, run, section, kind, true);
        range.behind(run)
    })
}

/// Undoes [`isolate_some`] where it was done.
pub(super) fn unisolate<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section) {
    let BlockState::GoingOffline(kind) = section.state else { return };
    if section.is_open() {
        for id in run.iter() {
            memory.with_zone(section.node, kind, |zone| {
                section_change::set_leaving(memory, SectionRange::single(id), section, kind, false);
                zone.area_mut(section.origin).admit(&memory.machine, id);
            });
        }
    } else {
        for part in run.cut(BATCH) {
            memory.with_zone(section.node, kind, |zone| {
                section_change::set_leaving(memory, part, section, kind, false);
                if section.is_untouched() {
                    zone.release_claim(part, section);
                    zone.put_untouched(part, section);
                }
            });
        }
    }
}

/// Says of open blocks that nobody may look at their struct pages any more, and waits for those who do. The struct pages of
/// a boot block that held something stay.
fn close_for_readers<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) {
    if ranges.is_empty() {
        return;
    }
    for (run, section) in
        memory.sections.present_runs(ranges).filter(|(_, section)| section.is_open() && !section.keeps_struct_pages())
    {
        let BlockState::GoingOffline(kind) = section.state else { continue };
        for part in run.cut(BATCH) {
            let _zone = memory.zones.lock(section.node, kind);
            section_change::close_for_readers(memory, part, section);
        }
    }
    memory.machine.wait_for_readers();
}
