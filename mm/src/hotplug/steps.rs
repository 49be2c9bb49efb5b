//! The six steps, each with its undo. The verbs are lists of them; boot memory, a block that changes its zone and device memory do one
//! or two in their own way, in `boot`, `relabel` and `device`.
//!
//! | step | done by | undone by |
//! |---|---|---|
//! | 1, known | [`know`] | [`forget`] |
//! | accessible, 2, mapped, and 3, with a memmap | [`make_ready`] | [`make_unready`] |
//! | 4, in a zone, and 6, with the allocator | [`enter`] | [`leave`] |
//! | 5, struct pages | [`open`], when somebody needs the frames | the same |
//!
//! What [`Ready`] says decides which verb does the second pair: add and remove, or online and offline.

use super::batch;
use super::system_memmap::{self, MemmapError};
use super::undo::Undo;
use crate::addr::{NodeId, PAGES_PER_SECTION, PfnRange, SectionRange};
use crate::alloc::open;
use crate::frame::page::MEMMAP_PAGES;
use crate::frame::pageblock::{FRAMES, Pageblock};
use crate::frame::pageblock_set::PageblockSet;
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::backing::{Backing, BackingError};
use crate::machine::mapper::MapRangeError;
use crate::machine::tasks::{Pace, Stop};
use crate::machine::trial::BadMemory;
use crate::memory::Memory;
use crate::poison;
use crate::record::journal::Stopwatch;
use crate::section::altmap::Altmap;
use crate::section::group::{Grant, Group, GroupId, Ready, Terms};
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::section_change;
use core::cell::Cell;
use core::sync::atomic::Ordering;

/// Makes a group known that has been reserved, with so many frames, all of them offline.
pub(super) fn publish_group<M: Machine>(
    memory: &Memory<M>,
    id: GroupId,
    backing: Option<&'static dyn Backing>,
    pages: u64,
) {
    let mut groups = memory.groups.lock();
    memory.standby_groups.fetch_add(u64::from(backing.is_some()), Ordering::Relaxed);
    groups.publish(id, backing, pages);
}

/// Forgets a group without blocks.
pub(super) fn forget_group<M: Machine>(memory: &Memory<M>, id: GroupId) {
    let mut groups = memory.groups.lock();
    memory.standby_groups.fetch_sub(u64::from(groups.backing(id).is_some()), Ordering::Relaxed);
    groups.remove(id);
}

/// Step 1: makes sections of a group, which are absent, and whose frames it counts, known. Cannot fail.
pub(super) fn know<M: Machine>(memory: &Memory<M>, id: GroupId, group: &Group, range: SectionRange) {
    publish(memory, id, group, range, BlockState::Offline);
}

fn publish<M: Machine>(memory: &Memory<M>, id: GroupId, group: &Group, range: SectionRange, state: BlockState) {
    let terms = group.terms;
    let is_device = state == BlockState::Device;
    for unit in range.cut(terms.unit) {
        let altmap = altmap(memory, unit, terms);
        // The first one holds the tables of all, the others are alike.
        let first = unit.first_part(1);
        for run in [Some(first), unit.behind(first)].into_iter().flatten() {
            let head = altmap.map_or(0, |altmap| altmap.head_frames(run.first()));
            let withheld = match terms.grant {
                Grant::Pieces if !is_device => PageblockSet::behind(head.div_ceil(FRAMES)),
                Grant::Whole | Grant::Pieces => PageblockSet::EMPTY,
            };
            // Frames of a device are its own to hand out.
            let managed = if is_device { 0 } else { PAGES_PER_SECTION - head - withheld.frames() };
            let section = Section {
                state,
                openness: Openness::Untouched,
                last_zone: ZoneKind::Normal,
                node: group.node,
                group: id,
                origin: Origin::Added,
                memmap: terms.memmap,
                ready: terms.ready == Ready::AtAdd,
                present: PAGES_PER_SECTION as u16,
                head: head as u16,
                managed: managed as u16,
                poisoned: false,
                faulty: false,
            };
            section_change::make_known(memory, run, section, withheld);
        }
    }
}

