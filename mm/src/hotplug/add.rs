//! Add: a range becomes known (step 1), is mapped (2) and gets room for its struct pages (3).
//!
//! A group is registered, and ranges are added to it. For a device that comes as a whole, both are one verb.

use super::steps::{self, Points, ReadyError};
use super::undo::Undo;
use crate::addr::{NodeId, SectionId, SectionRange};
use crate::errno::Errno;
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::backing::Backing;
use crate::machine::mapper::DirectMap;
use crate::machine::tasks::{Pace, Stop};
use crate::machine::trial::BadMemory;
use crate::memory::Memory;
use crate::plural::Plural;
use crate::range_guard;
use crate::record::journal::{Op, Stopwatch};
use crate::section::group::{Grant, Group, GroupId, GroupName, Ready, Terms, Unplaced};
use crate::section::kind::MemmapPlace;

/// Memory that became known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddRequest {
    /// Its whole blocks.
    pub range: SectionRange,
    /// Its node.
    pub node: NodeId,
    /// The name of the group.
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
    /// Memory of another group may come there.
    #[error("the range belongs to {0}")]
    Claimed(GroupName),
    /// There is no such group.
    #[error("there is no such group")]
    NoGroup,
    /// The range does not lie in the window of the group.
    #[error("the range does not lie in the window of {0}")]
    OutsideWindow(GroupName),
    /// The range is not made of whole units.
    #[error("the range is not made of whole units of {}", Plural(*unit, "block"))]
    BadUnit {
        /// Blocks of a unit.
        unit: u64,
    },
    /// There are too many groups.
    #[error("too many groups")]
    TooManyGroups,
    /// Page tables or struct pages of the range found no room.
    #[error("no memory for the struct pages and page tables of the range")]
    NoMemory,
    /// There is no memory that could be trusted with anything.
    #[error("{0}")]
    BadMemory(BadMemory),
    /// A failure was injected.
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
            Self::OutOfReach { .. } | Self::NoNode { .. } | Self::OutsideWindow(_) | Self::BadUnit { .. } => {
                Errno::Invalid
            }
            Self::NoGroup => Errno::NoEntry,
            Self::Exists(_) | Self::NameTaken(_) | Self::Claimed(_) => Errno::Exists,
            Self::TooManyGroups | Self::NoMemory => Errno::NoMemory,
            Self::BadMemory(_) => Errno::Io,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl From<ReadyError> for AddError {
    fn from(error: ReadyError) -> Self {
        match error {
            ReadyError::NoMemory => Self::NoMemory,
            ReadyError::BadMemory(bad) => Self::BadMemory(bad),
            ReadyError::Backing(_) => unreachable!("what is accessible when it is added needs no backing"),
            ReadyError::Injected(injected) => Self::Injected(injected),
            ReadyError::Stopped(stop) => Self::Stopped(stop),
        }
    }
}

pub(super) const POINTS: Points = Points { map: Point::AddMap, trial: Some(Point::AddTrial), memmap: Point::AddMemmap };

impl<M: Machine> Memory<M> {
    /// Makes a range known, mapped and ready to be brought online: a group of its own, on the terms that the settings ask for.
    ///
    /// # Errors
    /// See [`AddError`]; nothing has changed then.
    pub fn add(&self, request: &AddRequest, pace: &mut dyn Pace) -> Result<GroupId, AddError> {
        let AddRequest { range, node, name } = *request;
        let _alone = range_guard::lock_range(self, range, pace).map_err(AddError::Stopped)?;
        let stopwatch = Stopwatch::start(&self.machine, "check");
        let memmap = if self.policy().memmap_on_memory { MemmapPlace::Head } else { MemmapPlace::System };
        let terms =
            Terms { memmap, unit: M::PART, ready: Ready::AtAdd, grant: Grant::Whole, direct_map: DirectMap::Present };
        let result = add_group(self, &Group { name, window: range, node, terms }, pace, &stopwatch);
        let outcome = result.map(drop).map_err(AddError::errno);
        self.journal.lock().record(stopwatch.event(Op::Add, range, outcome));
        result
    }

