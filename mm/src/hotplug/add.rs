//! Add: a range becomes known (step 1), is mapped (2) and gets room for its struct pages (3).

use super::system_memmap::MemmapError;
use super::undo::Undo;
use crate::addr::{NodeId, PAGES_PER_SECTION, PfnRange, SectionId, SectionRange};
use crate::errno::Errno;
use crate::hotplug::{batch, system_memmap};
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::mapper::MapRangeError;
use crate::machine::tasks::{Pace, Stop};
use crate::machine::trial::BadMemory;
use crate::memory::Memory;
use crate::range_guard;
use crate::record::journal::{Op, Stopwatch};
use crate::section::altmap::Altmap;
use crate::section::group::{Group, GroupId, GroupName, Unplaced};
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::pieces::PageblockSet;
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::transition;
use core::cell::Cell;

/// Memory that became known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddRequest {
    /// Its whole blocks.
    pub range: SectionRange,
    /// Its node.
    pub node: NodeId,
    /// What the group shall be called.
    pub name: GroupName,
}

/// Why memory could not be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddError {
    /// The range ends above what the section table, and so the windows for struct pages and direct map, hold.
    #[error("block {last} lies beyond block {limit}, the last that can be held")]
    OutOfReach {
        /// The last block of the range.
        last: SectionId,
        /// The last block that can be added.
        limit: u64,
    },
    /// The node has no zones.
    #[error("node {node} is beyond the nodes known at boot")]
    NoNode {
        /// The node.
        node: NodeId,
    },
    /// A block of the range is there already.
    #[error("block {0} exists already")]
    Exists(SectionId),
    /// A group of that name is there already.
    #[error("group {0} exists already")]
    NameTaken(GroupName),
    /// There are too many groups.
    #[error("too many groups")]
    TooManyGroups,
    /// Page tables or struct pages of the range found no room.
    #[error("no memory for the struct pages and page tables of the range")]
    NoMemory,
    /// There is no memory that could be trusted with anything.
    #[error("{0}")]
    BadMemory(BadMemory),
    /// Somebody asked for this failure.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl AddError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::OutOfReach { .. } | Self::NoNode { .. } => Errno::Invalid,
            Self::Exists(_) | Self::NameTaken(_) => Errno::Exists,
            Self::TooManyGroups | Self::NoMemory => Errno::NoMemory,
            Self::BadMemory(_) => Errno::Io,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl From<MemmapError> for AddError {
    fn from(error: MemmapError) -> Self {
        match error {
            MemmapError::NoMemory => Self::NoMemory,
            MemmapError::Injected(injected) => Self::Injected(injected),
            MemmapError::Stopped(stop) => Self::Stopped(stop),
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Makes a range known, mapped and ready to be brought online.
    ///
    /// # Errors
    /// See [`AddError`]; nothing has changed then.
    pub fn add(&self, request: &AddRequest, pace: &mut dyn Pace) -> Result<GroupId, AddError> {
        let _alone = range_guard::lock_range(self, request.range, pace).map_err(AddError::Stopped)?;
        let stopwatch = Stopwatch::start(&self.machine, "check");
        let result = add_steps(self, request, pace, &stopwatch);
        let outcome = result.map(drop).map_err(AddError::errno);
        self.record(stopwatch.event(Op::Add, request.range, outcome));
        result
    }
}

fn add_steps<M: Machine>(
    memory: &Memory<M>,
    request: &AddRequest,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<GroupId, AddError> {
    let range = request.range;
    check_vacant(memory, request)?;
    let memmap = if memory.policy().memmap_on_memory { MemmapPlace::Head } else { MemmapPlace::System };
    let group = reserve_group(memory, Group { name: request.name, range, node: request.node, memmap })?;
    let named = Undo::new(stopwatch, || memory.groups.lock().remove(group));
    stopwatch.enter("map");

    let frames = match memmap {
        MemmapPlace::System => Some(system_memmap::promise_memmaps(memory, range)?),
        MemmapPlace::Head | MemmapPlace::Boot => None,
    };
    memory.pass(Point::AddMap).map_err(AddError::Injected)?;
    let part_count = Cell::new(0);
    let mapped = Undo::new(stopwatch, || batch::unmap_parts(memory, range, part_count.get()));
    for part in range.cut(M::PART) {
        map_part(memory, part, memmap)?;
        part_count.set(part_count.get() + 1);
        try_first_frame(memory, part, memmap)?;
    }
    stopwatch.enter("memmap");

    if let Some(frames) = frames {
        system_memmap::reserve_memmaps(memory, range, request.node, &frames, pace, stopwatch)?;
    }
    stopwatch.enter("publish");

    // Nothing below can fail.
    mapped.keep();
    named.keep();
    memory.groups.lock().publish(group);
    for part in range.cut(M::PART) {
        publish(memory, part, group, request.node, memmap);
    }
    Ok(group)
}

fn map_part<M: Machine>(memory: &Memory<M>, part: SectionRange, memmap: MemmapPlace) -> Result<(), AddError> {
    let tables = match memmap {
        MemmapPlace::Head => altmap(memory, part).ok_or(AddError::NoMemory)?.tables(),
        MemmapPlace::System | MemmapPlace::Boot => PfnRange::EMPTY,
    };
    memory.machine.map_range(part, tables).map_err(|error| match error {
        MapRangeError::NoTable(_) => AddError::NoMemory,
        MapRangeError::BadMemory(bad) => AddError::BadMemory(bad),
    })
}

/// One frame speaks for all: whatever else is to hold struct pages or tables is tried when it does, so that what nobody
/// uses stays untouched. It is the first behind the tables, which may be in use since the part was mapped.
fn try_first_frame<M: Machine>(memory: &Memory<M>, part: SectionRange, memmap: MemmapPlace) -> Result<(), AddError> {
    memory.pass(Point::AddTrial).map_err(AddError::Injected)?;
    let altmap = altmap(memory, part).filter(|_| memmap == MemmapPlace::Head);
    let first = altmap.map_or(part.first().pages().start(), |altmap| altmap.tables().end());
    memory.machine.try_frames(PfnRange::new(first, 1)).map_err(AddError::BadMemory)
}

fn altmap<M: Machine>(memory: &Memory<M>, part: SectionRange) -> Option<Altmap> {
    Altmap::new(part, memory.machine.own_tables(part))
}

/// Makes the sections of a part, which is mapped, known.
fn publish<M: Machine>(memory: &Memory<M>, part: SectionRange, group: GroupId, node: NodeId, memmap: MemmapPlace) {
    let altmap = altmap(memory, part).filter(|_| memmap == MemmapPlace::Head);
    // The first one holds the tables of all, the others are alike.
    let first = part.first_part(1);
    for run in [Some(first), part.behind(first)].into_iter().flatten() {
        let head = altmap.map_or(0, |altmap| altmap.head_frames(run.first()));
        let section = Section {
            state: BlockState::Offline,
            openness: Openness::Untouched,
            last_zone: ZoneKind::Normal,
            node,
            group,
            origin: Origin::Added,
            memmap,
            ready: true,
            present: PAGES_PER_SECTION as u16,
            head: head as u16,
            managed: (PAGES_PER_SECTION - head) as u16,
            poisoned: false,
            faulty: false,
        };
        transition::make_known(memory, run, section, PageblockSet::EMPTY);
    }
}

fn check_vacant<M: Machine>(memory: &Memory<M>, request: &AddRequest) -> Result<(), AddError> {
    let range = request.range;
    let limit = memory.sections.limit();
    if u64::from(range.last().number()) >= limit {
        return Err(AddError::OutOfReach { last: range.last(), limit: limit.saturating_sub(1) });
    }
    if request.node.index() >= memory.zones.node_limit() {
        return Err(AddError::NoNode { node: request.node });
    }
    let there = memory.sections.runs(range).find(|(_, section)| section.is_some());
    there.map_or(Ok(()), |(run, _)| Err(AddError::Exists(run.first())))
}

/// Nobody else takes the name and the place meanwhile.
fn reserve_group<M: Machine>(memory: &Memory<M>, group: Group) -> Result<GroupId, AddError> {
    memory.pass(Point::AddGroup).map_err(AddError::Injected)?;
    memory.groups.lock().reserve(group).map_err(|why| match why {
        Unplaced::NameTaken => AddError::NameTaken(group.name),
        Unplaced::Full => AddError::TooManyGroups,
    })
}