/// Step 1 for device memory, which has struct pages already and goes no further. Cannot fail.
pub(super) fn know_device<M: Machine>(memory: &Memory<M>, id: GroupId, group: &Group, range: SectionRange) {
    publish(memory, id, group, range, BlockState::Device);
}

/// Undoes [`know_device`]. Cannot fail.
pub(super) fn forget_device<M: Machine>(memory: &Memory<M>, range: SectionRange) {
    section_change::forget(memory, range);
}

/// Undoes [`know`]. Cannot fail.
pub(super) fn forget<M: Machine>(memory: &Memory<M>, id: GroupId, range: SectionRange) {
    section_change::forget(memory, range);
    memory.groups.lock().tally_mut(id).remove(range.pages().len());
}

/// Which operation makes memory ready: its failure points have names of their own.
#[derive(Clone, Copy)]
pub(super) struct Points {
    pub(super) map: Point,
    /// None where nothing of ours lies in the memory, of which not a byte is written then.
    pub(super) trial: Option<Point>,
    pub(super) memmap: Point,
}

/// Why memory is not ready to go online.
pub(super) enum ReadyError {
    NoMemory,
    BadMemory(BadMemory),
    Backing(BackingError),
    Injected(Injected),
    Stopped(Stop),
}

impl From<MemmapError> for ReadyError {
    fn from(error: MemmapError) -> Self {
        match error {
            MemmapError::NoMemory => Self::NoMemory,
            MemmapError::Injected(injected) => Self::Injected(injected),
            MemmapError::Stopped(stop) => Self::Stopped(stop),
        }
    }
}

/// Sections of a group that are made accessible and mapped together.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) range: SectionRange,
    pub(super) node: NodeId,
    pub(super) terms: Terms,
    pub(super) backing: Option<&'static dyn Backing>,
}

/// The units of `range` in a group whose memory is accessible from when it is added.
pub(super) fn units_to_add(group: &Group, range: SectionRange) -> impl Iterator<Item = Unit> {
    let Group { node, terms, .. } = *group;
    range.cut(terms.unit).map(move |range| Unit { range, node, terms, backing: None })
}

/// The units, lowest first, that sections of `ranges` lie in which are as `is_wanted` says.
fn units_of<'a, M: Machine>(
    memory: &'a Memory<M>,
    ranges: &'a [SectionRange],
    is_wanted: fn(Section) -> bool,
) -> impl Iterator<Item = Unit> + 'a {
    let runs = memory.sections.present_runs(ranges).filter(move |(_, section)| is_wanted(*section));
    let units = runs.flat_map(|(run, section)| {
        let groups = memory.groups.lock();
        let group = groups.get(section.group).expect("a block is of a group that exists");
        let Group { node, terms, .. } = group;
        let backing = groups.backing(section.group);
        run.widened(terms.unit).cut(terms.unit).map(move |range| Unit { range, node, terms, backing })
    });
    let mut last = None;
    units.filter(move |unit| last.replace(unit.range) != Some(unit.range))
}

/// The units of `ranges` that are not ready.
pub(super) fn unready_units<'a, M: Machine>(
    memory: &'a Memory<M>,
    ranges: &'a [SectionRange],
) -> impl Iterator<Item = Unit> + 'a {
    units_of(memory, ranges, |section| !section.ready)
}

/// Makes `units` accessible, maps them (step 2) and gives them room for their struct pages (3), all or none. Each call of `units`
/// names the same.
pub(super) fn make_ready<M: Machine, I: Iterator<Item = Unit>>(
    memory: &Memory<M>,
    units: impl Fn() -> I,
    points: Points,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), ReadyError> {
    stopwatch.enter("back");
    let count = Cell::new(0);
    let backed = Undo::new(stopwatch, || units().take(count.get()).for_each(release));
    for unit in units() {
        memory.check_injected(Point::StandbyBack).map_err(ReadyError::Injected)?;
        let backing = unit.backing.expect("who is not ready is backed by somebody");
        backing.back(unit.range, pace).map_err(ReadyError::Backing)?;
        count.set(count.get() + 1);
        pace.pause().map_err(ReadyError::Stopped)?;
    }
    map(memory, &units, points, pace, stopwatch)?;
    backed.disarm();
    Ok(())
}

