//! Remove: a group's memory is forgotten, and everything that adding it took is given back.

use super::batch::hull;
use super::offline::OfflineError;
use crate::addr::{SectionId, SectionRange};
use crate::errno::Errno;
use crate::frame::page::MEMMAP_PAGES;
use crate::hotplug::{batch, offline, system_memmap};
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::range_guard::RangeGuard;
use crate::record::journal::{Op, Stopwatch};
use crate::section::group::{Group, GroupId, GroupName};
use crate::section::kind::MemmapPlace;
use crate::section::state::BlockState;
use crate::transition;
use crate::{poison, range_guard};

/// Why a group could not be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such group.
    #[error("there is no such group")]
    Absent,
    /// Memory that was there at boot stays.
    #[error("{0} is boot memory, which cannot be removed")]
    Boot(GroupName),
    /// A block of the group is in use.
    #[error("block {0} is not offline")]
    NotOffline(SectionId),
    /// Somebody asked for this failure.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl RemoveError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Absent => Errno::NoEntry,
            Self::Boot(_) => Errno::Invalid,
            Self::NotOffline(_) => Errno::Busy,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// Why a whole device could not be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnplugError {
    /// Its blocks cannot go offline.
    #[error(transparent)]
    Offline(OfflineError),
    /// It cannot be removed.
    #[error(transparent)]
    Remove(RemoveError),
}

impl UnplugError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Offline(error) => error.errno(),
            Self::Remove(error) => error.errno(),
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Forgets groups, all of whose blocks are offline; all of them or none.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing has changed then.
    pub fn remove(&self, names: &[GroupName], pace: &mut dyn Pace) -> Result<(), RemoveError> {
        let _alone = lock_groups(self, names, &[], pace)?;
        check_removable(self, names, &[])?;
        forget_all(self, names);
        Ok(())
    }

    /// Takes a whole device away: the online blocks of its groups, which `online` names lowest first, go offline, all or
    /// none, and then the groups are forgotten.
    ///
    /// # Errors
    /// See [`UnplugError`]; every block is as it was then.
    pub fn unplug(&self, names: &[GroupName], online: &[SectionRange], pace: &mut dyn Pace) -> Result<(), UnplugError> {
        let _alone = lock_groups(self, names, online, pace).map_err(UnplugError::Remove)?;
        // Whatever can refuse the removal is asked before the first block goes offline.
        check_removable(self, names, online).map_err(UnplugError::Remove)?;
        if !online.is_empty() {
            offline::offline_locked(self, online, pace).map_err(UnplugError::Offline)?;
        }
        forget_all(self, names);
        Ok(())
    }
}

/// Locks all that these groups and `others` lie in. There may be none of them.
fn lock_groups<'a, M: Machine>(
    memory: &'a Memory<M>,
    names: &[GroupName],
    others: &[SectionRange],
    pace: &mut dyn Pace,
) -> Result<Option<RangeGuard<'a, M>>, RemoveError> {
    loop {
        let Some(range) = hull_of_groups(memory, names, others)? else { return Ok(None) };
        let guard = range_guard::lock_range(memory, range, pace).map_err(RemoveError::Stopped)?;
        // Those who had their turn before may have removed a group, and added another of that name elsewhere.
        if hull_of_groups(memory, names, others)? == Some(range) {
            return Ok(Some(guard));
        }
    }
}

fn hull_of_groups<M: Machine>(
    memory: &Memory<M>,
    names: &[GroupName],
    others: &[SectionRange],
) -> Result<Option<SectionRange>, RemoveError> {
    let mut hull = hull(others);
    for name in names {
        let (_, group) = memory.find_group(*name).ok_or(RemoveError::Absent)?;
        hull = Some(hull.map_or(group.range, |hull| hull.hull(group.range)));
    }
    Ok(hull)
}

fn check_removable<M: Machine>(
    memory: &Memory<M>,
    names: &[GroupName],
    except: &[SectionRange],
) -> Result<(), RemoveError> {
    for name in names {
        let (_, group) = memory.find_group(*name).ok_or(RemoveError::Absent)?;
        let stopwatch = Stopwatch::start(&memory.machine, "check");
        if let Err(error) = check_group(memory, group, except) {
            memory.record(stopwatch.event(Op::Remove, group.range, Err(error.errno())));
            return Err(error);
        }
    }
    Ok(())
}

fn check_group<M: Machine>(memory: &Memory<M>, group: Group, except: &[SectionRange]) -> Result<(), RemoveError> {
    if group.memmap == MemmapPlace::Boot {
        return Err(RemoveError::Boot(group.name));
    }
    let in_use = memory
        .sections
        .iter_range(group.range)
        .find(|(id, section)| section.state != BlockState::Offline && !except.iter().any(|range| range.contains(*id)));
    in_use.map_or(Ok(()), |(id, _)| Err(RemoveError::NotOffline(id)))?;
    memory.pass(Point::RemoveBegin).map_err(RemoveError::Injected)
}

/// Cannot fail.
fn forget_all<M: Machine>(memory: &Memory<M>, names: &[GroupName]) {
    // A name that stands there twice is gone the second time.
    for (id, group) in names.iter().filter_map(|name| memory.find_group(*name)) {
        let stopwatch = Stopwatch::start(&memory.machine, "withdraw");
        forget(memory, id, group, &stopwatch);
        memory.record(stopwatch.event(Op::Remove, group.range, Ok(())));
    }
}

fn forget<M: Machine>(memory: &Memory<M>, id: GroupId, group: Group, stopwatch: &Stopwatch<'_, M>) {
    poison::forget_poison(memory, group.range);
    transition::forget(memory, group.range);
    stopwatch.enter("memmap");
    if group.memmap == MemmapPlace::System {
        for section in group.range.iter() {
            system_memmap::release_memmap(memory, section, MEMMAP_PAGES);
        }
    }
    stopwatch.enter("unmap");
    batch::unmap_parts(memory, group.range, usize::MAX);
    // Last: whoever finds no group any more may take the memory out of the machine.
    memory.groups.lock().remove(id);
}
