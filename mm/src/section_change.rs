//! Changes of the words of sections, with the counters that go with each: the only file that writes them.
//!
//! The caller holds the range of the section, or where it is said the lock of its zone, or both.

use crate::addr::{SectionId, SectionRange};
use crate::frame::pageblock_set::PageblockSet;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::group::Ready;
use crate::section::kind::{Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::zone::Zone;
use core::sync::atomic::Ordering;

/// The first and the last section of a zone.
type Span = Option<(SectionId, SectionId)>;

/// Makes absent sections known as `section`, with `withheld` pageblocks in each.
pub(crate) fn make_known<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section, withheld: PageblockSet) {
    if withheld != PageblockSet::EMPTY {
        run.iter().for_each(|id| set_withheld(memory, id, withheld));
    }
    memory.sections.set_all(run, section);
}

/// Makes sections, which are offline or a device's, absent.
pub(crate) fn forget<M: Machine>(memory: &Memory<M>, run: SectionRange) {
    // What is withheld of these sections was counted under the range that the caller holds.
    if memory.withheld_count.load(Ordering::Relaxed) > 0 {
        run.iter().for_each(|id| set_withheld(memory, id, PageblockSet::EMPTY));
    }
    memory.sections.clear_all(run);
}

/// Says whether the memory of offline sections is accessible and mapped.
pub(crate) fn set_ready<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section, ready: bool) {
    memory.sections.set_all(run, Section { ready, ..section });
}

/// Sends sections that are offline to a zone.
pub(crate) fn begin_online<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section, zone: ZoneKind) {
    tally(memory, run, section, Some(zone));
    let going = Section { state: BlockState::GoingOnline(zone), ..section };
    memory.sections.set_all(run, going);
    expect(memory, run, going);
}

/// Counts sections as on their way into their zone. Only of Movable zones does anybody ask.
pub(crate) fn expect<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section) {
    if section.state == BlockState::GoingOnline(ZoneKind::Movable) {
        memory.zones.lock(section.node, ZoneKind::Movable).expect(run, section);
    }
}

/// Undoes [`begin_online`].
pub(crate) fn cancel_online<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section) {
    if section.state == BlockState::GoingOnline(ZoneKind::Movable) {
        memory.zones.lock(section.node, ZoneKind::Movable).give_up(run, section);
    }
    tally(memory, run, section, None);
    memory.sections.set_all(run, Section { state: BlockState::Offline, ..section });
}

/// Puts sections that are going online into their zone, whose lock the caller holds: what they are then.
pub(crate) fn enter<M: Machine>(memory: &Memory<M>, zone: &mut Zone, run: SectionRange, section: Section) -> Section {
    let kind = section.state.zone().expect("a block that goes online has a zone");
    if kind == ZoneKind::Movable {
        zone.give_up(run, section);
    }
    let openness = match section.origin {
        _ if section.opens_at_once() => Openness::Open,
        // It is never removed, so this is its other chance to be opened.
        Origin::Boot => Openness::Untouched,
        Origin::Added => section.openness,
    };
    let online = Section { state: BlockState::Online(kind), openness, ..section };
    grow(memory, zone, run, online, kind);
    memory.sections.set_all(run, online);
    online
}

/// Counts a part of a section that is in two zones into one of them, whose lock the caller holds.
pub(crate) fn enter_in_part<M: Machine>(
    memory: &Memory<M>,
    zone: &mut Zone,
    id: SectionId,
    part: Section,
    kind: ZoneKind,
) {
    grow(memory, zone, SectionRange::single(id), part, kind);
}

/// Takes sections on their way out, or lets them stay after all. The caller holds the lock of their zone.
pub(crate) fn set_leaving<M: Machine>(
    memory: &Memory<M>,
    run: SectionRange,
    section: Section,
    kind: ZoneKind,
    leaves: bool,
) {
    let state = if leaves { BlockState::GoingOffline(kind) } else { BlockState::Online(kind) };
    memory.sections.set_all(run, Section { state, ..section });
}