/// The same for units that are accessible.
pub(super) fn map<M: Machine, I: Iterator<Item = Unit>>(
    memory: &Memory<M>,
    units: impl Fn() -> I,
    points: Points,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), ReadyError> {
    stopwatch.enter("map");
    let in_system = || units().filter(|unit| unit.terms.memmap == MemmapPlace::System);
    let promise = system_memmap::promise_memmaps(memory, in_system().map(|unit| unit.range))?;
    memory.check_injected(points.map).map_err(ReadyError::Injected)?;
    let count = Cell::new(0);
    let mapped = Undo::new(stopwatch, || {
        units().take(count.get()).for_each(|unit| memory.machine.unmap_range(unit.range));
    });
    for unit in units() {
        map_unit(memory, unit)?;
        count.set(count.get() + 1);
        if let Some(point) = points.trial {
            try_first_frame(memory, unit, point)?;
        }
    }
    stopwatch.enter("memmap");

    if let Some(promise) = promise {
        let sections = || in_system().flat_map(|unit| unit.range.iter().map(move |id| (id, unit.node)));
        system_memmap::reserve_memmaps(memory, sections, &promise, points.memmap, pace, stopwatch)?;
    }
    mapped.disarm();
    Ok(())
}

/// Undoes [`make_ready`] for a unit, all of whose sections are offline, or not known any more. Cannot fail.
pub(super) fn make_unready<M: Machine>(memory: &Memory<M>, unit: Unit) {
    if unit.terms.memmap == MemmapPlace::System {
        unit.range.iter().for_each(|id| system_memmap::release_memmap(memory, id, MEMMAP_PAGES));
    }
    memory.machine.unmap_range(unit.range);
    release(unit);
}

/// Says of the units of standby memory in `ranges` that they are ready.
pub(super) fn note_ready<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) {
    for unit in unready_units(memory, ranges) {
        for (run, section) in memory.sections.present_runs(&[unit.range]) {
            section_change::set_ready(memory, run, section, true);
        }
    }
}

/// Makes the units of standby memory in `ranges` unready of which no section is online any more. Errors of their memory go with it.
pub(super) fn make_empty_units_unready<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) {
    for unit in units_of(memory, ranges, |section| section.ready) {
        let mut sections = memory.sections.iter_range(unit.range);
        if unit.terms.ready == Ready::AtAdd || sections.any(|(_, section)| section.state != BlockState::Offline) {
            continue;
        }
        poison::forget_errors(memory, unit.range);
        for (run, section) in memory.sections.present_runs(&[unit.range]) {
            let section = Section { openness: Openness::Untouched, ..section };
            section_change::set_ready(memory, run, section, false);
        }
        make_unready(memory, unit);
    }
}

fn release(unit: Unit) {
    if let Some(backing) = unit.backing {
        backing.release(unit.range);
    }
}

fn map_unit<M: Machine>(memory: &Memory<M>, unit: Unit) -> Result<(), ReadyError> {
    let tables = match unit.terms.memmap {
        MemmapPlace::Head => altmap(memory, unit.range, unit.terms).ok_or(ReadyError::NoMemory)?.tables(),
        MemmapPlace::System | MemmapPlace::Boot => PfnRange::EMPTY,
    };
    memory.machine.map_range(unit.range, tables, unit.terms.direct_map).map_err(|error| match error {
        MapRangeError::NoTable(_) => ReadyError::NoMemory,
        MapRangeError::BadMemory(bad) => ReadyError::BadMemory(bad),
    })
}

