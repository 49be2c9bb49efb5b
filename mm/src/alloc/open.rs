//! Opening a section when its frames are needed, and closing one that holds nothing any more.
//!
//! Opening claims the section under the lock of its zone, makes its struct pages with no lock held, and hands its
//! pageblocks over under the lock again. Closing is the reverse. The lowest section is opened first, so that the rest stays
//! easy to take away. A few empty sections stay open, so that memory that comes and goes does not open one each time.
//!
//! What is to hold struct pages is tried before it does. Where it cannot be trusted with them, the section is withheld instead
//! of opened, and the request goes on to the next.

use crate::addr::{NodeId, Order, PfnRange, SectionId, SectionRange};
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, MEMMAP_PAGES, Owner, PageState};
use crate::frame::pageblock::{Descriptor, FRAMES, Pageblock};
use crate::inject::Point;
use crate::limits::{SPARE_HIGH, SPARE_LOW};
use crate::machine::Machine;
use crate::machine::trial::Distrust;
use crate::memory::Memory;
use crate::range_guard;
use crate::range_guard::RangeGuard;
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::{Section, head_range, table_range};
use crate::section_change;
use crate::zone::Zone;
use heapless::Vec;

/// Sections that are closed before others may have a turn.
const CLOSED_AT_ONCE: usize = 64;

/// What a search for an untouched section found.
enum Claim {
    Section(SectionId, Section),
    /// Another CPU is just opening the last one.
    UnderWay,
    None,
}

/// A section that is being closed.
struct Closing<'a, M: Machine> {
    id: SectionId,
    /// What was known of it.
    section: Section,
    _alone: RangeGuard<'a, M>,
}

/// Opens the lowest untouched section of a zone and origin that may have a block of `order`; says whether there may be more to be had
/// than before.
pub(crate) fn open_lowest<M: Machine>(
    memory: &Memory<M>,
    node: NodeId,
    kind: ZoneKind,
    origin: Origin,
    order: Order,
) -> bool {
    match claim_lowest(memory, node, kind, origin, order) {
        Claim::Section(id, section) => {
            open_claimed(memory, id, section);
            true
        }
        Claim::UnderWay => {
            core::hint::spin_loop();
            true
        }
        Claim::None => false,
    }
}

/// Opens the lowest untouched section of a zone and origin, and waits for no other CPU that does; whether there may be more to be had
/// than before.
pub(crate) fn open_next<M: Machine>(memory: &Memory<M>, node: NodeId, kind: ZoneKind, origin: Origin) -> bool {
    let Claim::Section(id, section) = claim_lowest(memory, node, kind, origin, Order::PAGE) else { return false };
    open_claimed(memory, id, section);
    true
}

/// Opens a section if it is untouched, and waits while another CPU does.
pub(crate) fn open<M: Machine>(memory: &Memory<M>, id: SectionId) {
    let section = loop {
        match memory.sections.get(id) {
            Some(Section { state: BlockState::Online(_), openness: Openness::Changing, .. }) => {
                core::hint::spin_loop();
            }
            Some(section) => break section,
            None => return,
        }
    };
    let Some(kind) = section.state.zone() else { return };
    let claimed = memory.with_zone(section.node, kind, |zone| claim(memory, zone, id, section.node, kind));
    if let Some(section) = claimed {
        open_claimed(memory, id, section);
    }
}