/// Takes sections out of their zone, whose lock the caller holds and which spans `span` then: they are offline.
pub(crate) fn leave<M: Machine>(
    memory: &Memory<M>,
    zone: &mut Zone,
    run: SectionRange,
    section: Section,
    kind: ZoneKind,
    span: Span,
) {
    shrink(memory, zone, run, section, kind, span);
    let openness = if section.is_withheld() { Openness::Withheld } else { Openness::Untouched };
    memory.sections.set_all(run, Section { state: BlockState::Offline, openness, ..section });
}

/// Takes sections from a zone, which spans `span` then, to the other of their node; the caller holds both locks. What they are
/// then.
pub(crate) fn cross<M: Machine>(
    memory: &Memory<M>,
    [from, to]: [&mut Zone; 2],
    run: SectionRange,
    section: Section,
    kind: ZoneKind,
    span: Span,
) -> Section {
    let crossed = Section { state: BlockState::Online(kind), ..section };
    shrink(memory, from, run, section, kind.other(), span);
    grow(memory, to, run, crossed, kind);
    memory.sections.set_all(run, crossed);
    crossed
}

/// Begins to open an untouched section; the caller holds the lock of its zone. What it is then.
pub(crate) fn begin_opening<M: Machine>(
    memory: &Memory<M>,
    zone: &mut Zone,
    id: SectionId,
    section: Section,
) -> Section {
    let section = set_openness(memory, SectionRange::single(id), section, Openness::Changing);
    zone.take_untouched(SectionRange::single(id), section);
    zone.begin_changing(section);
    section
}

/// Ends that: its struct pages tell of its frames.
pub(crate) fn end_opening<M: Machine>(memory: &Memory<M>, zone: &mut Zone, id: SectionId, section: Section) {
    set_openness(memory, SectionRange::single(id), section, Openness::Open);
    zone.end_changing(section);
}

/// Ends that for a section which cannot have struct pages: it stays in its zone without anything that can be had.
pub(crate) fn fail_opening<M: Machine>(
    memory: &Memory<M>,
    zone: &mut Zone,
    id: SectionId,
    section: Section,
    kind: ZoneKind,
) {
    set_openness(memory, SectionRange::single(id), section, Openness::Withheld);
    memory.zones.managed_of(kind, section.origin).fetch_sub(section.usable(), Ordering::Relaxed);
    zone.withhold(section);
}

/// Begins to close a section that holds nothing; the caller holds the lock of its zone.
pub(crate) fn begin_closing<M: Machine>(memory: &Memory<M>, zone: &mut Zone, id: SectionId, section: Section) {
    zone.begin_changing(section);
    set_openness(memory, SectionRange::single(id), section, Openness::Changing);
}

/// Ends that: it is untouched.
pub(crate) fn end_closing<M: Machine>(memory: &Memory<M>, zone: &mut Zone, id: SectionId, section: Section) {
    set_openness(memory, SectionRange::single(id), section, Openness::Untouched);
    zone.end_changing(section);
    zone.put_untouched(SectionRange::single(id), section);
}

/// Says of open sections on their way out that their struct pages go; the caller holds the lock of their zone.
pub(crate) fn close_for_readers<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section) {
    set_openness(memory, run, section, Openness::Changing);
}

/// Says of an open section that some of its pageblocks are on their way out: what is freed in it goes to no cache. The caller holds
/// the lock of its zone.
pub(crate) fn begin_shrinking<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section, kind: ZoneKind) {
    memory.sections.set(id, Section { state: BlockState::Shrinking(kind), ..section });
}

/// Counts pageblocks that are free as a whole into a section, and into its zone, whose lock the caller holds.
pub(crate) fn grant<M: Machine>(
    memory: &Memory<M>,
    zone: Option<(&mut Zone, ZoneKind)>,
    id: SectionId,
    section: Section,
    set: PageblockSet,
) {
    let granted = Section { managed: section.managed + set.frames() as u16, ..section };
    if let Some((zone, kind)) = zone {
        let gained = granted.usable() - section.usable();
        zone.gain_frames(section.origin, gained);
        memory.zones.managed_of(kind, section.origin).fetch_add(gained, Ordering::Relaxed);
    }
    set_withheld(memory, id, memory.sections.withheld(id).without(set));
    memory.sections.set(id, granted);
}

