//! The verbs of the memory subsystem that hotplug uses, so that its decisions can be tested without a machine.

use crate::memory::{self, Kernel};
use crate::pace::{OFFLINE_WITHIN, SteadyPace, TaskPace};
use crate::{task, time};
use alloc::vec::Vec;
use mm::Memory;
use mm::addr::SectionRange;
use mm::hotplug::zone_choice::Remark;
use mm::hotplug::{AddError, AddRequest, OfflineError, OnlineError, RemoveError, UnplugError};
use mm::record::policy::{AutoOnline, OnlineAs};
use mm::section::group::{Group, GroupName};
use mm::section::state::BlockState;
use mm::section::word::Section;

/// Other tasks may change a block between the look at it and the verb; looking again this often is enough, because
/// each time another task got on with its work.
const ATTEMPTS: usize = 8;

/// Memory blocks and what can be done with them.
pub(super) trait Blocks {
    /// What exists of `range`, lowest first.
    fn known(&self, range: SectionRange) -> Vec<SectionRange>;
    fn groups(&self) -> Vec<Group>;
    fn auto_online(&self) -> AutoOnline;
    fn add(&mut self, request: &AddRequest) -> Result<(), AddError>;
    fn online(&mut self, range: SectionRange, how: OnlineAs) -> Result<Option<Remark>, OnlineError>;
    /// Takes the blocks of these groups offline, all or none, and forgets the groups.
    fn unplug(&mut self, names: &[GroupName]) -> Result<(), UnplugError>;
}

/// The blocks of this machine.
pub(super) struct KernelBlocks {
    memory: &'static Memory<Kernel>,
}

impl KernelBlocks {
    pub(super) fn new() -> Self {
        Self { memory: memory::mm() }
    }

    /// The runs of online blocks of these groups, lowest first.
    fn online_runs(&self, names: &[GroupName]) -> Vec<SectionRange> {
        let mut ranges: Vec<SectionRange> =
            names.iter().filter_map(|name| self.memory.find_group(*name)).map(|(_, group)| group.window).collect();
        ranges.sort_unstable_by_key(|range| range.first());
        let runs = ranges.into_iter().flat_map(|range| self.memory.runs(range));
        let is_online = |section: Option<Section>| section.is_some_and(|it| matches!(it.state, BlockState::Online(_)));
        SectionRange::merged(runs.filter(|(_, section)| is_online(*section)).map(|(run, _)| run)).collect()
    }
}

/// What exists of `range` on this machine, lowest first.
pub(super) fn known(range: SectionRange) -> Vec<SectionRange> {
    let runs = memory::mm().runs(range).filter(|(_, section)| section.is_some());
    SectionRange::merged(runs.map(|(run, _)| run)).collect()
}

impl Blocks for KernelBlocks {
    fn known(&self, range: SectionRange) -> Vec<SectionRange> {
        known(range)
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::with_capacity(mm::limits::GROUP_LIMIT);
        self.memory.for_each_group(|_, group| groups.push(group));
        groups.sort_unstable_by_key(|group| group.window.first());
        groups
    }

    fn auto_online(&self) -> AutoOnline {
        self.memory.policy().auto_online
    }

    fn add(&mut self, request: &AddRequest) -> Result<(), AddError> {
        self.memory.add(request, &mut SteadyPace).map(drop)
    }

    fn online(&mut self, range: SectionRange, how: OnlineAs) -> Result<Option<Remark>, OnlineError> {
        self.memory.online(&[range], how, &mut SteadyPace)
    }

    fn unplug(&mut self, names: &[GroupName]) -> Result<(), UnplugError> {
        let pace = &mut TaskPace::until(time::deadline_after(OFFLINE_WITHIN));
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            let there: Vec<GroupName> =
                names.iter().copied().filter(|name| self.memory.find_group(*name).is_some()).collect();
            let online = self.online_runs(&there);
            result = self.memory.unplug(&there, &online, pace);
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