fn claim_lowest<M: Machine>(memory: &Memory<M>, node: NodeId, kind: ZoneKind, origin: Origin, order: Order) -> Claim {
    loop {
        let (from, last, puts) = {
            let zone = memory.zones.lock(node, kind);
            let untouched = zone.untouched(origin);
            match (untouched.lowest, zone.span()) {
                (Some(lowest), Some((_, last))) => (lowest, last, untouched.puts),
                _ if untouched.changing > 0 => return Claim::UnderWay,
                _ => return Claim::None,
            }
        };
        // Looked for without the lock: there may be a long way of sections that are open already.
        let is_wanted = |section: &Section| is_available(*section, node, kind) && section.origin == origin;
        let available = |id: SectionId| memory.sections.get(id).filter(is_wanted);
        let Some(lowest) = SectionId::through(from, last).find(|id| available(*id).is_some()) else { continue };
        // Of one that comes in pieces there may be less than that.
        let serves = |id: &SectionId| available(*id).is_some_and(|section| u64::from(section.managed) >= order.pages());
        let Some(id) = SectionId::through(lowest, last).find(serves) else { return Claim::None };
        let claimed = memory.with_zone(node, kind, |zone| {
            let section = claim(memory, zone, id, node, kind)?;
            // One that came back since may lie between those that were looked at.
            let untouched = zone.untouched_mut(origin);
            if id == lowest && untouched.puts == puts && untouched.lowest == Some(from) {
                untouched.lowest = id.next();
            }
            Some(section)
        });
        if let Some(section) = claimed {
            return Claim::Section(id, section);
        }
    }
}

/// Makes an untouched section one that is changing.
fn claim<M: Machine>(
    memory: &Memory<M>,
    zone: &mut Zone,
    id: SectionId,
    node: NodeId,
    kind: ZoneKind,
) -> Option<Section> {
    let section = memory.sections.get(id).filter(|section| is_available(*section, node, kind))?;
    Some(section_change::begin_opening(memory, zone, id, section))
}

fn open_claimed<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    let kind = section.state.zone().expect("a section that is opened is in a zone");
    if section.poisoned {
        describe_pageblocks(memory, id, kind, |block| block.count_free(&memory.machine));
    } else if let Err(why) = make_struct_pages(memory, id, section) {
        withhold(memory, id, section);
        memory.machine.note_withheld(id, why);
        return;
    } else {
        let (head, withheld) = (head_range(id, section), memory.sections.withheld(id));
        describe_pageblocks(memory, id, kind, |block| {
            if withheld.contains(block.index()) { 0 } else { FRAMES - block.pages().intersection(head).len() }
        });
    }
    memory.with_zone(section.node, kind, |zone| {
        section_change::end_opening(memory, zone, id, section);
        zone.area_mut(section.origin).admit(&memory.machine, id);
    });
}

/// Makes the struct pages of a section that has none: all of it is free but its head and what is withheld.
///
/// # Errors
/// Its head cannot be trusted with them; it has none then.
pub(crate) fn make_struct_pages<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
) -> Result<(), Distrust> {
    map_own_memmap(memory, id, section)?;
    memory.machine.clear(id.pages());
    let (head, tables) = (head_range(id, section), table_range(id, section));
    let memmap = PfnRange::new(tables.end(), head.len() - tables.len());
    for (frames, owner) in [(tables, Owner::PageTable), (memmap, Owner::Memmap)] {
        frames.iter().for_each(|pfn| memory.machine.page(pfn).set_head(Head::single(PageState::Memmap, owner)));
    }
    let holds_head = |block: &Pageblock| block.first() < head.end();
    Pageblock::of_section(id).take_while(holds_head).for_each(|block| block.reserve(&memory.machine, head));
    memory.sections.withheld(id).iter().for_each(|n| Pageblock::nth(id, n).mark_all_used(&memory.machine));
    Ok(())
}

/// Leaves a section that was to be opened in its zone, without anything that can be had.
fn withhold<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    let kind = section.state.zone().expect("a section that is opened is in a zone");
    memory.with_zone(section.node, kind, |zone| {
        section_change::fail_opening(memory, zone, id, section, kind);
    });
}

/// Writes what there is to know of the pageblocks of a section, each of which has as many `managed` frames.
pub(crate) fn describe_pageblocks<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    kind: ZoneKind,
    managed: impl Fn(Pageblock) -> u64,
) {
    Pageblock::of_section(id).for_each(|block| describe_pageblock(memory, block, kind, managed(block)));
}

