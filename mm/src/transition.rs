//! Changes of the state of sections, with the counters that go with each.

use crate::addr::SectionRange;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::kind::ZoneKind;
use crate::section::state::BlockState;
use crate::section::word::Section;
use crate::zone::Zone;

/// Blocks, of which the same is known, go to a zone, or offline without one: their device counts them there.
pub(crate) fn shift_in_device<M: Machine>(
    memory: &Memory<M>,
    run: SectionRange,
    section: Section,
    to: Option<ZoneKind>,
) {
    if !section.is_boot() {
        let pages = run.count() * u64::from(section.present);
        memory.groups.lock().device_mut(section.group).shift(pages, section.state.zone(), to);
    }
}

/// Tells the zone that blocks are on their way into it, or are not any more. Only of Movable zones does anybody ask.
pub(super) fn change_expectation<M: Machine>(
    memory: &Memory<M>,
    run: SectionRange,
    section: Section,
    change: fn(&mut Zone, SectionRange, Section),
) {
    if section.state == BlockState::GoingOnline(ZoneKind::Movable) {
        change(&mut memory.zones.lock(section.node, ZoneKind::Movable), run, section);
    }
}
