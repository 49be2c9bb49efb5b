//! Which blocks there are to work on.

use super::dice::Dice;
use crate::memory::mm;
use crate::sources::dimm::{self, Why};
use crate::sources::{self, ProbeError};
use alloc::vec::Vec;
use mm::addr::{SECTION_SIZE, SectionRange};
use mm::section::group::{Group, GroupKind};
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use mm::section::word::Section;

/// Blocks that one operation works on, at most.
const BLOCKS: u64 = 4;

/// Blocks of free boot memory that stay in Normal zones when one goes offline.
const KEPT_BLOCKS: u64 = 2;

/// Some blocks in a row with equal words, and what is known.
pub(super) fn pick(dice: &mut Dice, wanted: impl Fn(BlockState) -> bool) -> Option<(SectionRange, Section)> {
    let runs = || mm().block_runs().filter(|(_, section)| wanted(section.state));
    let count: u64 = runs().map(|(run, _)| run.count()).sum();
    if count == 0 {
        return None;
    }
    let mut skipped = dice.below(count);
    let length = 1 + dice.below(BLOCKS);
    // Others change blocks all the time: there may be fewer now.
    for (run, section) in runs() {
        if skipped < run.count() {
            let first = u64::from(run.first().number()) + skipped;
            let range = SectionRange::new(first, length.min(run.count() - skipped))?;
            return Some((range, section));
        }
        skipped -= run.count();
    }
    None
}

/// Whether the kernel can do without these blocks of boot memory for a while.
pub(super) fn kernel_can_spare(range: SectionRange) -> bool {
    let mut free = 0;
    mm().for_each_zone(|zone| {
        if zone.kind == ZoneKind::Normal {
            free += zone.free_boot;
        }
    });
    free >= (range.count() + KEPT_BLOCKS) * SECTION_SIZE
}

pub(super) fn is_online(state: BlockState) -> bool {
    matches!(state, BlockState::Online(_))
}

/// What is online of a range, lowest first.
pub(super) fn online_parts(range: SectionRange) -> Vec<SectionRange> {
    let runs = mm().runs(range).filter(|(_, section)| section.is_some_and(|section| is_online(section.state)));
    SectionRange::merged(runs.map(|(run, _)| run)).collect()
}

/// Whether all of it is offline.
pub(super) fn is_offline(range: SectionRange) -> bool {
    mm().runs(range).all(|(_, section)| section.is_some_and(|section| section.state == BlockState::Offline))
}

/// Groups that did not come with the machine, and whose size is not the host's to change.
pub(super) fn added_groups() -> Vec<Group> {
    let mut count = 0;
    mm().for_each_group(|_, _| count += 1);
    // Nothing may be allocated while the groups are looked at.
    let mut groups = Vec::with_capacity(count);
    mm().for_each_group(|_, group| {
        let is_added = !matches!(group.name.kind, GroupKind::Boot | GroupKind::VirtioMem);
        if is_added && groups.len() < groups.capacity() {
            groups.push(group);
        }
    });
    groups
}

/// Some of what the machine backs and nobody has added: mostly all that lies together.
pub(super) fn pick_missing(dice: &mut Dice) -> Option<SectionRange> {
    let missing = dimm::leftovers().into_iter().filter(|leftover| leftover.why == Why::NotAdded);
    let missing: Vec<_> = missing.filter_map(|it| SectionRange::inside(it.start, it.start + it.len)).collect();
    let whole = dice.pick(&missing)?;
    if !dice.once_in(4) {
        return Some(whole);
    }
    let skipped = dice.below(whole.count());
    let count = 1 + dice.below(whole.count() - skipped);
    SectionRange::new(u64::from(whole.first().number()) + skipped, count)
}

/// Adds memory by hand.
pub(super) fn probe(range: SectionRange) -> Result<(), ProbeError> {
    sources::probe(range.first().address(), Some(range.size_bytes()))
}
