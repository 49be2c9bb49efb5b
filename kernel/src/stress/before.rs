//! What was there before, so that it is there again afterwards.

use super::blocks::{added_groups, probe};
use super::trouble::Trouble;
use crate::fill;
use crate::memory::{heap_size, mm};
use crate::pace::SteadyPace;
use crate::sources::dimm;
use crate::task;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Display;
use mm::addr::{NodeId, SectionRange};
use mm::record::policy::{OnlineAs, Policy};
use mm::section::group::{Group, GroupKind};
use mm::section::kind::{MemmapPlace, ZoneKind};
use mm::section::state::BlockState;
use mm::section::word::Section;

/// Groups, the states of blocks, settings and totals, as they were.
pub(super) struct Before {
    groups: Vec<Group>,
    blocks: Vec<(SectionRange, Section)>,
    policy: Policy,
    /// What others had done by then.
    others: Others,
    /// Unless somebody was changing them.
    totals: Option<Totals>,
}

/// What others have done by now, and the totals if nobody did anything while they were counted.
fn count() -> (Others, Option<Totals>) {
    // What has ended has given back what it had.
    task::settle();
    let state = || Some((Others::now(), fill::changes()?));
    match while_steady(state, Totals::now) {
        Some(((others, _), totals)) => (others, Some(totals)),
        None => (Others::now(), None),
    }
}

/// What `count` says, and the state that it was counted in, if there was one and it was the same all the time.
fn while_steady<S: PartialEq, T>(state: impl Fn() -> Option<S>, count: impl FnOnce() -> T) -> Option<(S, T)> {
    let before = state()?;
    let counted = count();
    let is_steady = state().is_some_and(|after| after == before);
    is_steady.then_some((before, counted))
}

/// What others have done to the machine's memory: where it changes, totals do, too.
#[derive(PartialEq, Eq)]
struct Others {
    machine_events: u64,
    filled_bytes: u64,
    tasks: usize,
}

impl Others {
    fn now() -> Self {
        Self { machine_events: dimm::machine_events(), filled_bytes: fill::filled_bytes(), tasks: task::list().len() }
    }
}

struct Totals {
    zones: Vec<(NodeId, ZoneKind, u64)>,
    free: u64,
    page_tables: u64,
    heap: u64,
}

impl Totals {
    fn now() -> Self {
        let mut zones = Vec::with_capacity(NodeId::LIMIT);
        mm().for_each_zone(|zone| {
            if zones.len() < zones.capacity() {
                zones.push((zone.node, zone.kind, zone.managed));
            }
        });
        zones.shrink_to_fit();
        let memory = mm().memory_report();
        Self { zones, free: memory.free, page_tables: memory.page_tables, heap: heap_size() as u64 }
    }

    /// The heap never shrinks: what it has grown by is missing elsewhere.
    fn compare(&self, after: &Self) -> Result<(), Trouble> {
        let same = |what: &dyn Display, before: u64, after: u64| {
            if before == after { Ok(()) } else { Err(Trouble::Total { what: what.to_string(), before, after }) }
        };
        same(&"the number of zones", self.zones.len() as u64, after.zones.len() as u64)?;
        for ((node, kind, before), (_, _, after)) in self.zones.iter().zip(&after.zones) {
            same(&format!("memory managed by node {node} {kind}"), *before, *after)?;
        }
        let heap_grew = after.heap != self.heap;
        if heap_grew {
            let all = |totals: &Self| totals.free + totals.page_tables + totals.heap;
            return same(&"free memory with page tables and heap", all(self), all(after));
        }
        same(&"free memory", self.free, after.free)?;
        same(&"memory of page tables", self.page_tables, after.page_tables)
    }
}

impl Before {
    pub(super) fn now() -> Self {
        let (groups, blocks, policy) = (added_groups(), mm().block_runs().collect(), mm().policy());
        let (others, totals) = count();
        Self { groups, blocks, policy, others, totals }
    }

    /// Whether nobody else gave memory to the machine, took some, or uses it.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.others == Others::now()
    }

    /// Makes everything as it was, as far as the machine still has it. What cannot be put back is passed over; the first of
    /// it is told.
    pub(super) fn put_back(&self) -> Result<(), Trouble> {
        let mut result = self.forget_added();
        for group in &self.groups {
            result = result.and(self.add_again(group));
        }
        mm().set_policy(|policy| *policy = self.policy);
        for (range, section) in &self.blocks {
            result = result.and(change_states(*range, section.state));
        }
        result
    }

    /// Compares totals with what they were; says whether it could, because nobody else has changed them.
    pub(super) fn compare(&self) -> Result<bool, Trouble> {
        match (&self.totals, count()) {
            (Some(before), (others, Some(after))) if others == self.others => before.compare(&after).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Removes parts of DIMMs that were added by hand since.
    fn forget_added(&self) -> Result<(), Trouble> {
        let mut result = Ok(());
        for group in added_groups() {
            if group.name.kind != GroupKind::Probe || self.groups.contains(&group) {
                continue;
            }
            result = result.and(forget(&group));
        }
        result
    }

    fn add_again(&self, group: &Group) -> Result<(), Trouble> {
        if mm().find_group(group.name).is_some_and(|(_, now)| now == *group) {
            return Ok(());
        }
        // It may have been removed and added again with other settings.
        let other = mm().find_group(group.name).filter(|(_, now)| now.window == group.window);
        if let Some((_, other)) = other {
            forget(&other)?;
        }
        mm().set_policy(|policy| policy.memmap_on_memory = group.terms.memmap == MemmapPlace::Head);
        probe(group.window).map_err(|error| stuck(group.window, &error))
    }
}

/// Takes a group offline and forgets it.
fn forget(group: &Group) -> Result<(), Trouble> {
    change_states(group.window, BlockState::Offline)?;
    mm().remove(&[group.name], &mut SteadyPace).map_err(|error| stuck(group.window, &error))
}

/// Changes what there is of a range; the first trouble stops nothing.
fn change_states(range: SectionRange, wanted: BlockState) -> Result<(), Trouble> {
    let runs: Vec<_> = mm().runs(range).filter_map(|(run, section)| Some((run, section?.state))).collect();
    let changed = runs.into_iter().filter(|(_, now)| *now != wanted).map(|(run, now)| change_state(run, now, wanted));
    changed.fold(Ok(()), Result::and)
}

fn change_state(range: SectionRange, now: BlockState, wanted: BlockState) -> Result<(), Trouble> {
    if now != BlockState::Offline {
        mm().offline(&[range], &mut SteadyPace).map_err(|error| stuck(range, &error))?;
    }
    let Some(zone) = wanted.zone() else { return Ok(()) };
    mm().online(&[range], OnlineAs::Zone(zone), &mut SteadyPace).map(drop).map_err(|error| stuck(range, &error))
}

fn stuck(range: SectionRange, why: &dyn Display) -> Trouble {
    Trouble::NotPutBack { range, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn what_is_counted_while_others_change_it_counts_for_nothing() {
        fn counted(before: Option<u32>, after: Option<u32>) -> Option<u32> {
            let state = Cell::new(before);
            while_steady(|| state.get(), || state.set(after)).map(|(state, ())| state)
        }
        assert_eq!(counted(Some(7), Some(7)), Some(7));
        assert_eq!(counted(Some(7), Some(8)), None, "it has changed");
        assert_eq!(counted(Some(7), None), None, "it is changing");
        assert_eq!(counted(None, Some(7)), None, "it was changing");
    }
}
