//! Remove: a group's memory is forgotten, and everything that adding it took is given back.

use super::batch::hull;
use super::offline::OfflineError;
use super::steps;
use crate::addr::{Pfn, SectionId, SectionRange};
use crate::errno::Errno;
use crate::hotplug::offline;
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::plural::Plural;
use crate::range_guard::RangeGuard;
use crate::record::journal::{Op, Stopwatch};
use crate::section::group::{Group, GroupId, GroupName, Ready};
use crate::section::state::BlockState;
use crate::section::word::Section;
use crate::{poison, range_guard};

/// Why a group could not be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such group.
    #[error("there is no such group")]
    Absent,
    /// There is no such block.
    #[error("there is no block {0}")]
    NoBlock(SectionId),
    /// The range is not made of whole units of the group.
    #[error("the range is not made of whole units of {}", Plural(*unit, "block"))]
    BadUnit {
        /// Blocks of a unit.
        unit: u64,
    },
    /// A frame of device memory is taken.
    #[error("{0} is in use")]
    InUse(Pfn),
    /// Memory that was there at boot stays.
    #[error("{0} is boot memory, which cannot be removed")]
    Boot(GroupName),
    /// A block of the group is in use.
    #[error("block {0} is not offline")]
    NotOffline(SectionId),
    /// A failure was injected.
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
            Self::Absent | Self::NoBlock(_) => Errno::NoEntry,
            Self::Boot(_) | Self::BadUnit { .. } => Errno::Invalid,
            Self::NotOffline(_) | Self::InUse(_) => Errno::Busy,
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

    /// Forgets whole units of a group's window, all of them offline.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing has changed then.
    pub fn remove_from_group(&self, id: GroupId, range: SectionRange, pace: &mut dyn Pace) -> Result<(), RemoveError> {
        let _alone = range_guard::lock_range(self, range, pace).map_err(RemoveError::Stopped)?;
        let group = self.group(id).ok_or(RemoveError::Absent)?;
        if !group.is_removable() {
            return Err(RemoveError::Boot(group.name));
        }
        let unit = group.terms.unit;
        if !group.window.covers(range) || !range.is_whole(unit) && range != group.window {
            return Err(RemoveError::BadUnit { unit });
        }
        let stopwatch = Stopwatch::start(&self.machine, "check");
        let missing = range.iter().find(|id| self.sections.get(*id).is_none());
        let result = missing.map_or(Ok(()), |id| Err(RemoveError::NoBlock(id)));
        let result = result.and_then(|()| check_offline(self, range, &[]));
        let result = result.and_then(|()| self.check_injected(Point::RemoveBegin).map_err(RemoveError::Injected));
        if result.is_ok() {
            stopwatch.enter("withdraw");
            forget(self, id, &group, range, &stopwatch);
        }
        self.journal.lock().record(stopwatch.event(Op::Remove, range, result.map_err(RemoveError::errno)));
        result
    }

    /// Takes a whole device away: the online blocks of its groups, which `online` names lowest first, go offline, all or
    /// none, and then the groups are forgotten.
    ///
    /// # Errors
    /// See [`UnplugError`]; every block is as it was then.
    pub fn unplug(&self, names: &[GroupName], online: &[SectionRange], pace: &mut dyn Pace) -> Result<(), UnplugError> {
        let _alone = lock_groups(self, names, online, pace).map_err(UnplugError::Remove)?;
        check_theirs(self, names, online).map_err(UnplugError::Remove)?;
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
        hull = Some(hull.map_or(group.window, |hull| hull.hull(group.window)));
    }
    Ok(hull)
}

/// The blocks that go offline are looked for before the groups are locked, and may be others' by now.
fn check_theirs<M: Machine>(
    memory: &Memory<M>,
    names: &[GroupName],
    online: &[SectionRange],
) -> Result<(), RemoveError> {
    let is_theirs = |section: Section| memory.group(section.group).is_some_and(|group| names.contains(&group.name));
    let stranger = memory.sections.present_runs(online).find(|(_, section)| !is_theirs(*section));
    stranger.map_or(Ok(()), |(run, _)| Err(RemoveError::NoBlock(run.first())))
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
            memory.journal.lock().record(stopwatch.event(Op::Remove, group.window, Err(error.errno())));
            return Err(error);
        }
    }
    Ok(())
}

fn check_group<M: Machine>(memory: &Memory<M>, group: Group, except: &[SectionRange]) -> Result<(), RemoveError> {
    if !group.is_removable() {
        return Err(RemoveError::Boot(group.name));
    }
    check_offline(memory, group.window, except)?;
    memory.check_injected(Point::RemoveBegin).map_err(RemoveError::Injected)
}

fn check_offline<M: Machine>(
    memory: &Memory<M>,
    range: SectionRange,
    except: &[SectionRange],
) -> Result<(), RemoveError> {
    let is_excepted = |id: &SectionId| except.iter().any(|range| range.contains(*id));
    for (run, section) in memory.sections.runs(range) {
        if section.is_some_and(|section| section.state != BlockState::Offline)
            && let Some(id) = run.iter().find(|id| !is_excepted(id))
        {
            return Err(RemoveError::NotOffline(id));
        }
    }
    Ok(())
}

/// Cannot fail.
fn forget_all<M: Machine>(memory: &Memory<M>, names: &[GroupName]) {
    // A name that stands there twice is gone the second time.
    for (id, group) in names.iter().filter_map(|name| memory.find_group(*name)) {
        let stopwatch = Stopwatch::start(&memory.machine, "withdraw");
        let mut rest = Some(group.window);
        while let Some(range) = rest {
            let (run, is_there) = memory.sections.first_presence(range);
            if is_there {
                forget(memory, id, &group, run, &stopwatch);
            }
            rest = range.behind(run);
        }
        // Last: whoever finds no group any more may take the memory out of the machine.
        steps::forget_group(memory, id);
        memory.journal.lock().record(stopwatch.event(Op::Remove, group.window, Ok(())));
    }
}

/// Forgets sections, all of them offline.
fn forget<M: Machine>(
    memory: &Memory<M>,
    id: GroupId,
    group: &Group,
    range: SectionRange,
    stopwatch: &Stopwatch<'_, M>,
) {
    poison::forget_poison(memory, range);
    steps::forget(memory, id, range);
    stopwatch.enter("unmap");
    if group.terms.ready == Ready::AtAdd {
        steps::units_to_add(group, range).for_each(|unit| steps::make_unready(memory, unit));
    }
}
