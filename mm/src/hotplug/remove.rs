//! Remove: a group's memory is forgotten, and everything that adding it took is given back.

use super::OfflineError;
use crate::addr::{Order, SectionId, SectionRange};
use crate::errno::Errno;
use crate::group::{Group, GroupId, GroupName};
use crate::inject::{Injected, Point};
use crate::journal::{Op, Stopwatch};
use crate::machine::{MEMMAP_PAGES, Machine, Pace};
use crate::memory::Memory;
use crate::section::{BlockState, MemmapPlace};

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
    /// Forgets a group, all of whose blocks are offline.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing has changed then.
    pub fn remove(&self, id: GroupId) -> Result<(), RemoveError> {
        let _order = self.hotplug.lock();
        let mut stopwatch = Stopwatch::start(&self.machine);
        let group = self.group(id).ok_or(RemoveError::Absent)?;
        let result = self.check_removable(group).and_then(|()| self.check_all_offline(group.range));
        stopwatch.lap("check");
        if result.is_ok() {
            self.forget(id, group, &mut stopwatch);
        }
        self.record(stopwatch.event(Op::Remove, group.range, result.map_err(RemoveError::errno)));
        result
    }

    /// Takes a whole device away: its online blocks, which `online` names lowest first, go offline, all or none, and
    /// then the group is forgotten.
    ///
    /// # Errors
    /// See [`UnplugError`]; every block is as it was then.
    pub fn unplug(&self, id: GroupId, online: &[SectionRange], pace: &mut dyn Pace) -> Result<(), UnplugError> {
        let _order = self.hotplug.lock();
        let group = self.group(id).ok_or(UnplugError::Remove(RemoveError::Absent))?;
        // Whatever can refuse the removal is asked before the first block goes offline.
        let mut stopwatch = Stopwatch::start(&self.machine);
        let check = self.check_removable(group).and_then(|()| self.check_others_offline(group.range, online));
        stopwatch.lap("check");
        if let Err(error) = check {
            self.record(stopwatch.event(Op::Remove, group.range, Err(error.errno())));
            return Err(UnplugError::Remove(error));
        }
        if !online.is_empty() {
            self.offline_locked(online, pace).map_err(UnplugError::Offline)?;
        }
        let mut stopwatch = Stopwatch::start(&self.machine);
        self.forget(id, group, &mut stopwatch);
        self.record(stopwatch.event(Op::Remove, group.range, Ok(())));
        Ok(())
    }

    fn check_removable(&self, group: Group) -> Result<(), RemoveError> {
        if group.memmap == MemmapPlace::Boot {
            return Err(RemoveError::Boot(group.name));
        }
        self.pass(Point::RemoveBegin).map_err(RemoveError::Injected)
    }

    fn check_all_offline(&self, range: SectionRange) -> Result<(), RemoveError> {
        self.check_others_offline(range, &[])
    }

    fn check_others_offline(&self, range: SectionRange, except: &[SectionRange]) -> Result<(), RemoveError> {
        let in_use = self.sections.iter_range(range).find(|(id, section)| {
            section.state != BlockState::Offline && !except.iter().any(|range| range.contains(*id))
        });
        in_use.map_or(Ok(()), |(id, _)| Err(RemoveError::NotOffline(id)))
    }

    /// Cannot fail.
    fn forget(&self, id: GroupId, group: Group, stopwatch: &mut Stopwatch<'_, M>) {
        for section in group.range.iter() {
            self.sections.clear(section);
        }
        self.groups.lock().remove(id);
        stopwatch.lap("withdraw");
        if group.memmap == MemmapPlace::System {
            for section in group.range.iter() {
                for index in 0..MEMMAP_PAGES {
                    let frame = self.machine.unmap_memmap(section, index);
                    self.free(frame, Order::PAGE);
                }
            }
        }
        stopwatch.lap("memmap");
        self.machine.unmap_range(group.range);
        stopwatch.lap("unmap");
    }
}