/// One frame speaks for all: whatever else is to hold struct pages or tables is tried when it does, so that what nobody
/// uses stays untouched. It is the first behind the tables, which may be in use since the unit was mapped. What comes piece by piece
/// and has no tables is left alone: its host would have to find memory for each of many units.
fn try_first_frame<M: Machine>(memory: &Memory<M>, unit: Unit, point: Point) -> Result<(), ReadyError> {
    let tables = altmap(memory, unit.range, unit.terms).map_or(PfnRange::EMPTY, |altmap| altmap.tables());
    if unit.terms.grant == Grant::Pieces && tables.is_empty() {
        return Ok(());
    }
    memory.check_injected(point).map_err(ReadyError::Injected)?;
    let first = if tables.is_empty() { unit.range.first().pages().start() } else { tables.end() };
    memory.machine.try_frames(PfnRange::new(first, 1)).map_err(ReadyError::BadMemory)
}

pub(super) fn altmap<M: Machine>(memory: &Memory<M>, unit: SectionRange, terms: Terms) -> Option<Altmap> {
    match terms.memmap {
        MemmapPlace::Head => Altmap::new(unit, memory.machine.own_tables(unit)),
        MemmapPlace::System | MemmapPlace::Boot => None,
    }
}

/// Steps 4 and 6 for the first blocks of `range`, which are going online; returns the blocks behind those. Cannot fail.
pub(super) fn enter<M: Machine>(memory: &Memory<M>, range: SectionRange) -> Option<SectionRange> {
    let (run, section) = batch::first_batch(memory, range, Section::opens_at_once);
    enter_run(memory, run, section);
    range.behind(run)
}

/// The same for blocks with equal words: one that keeps its struct pages enters open, others untouched, or withheld if they were added.
pub(super) fn enter_run<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section) {
    let kind = section.state.zone().expect("a block that goes online has a zone");
    if section.opens_at_once() {
        open::describe_pageblocks(memory, run.first(), kind, |block| block.count_free(&memory.machine));
    }
    memory.with_zone(section.node, kind, |zone| {
        let section = section_change::enter(memory, zone, run, section);
        if section.opens_at_once() {
            run.iter().for_each(|id| zone.area_mut(section.origin).admit(&memory.machine, id));
        } else if section.is_untouched() {
            zone.put_untouched(run, section);
        }
    });
}

/// Undoes steps 6 to 4 for the first blocks of `range`, which are empty and isolated; returns the blocks behind those. Cannot fail.
/// Sets `is_any_standby` if somebody has to be given the memory back.
pub(super) fn leave<M: Machine>(
    memory: &Memory<M>,
    range: SectionRange,
    is_any_standby: &mut bool,
) -> Option<SectionRange> {
    let (run, section) = batch::first_batch(memory, range, Section::is_touched);
    let kind = section.state.zone().expect("a block that goes offline has a zone");
    *is_any_standby |= section_change::tally(memory, run, section, None) == Some(Ready::AtOnline);
    while !leave_at_once(memory, run, section, kind) {}
    // The struct pages of a boot block that held something stay, and tell which of its frames are to come back.
    if section.is_touched() {
        open::discard_struct_pages(memory, run.first(), section);
    }
    range.behind(run)
}

/// Takes blocks with equal words out of their zone, unless others come or go meanwhile.
fn leave_at_once<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section, kind: ZoneKind) -> bool {
    let (span, changes) = batch::span_without(memory, section.node, kind, run);
    memory.with_zone(section.node, kind, |zone| {
        if zone.changes() != changes {
            return false;
        }
        if section.is_touched() {
            let is_empty = |block: Pageblock| block.descriptor(&memory.machine).is_empty();
            assert!(Pageblock::of_section(run.first()).all(is_empty), "block {} is not empty", run.first());
            zone.area_mut(section.origin).retire(&memory.machine, run.first());
        } else if section.is_untouched() {
            zone.release_claim(run, section);
        }
        section_change::leave(memory, zone, run, section, kind, span);
        true
    })
}