    /// Makes a group known, without any blocks. `backing` makes its memory accessible, if that is not always so.
    ///
    /// # Errors
    /// See [`AddError`]; nothing has changed then.
    ///
    /// # Panics
    /// There is a backing if, and only if, the terms need one; a unit is at most as large as what is [mapped together](crate::machine::mapper::Mapper::PART).
    pub fn register_group(
        &self,
        group: &Group,
        backing: Option<&'static dyn Backing>,
        pace: &mut dyn Pace,
    ) -> Result<GroupId, AddError> {
        let Terms { unit, ready, memmap, direct_map, .. } = group.terms;
        assert_eq!(backing.is_some(), ready == Ready::AtOnline, "a backing for those who need one");
        assert!((1..=M::PART).contains(&unit), "a unit is mapped by one call");
        let is_lost = (memmap, direct_map) == (MemmapPlace::Head, DirectMap::Absent);
        assert!(!is_lost, "struct pages lie where CPUs may touch them");
        if !group.window.is_whole(unit) {
            return Err(AddError::BadUnit { unit });
        }
        let _alone = range_guard::lock_range(self, group.window, pace).map_err(AddError::Stopped)?;
        check_vacant(self, group.window, group.node)?;
        let id = reserve_group(self, group)?;
        steps::publish_group(self, id, backing, 0);
        Ok(id)
    }

    /// Makes whole units of a group's window known: mapped and ready to be brought online, or waiting for the backing.
    ///
    /// # Errors
    /// See [`AddError`]; nothing has changed then.
    ///
    /// # Panics
    /// No CPU may touch the memory of the group.
    pub fn add_to_group(&self, id: GroupId, range: SectionRange, pace: &mut dyn Pace) -> Result<(), AddError> {
        let _alone = range_guard::lock_range(self, range, pace).map_err(AddError::Stopped)?;
        let group = check_range(self, id, range)?;
        assert!(group.terms.direct_map == DirectMap::Present, "CPUs may touch what can go online");
        let stopwatch = Stopwatch::start(&self.machine, "check");
        let result = add_steps(self, &group, range, pace, &stopwatch);
        if result.is_ok() {
            self.groups.lock().tally_mut(id).add(range.pages().len());
            steps::know(self, id, &group, range);
        }
        self.journal.lock().record(stopwatch.event(Op::Add, range, result.map_err(AddError::errno)));
        result
    }
}

fn add_group<M: Machine>(
    memory: &Memory<M>,
    group: &Group,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<GroupId, AddError> {
    check_vacant(memory, group.window, group.node)?;
    let id = reserve_group(memory, group)?;
    let named = Undo::new(stopwatch, || memory.groups.lock().remove(id));
    add_steps(memory, group, group.window, pace, stopwatch)?;

    // Nothing below can fail.
    named.disarm();
    steps::publish_group(memory, id, None, group.window.pages().len());
    steps::know(memory, id, group, group.window);
    Ok(id)
}

/// All that can fail of steps 2 and 3, if they belong to the add.
fn add_steps<M: Machine>(
    memory: &Memory<M>,
    group: &Group,
    range: SectionRange,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), AddError> {
    if group.terms.ready == Ready::AtAdd {
        steps::map(memory, || steps::units_to_add(group, range), POINTS, pace, stopwatch)?;
    }
    stopwatch.enter("publish");
    Ok(())
}

/// The group that `range`, which is vacant, can be added to.
pub(super) fn check_range<M: Machine>(memory: &Memory<M>, id: GroupId, range: SectionRange) -> Result<Group, AddError> {
    let group = memory.group(id).ok_or(AddError::NoGroup)?;
    if !group.window.covers(range) {
        return Err(AddError::OutsideWindow(group.name));
    }
    if !range.is_whole(group.terms.unit) {
        return Err(AddError::BadUnit { unit: group.terms.unit });
    }
    check_vacant(memory, range, group.node)?;
    Ok(group)
}

fn check_vacant<M: Machine>(memory: &Memory<M>, range: SectionRange, node: NodeId) -> Result<(), AddError> {
    let limit = memory.sections.limit();
    if u64::from(range.last().number()) >= limit {
        return Err(AddError::OutOfReach { last: range.last(), limit: limit.saturating_sub(1) });
    }
    if node.index() >= memory.zones.node_limit() {
        return Err(AddError::NoNode { node });
    }
    let there = memory.sections.runs(range).find(|(_, section)| section.is_some());
    there.map_or(Ok(()), |(run, _)| Err(AddError::Exists(run.first())))
}

/// Nobody else takes the name, the window and the place meanwhile.
fn reserve_group<M: Machine>(memory: &Memory<M>, group: &Group) -> Result<GroupId, AddError> {
    memory.check_injected(Point::AddGroup).map_err(AddError::Injected)?;
    memory.groups.lock().reserve(*group).map_err(|why| match why {
        Unplaced::NameTaken => AddError::NameTaken(group.name),
        Unplaced::Overlaps(other) => AddError::Claimed(other),
        Unplaced::Full => AddError::TooManyGroups,
    })
}