/// Undoes [`grant`]; `section` is what the section is otherwise.
pub(crate) fn withhold<M: Machine>(
    memory: &Memory<M>,
    zone: Option<(&mut Zone, ZoneKind)>,
    id: SectionId,
    section: Section,
    set: PageblockSet,
) {
    let left = Section { managed: section.managed - set.frames() as u16, ..section };
    if let Some((zone, kind)) = zone {
        let lost = section.usable() - left.usable();
        zone.lose_frames(section.origin, lost);
        memory.zones.managed_of(kind, section.origin).fetch_sub(lost, Ordering::Relaxed);
    }
    set_withheld(memory, id, memory.sections.withheld(id).union(set));
    memory.sections.set(id, left);
}

fn set_withheld<M: Machine>(memory: &Memory<M>, id: SectionId, set: PageblockSet) {
    let before = memory.sections.withheld(id);
    if set != before {
        memory.withheld_count.fetch_add(set.frames().wrapping_sub(before.frames()), Ordering::Relaxed);
        memory.sections.set_withheld(id, set);
    }
}

/// Says of an offline section that it cannot have struct pages.
pub(crate) fn withhold_offline<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    set_openness(memory, SectionRange::single(id), section, Openness::Withheld);
}

/// Takes a poisoned frame of a section from what the allocator gets; the caller holds the lock of its zone, if it is in `zone`.
pub(crate) fn lose_frame<M: Machine>(
    memory: &Memory<M>,
    zone: Option<(&mut Zone, ZoneKind)>,
    id: SectionId,
    section: Section,
) {
    if let Some((zone, kind)) = zone {
        zone.lose_frames(section.origin, 1);
        memory.zones.managed_of(kind, section.origin).fetch_sub(1, Ordering::Relaxed);
    }
    memory.sections.set(id, Section { managed: section.managed - 1, poisoned: true, ..section });
    memory.poisoned_count.fetch_add(1, Ordering::Relaxed);
}

/// Says of an offline section that its memory has no errors any more.
pub(crate) fn forget_errors<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    let poisoned = memory.sections.poisoned_frames(id, section);
    memory.poisoned_count.fetch_sub(poisoned, Ordering::Relaxed);
    memory.sections.set(id, Section { managed: section.managed + poisoned as u16, poisoned: false, ..section });
}

/// Makes sections absent that have poisoned frames: those are gone.
pub(crate) fn forget_poisoned<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    memory.poisoned_count.fetch_sub(memory.sections.poisoned_frames(id, section), Ordering::Relaxed);
    forget(memory, SectionRange::single(id));
}

/// Says whether frames of a section are faulty; the caller holds the lock of its zone.
pub(crate) fn set_faulty<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section, faulty: bool) {
    memory.sections.set(id, Section { faulty, ..section });
}

fn set_openness<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section, openness: Openness) -> Section {
    let section = Section { openness, ..section };
    memory.sections.set_all(run, section);
    section
}

/// Step 4, with what the zones of that kind manage in all.
fn grow<M: Machine>(memory: &Memory<M>, zone: &mut Zone, run: SectionRange, section: Section, kind: ZoneKind) {
    zone.grow(run, section);
    memory.zones.managed_of(kind, section.origin).fetch_add(run.count() * section.usable(), Ordering::Relaxed);
}

fn shrink<M: Machine>(
    memory: &Memory<M>,
    zone: &mut Zone,
    run: SectionRange,
    section: Section,
    kind: ZoneKind,
    span: Span,
) {
    zone.shrink(run, section, span);
    memory.zones.managed_of(kind, section.origin).fetch_sub(run.count() * section.usable(), Ordering::Relaxed);
}

/// Moves sections to a zone, or to offline without one, in the tally of their group; returns when the memory of that is accessible.
pub(crate) fn tally<M: Machine>(
    memory: &Memory<M>,
    run: SectionRange,
    section: Section,
    to: Option<ZoneKind>,
) -> Option<Ready> {
    section.is_tallied().then(|| {
        let pages = run.count() * u64::from(section.present);
        memory.groups.lock().shift(section.group, pages, section.state.zone(), to)
    })
}
