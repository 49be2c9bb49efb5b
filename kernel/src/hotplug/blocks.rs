//! The verbs of the memory subsystem that hotplug uses, so that its decisions can be tested without a machine.

use crate::memory::{self, Kernel};
use crate::task;
use alloc::vec::Vec;
use mm::Memory;
use mm::addr::{SectionId, SectionRange};
use mm::group::{Group, GroupId, GroupName};
use mm::hotplug::{AddError, AddRequest, OfflineError, OnlineError, RemoveError, UnplugError};
use mm::machine::{Pace, Stop};
use mm::policy::{AutoOnline, OnlineAs};
use mm::section::{BlockState, ZoneKind};

/// Somebody else may change a block between the look at it and the verb; looking again this often is enough, because
/// each time somebody else got on with his work.
const ATTEMPTS: usize = 8;

/// Memory blocks and what can be done with them.
pub(super) trait Blocks {
    fn exists(&self, id: SectionId) -> bool;
    fn groups(&self) -> Vec<Group>;
    fn auto_online(&self) -> AutoOnline;
    fn add(&mut self, request: &AddRequest) -> Result<(), AddError>;
    fn online(&mut self, range: SectionRange, how: OnlineAs) -> Result<(), OnlineError>;
    /// Takes the blocks of these groups offline, all or none, and forgets the groups.
    fn unplug(&mut self, names: &[GroupName]) -> Result<(), UnplugError>;
}

/// The blocks of this machine.
pub(super) struct KernelBlocks {
    memory: &'static Memory<Kernel>,
    pace: KernelPace,
}

/// Whether others may run between two steps.
enum KernelPace {
    /// There is nobody else yet.
    Boot,
    Task,
}

impl Pace for KernelPace {
    fn pause(&mut self) -> Result<(), Stop> {
        if let Self::Task = self {
            task::yield_now();
        }
        Ok(())
    }
}

impl KernelBlocks {
    pub(super) fn boot() -> Self {
        Self { memory: memory::mm(), pace: KernelPace::Boot }
    }

    pub(super) fn task() -> Self {
        Self { memory: memory::mm(), pace: KernelPace::Task }
    }

    /// Takes groups away whose blocks, online and off, are as `online` says.
    fn unplug_all(
        &mut self,
        groups: &[(GroupId, Group)],
        online: &[(SectionRange, ZoneKind)],
    ) -> Result<(), UnplugError> {
        let ranges: Vec<SectionRange> = online.iter().map(|(range, _)| *range).collect();
        if let [(id, _)] = groups {
            return self.memory.unplug(*id, &ranges, &mut self.pace);
        }
        if !ranges.is_empty() {
            self.memory.offline(&ranges, &mut self.pace).map_err(UnplugError::Offline)?;
        }
        for (done, (id, _)) in groups.iter().enumerate() {
            if let Err(error) = self.memory.remove(*id) {
                self.put_back(&groups[..done], online);
                return Err(UnplugError::Remove(error));
            }
        }
        Ok(())
    }

    /// Adds removed groups again and brings what was online back.
    fn put_back(&mut self, removed: &[(GroupId, Group)], online: &[(SectionRange, ZoneKind)]) {
        for (_, Group { name, range, node, .. }) in removed.iter().copied() {
            if let Err(error) = self.memory.add(&AddRequest { range, node, name }, &mut self.pace) {
                log::error!(target: "dimm", "{name}: could not be put back: {error}");
            }
        }
        for (range, zone) in online {
            if let Err(error) = self.memory.online(&[*range], OnlineAs::Zone(*zone), &mut self.pace) {
                log::error!(target: "dimm", "blocks {}-{} stay offline: {error}", range.first(), range.last());
            }
        }
    }

    /// The runs of online blocks of one zone, lowest first.
    fn online_runs(&self, groups: &[(GroupId, Group)]) -> Vec<(SectionRange, ZoneKind)> {
        let mut ids: Vec<SectionId> = groups.iter().flat_map(|(_, group)| group.range.iter()).collect();
        ids.sort_unstable();
        let mut runs: Vec<(SectionRange, ZoneKind)> = Vec::new();
        for id in ids {
            let Some(BlockState::Online(zone)) = self.memory.section(id).map(|section| section.state) else { continue };
            match runs.last_mut().filter(|(run, kind)| *kind == zone && run.last().number() + 1 == id.number()) {
                Some((run, _)) => {
                    *run = SectionRange::new(run.first().number().into(), run.count() + 1).expect("its blocks exist");
                }
                None => runs.push((SectionRange::single(id), zone)),
            }
        }
        runs
    }
}

impl Blocks for KernelBlocks {
    fn exists(&self, id: SectionId) -> bool {
        self.memory.section(id).is_some()
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::with_capacity(mm::group::GROUP_LIMIT);
        self.memory.for_each_group(|_, group| groups.push(group));
        groups.sort_unstable_by_key(|group| group.range.first());
        groups
    }

    fn auto_online(&self) -> AutoOnline {
        self.memory.policy().auto_online
    }

    fn add(&mut self, request: &AddRequest) -> Result<(), AddError> {
        self.memory.add(request, &mut self.pace).map(drop)
    }

    fn online(&mut self, range: SectionRange, how: OnlineAs) -> Result<(), OnlineError> {
        self.memory.online(&[range], how, &mut self.pace)
    }

    fn unplug(&mut self, names: &[GroupName]) -> Result<(), UnplugError> {
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            let groups: Vec<(GroupId, Group)> = names.iter().filter_map(|name| self.memory.find_group(*name)).collect();
            if groups.is_empty() {
                return Ok(());
            }
            let online = self.online_runs(&groups);
            result = self.unplug_all(&groups, &online);
            match result {
                Err(
                    UnplugError::Remove(RemoveError::Absent | RemoveError::NotOffline(_))
                    | UnplugError::Offline(OfflineError::NotOnline { .. } | OfflineError::Absent(_)),
                ) => task::yield_now(),
                _ => break,
            }
        }
        result
    }
}