pub(crate) fn describe_pageblock<M: Machine>(memory: &Memory<M>, block: Pageblock, kind: ZoneKind, managed: u64) {
    // One that can never be free as a whole is where the kernel does least harm.
    let mobility = match kind {
        ZoneKind::Normal if managed < FRAMES => Mobility::Unmovable,
        _ => Mobility::Movable,
    };
    block.set(&memory.machine, Descriptor::unlisted(managed, mobility));
}

pub(crate) fn close_spare<M: Machine>(memory: &Memory<M>, node: NodeId, kind: ZoneKind) {
    if memory.zones.lock(node, kind).empty_sections() <= SPARE_HIGH {
        return;
    }
    let mut closing = Vec::<_, CLOSED_AT_ONCE>::new();
    while !closing.is_full()
        && let Some(next) = begin_close(memory, node, kind)
    {
        assert!(closing.push(next).is_ok(), "there is room");
    }
    if closing.is_empty() {
        return;
    }
    memory.machine.wait_for_readers();
    closing.iter().for_each(|closing| discard_struct_pages(memory, closing.id, closing.section));
    memory.machine.settle_memmaps();
    closing.iter().for_each(|closing| finish_close(memory, closing, node, kind));
    if closing.is_full() {
        memory.machine.wake_keeper();
    }
}

/// Takes the section that has been empty for longest from the allocator. An operation on it is not disturbed: if it leaves
/// the section where it is, the keeper is called again.
fn begin_close<M: Machine>(memory: &Memory<M>, node: NodeId, kind: ZoneKind) -> Option<Closing<'_, M>> {
    let longest_empty = |zone: &Zone| zone.area(zone.emptier_origin()).longest_empty();
    let candidate = longest_empty(&memory.zones.lock(node, kind))?;
    let alone = range_guard::try_lock_range(memory, SectionRange::single(candidate))?;
    let section = memory.with_zone(node, kind, |zone| {
        let id = longest_empty(zone).filter(|id| zone.empty_sections() > SPARE_LOW && *id == candidate)?;
        let section = memory.sections.get(id).filter(|section| section.state == BlockState::Online(kind))?;
        let area = zone.area_mut(section.origin);
        area.isolate(&memory.machine, id);
        area.retire(&memory.machine, id);
        section_change::begin_closing(memory, zone, id, section);
        Some(section)
    })?;
    Some(Closing { id: candidate, section, _alone: alone })
}

/// Its struct pages are gone.
fn finish_close<M: Machine>(memory: &Memory<M>, closing: &Closing<'_, M>, node: NodeId, kind: ZoneKind) {
    let Closing { id, section, .. } = *closing;
    memory.with_zone(node, kind, |zone| {
        section_change::end_closing(memory, zone, id, section);
    });
}

/// Maps the struct pages that lie at the head of a section, if that can be trusted with them.
fn map_own_memmap<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) -> Result<(), Distrust> {
    memory.check_injected(Point::AllocOpen).map_err(Distrust::Injected)?;
    if section.memmap == MemmapPlace::Head {
        let backing = PfnRange::new(table_range(id, section).end(), MEMMAP_PAGES);
        memory.machine.try_frames(backing).map_err(Distrust::BadMemory)?;
        memory.machine.map_memmap(id, backing).map_err(Distrust::BadMemory)?;
    }
    Ok(())
}

/// Unmaps the struct pages of a section that is not in use any more, unless they tell what somebody will want to know.
pub(crate) fn discard_struct_pages<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    if !section.poisoned {
        unmap_own_memmap(memory, id, section);
    }
}

pub(crate) fn unmap_own_memmap<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) {
    if section.memmap == MemmapPlace::Head {
        memory.machine.unmap_memmap(id);
    }
}

fn is_available(section: Section, node: NodeId, kind: ZoneKind) -> bool {
    section.openness == Openness::Untouched && section.state == BlockState::Online(kind) && section.node == node
}
