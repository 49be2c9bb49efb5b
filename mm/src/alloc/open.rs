//! Opening a section when its frames are needed, and closing one that holds nothing any more.
//!
//! Opening claims the section under the lock of its zone, makes its struct pages with no lock held, and hands its
//! pageblocks over under the lock again. Closing is the reverse. The lowest section is opened first, so that the rest stays
//! easy to take away. A few empty sections stay open, so that memory that comes and goes does not open one each time.
//!
//! What is to hold struct pages is tried before it does. Where it cannot be trusted with them, the section is withheld instead
//! of opened, and whoever needs memory goes on to the next.

use crate::addr::{NodeId, PfnRange, SectionId, SectionRange};
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, MEMMAP_PAGES, Owner, PageState};
use crate::frame::pageblock::{Descriptor, FRAMES, Pageblock};
use crate::inject::Point;
use crate::limits::{AHEAD_PAGES, SPARE_HIGH, SPARE_LOW};
use crate::machine::Machine;
use crate::machine::trial::Distrust;
use crate::memory::Memory;
use crate::range_guard::RangeGuard;
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::{Section, head_range, table_range};
use core::sync::atomic::Ordering;
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

impl<M: Machine> Memory<M> {
    /// Opens the lowest untouched section of a zone; says whether there may be more to be had than before.
    pub(crate) fn open_lowest(&self, node: NodeId, kind: ZoneKind) -> bool {
        match self.claim_lowest(node, kind) {
            Claim::Section(id, section) => {
                self.open_claimed(id, section);
                true
            }
            Claim::UnderWay => {
                core::hint::spin_loop();
                true
            }
            Claim::None => false,
        }
    }

    /// Opens a section if it is untouched, and waits while another CPU does.
    pub(crate) fn open(&self, id: SectionId) {
        let section = loop {
            match self.sections.get(id) {
                Some(Section { state: BlockState::Online(_), openness: Openness::Changing, .. }) => {
                    core::hint::spin_loop();
                }
                Some(section) => break section,
                None => return,
            }
        };
        let Some(kind) = section.state.zone() else { return };
        let claimed = self.with_zone(section.node, kind, |zone| self.claim(zone, id, section.node, kind));
        if let Some(section) = claimed {
            self.open_claimed(id, section);
        }
    }

    fn claim_lowest(&self, node: NodeId, kind: ZoneKind) -> Claim {
        loop {
            let (from, last, puts) = {
                let zone = self.zones.lock(node, kind);
                match (zone.untouched.lowest, zone.span()) {
                    (Some(lowest), Some((_, last))) => (lowest, last, zone.untouched.puts),
                    _ if zone.untouched.changing > 0 => return Claim::UnderWay,
                    _ => return Claim::None,
                }
            };
            // Looked for without the lock: there may be a long way of sections that are open already.
            let found = SectionId::through(from, last)
                .find(|id| self.sections.get(*id).is_some_and(|section| is_available(section, node, kind)));
            let Some(id) = found else { continue };
            let claimed = self.with_zone(node, kind, |zone| {
                let section = self.claim(zone, id, node, kind)?;
                // One that came back since may lie between those that were looked at.
                if zone.untouched.puts == puts && zone.untouched.lowest == Some(from) {
                    zone.untouched.lowest = id.next();
                }
                Some(section)
            });
            if let Some(section) = claimed {
                return Claim::Section(id, section);
            }
        }
    }

    /// Makes an untouched section one that is changing.
    fn claim(&self, zone: &mut crate::zone::Zone, id: SectionId, node: NodeId, kind: ZoneKind) -> Option<Section> {
        let section = self.sections.get(id).filter(|section| is_available(*section, node, kind))?;
        let section = Section { openness: Openness::Changing, ..section };
        self.sections.set(id, section);
        zone.take_untouched(SectionRange::single(id), section);
        zone.begin_changing(section);
        Some(section)
    }

    fn open_claimed(&self, id: SectionId, section: Section) {
        let kind = section.state.zone().expect("a section that is opened is in a zone");
        if section.poisoned {
            self.describe_pageblocks(id, kind, |block| block.count_free(&self.machine));
        } else if let Err(why) = self.make_struct_pages(id, section) {
            self.withhold(id, section);
            self.machine.note_withheld(id, why);
            return;
        } else {
            let head = head_range(id, section);
            self.describe_pageblocks(id, kind, |block| FRAMES - block.pages().intersection(head).len());
        }
        self.with_zone(section.node, kind, |zone| {
            self.sections.set(id, Section { openness: Openness::Open, ..section });
            zone.end_changing(section);
            zone.area_mut(Origin::Added).admit(&self.machine, id);
        });
    }

    /// Makes the struct pages of an added section that has none: all of it is free but its head.
    ///
    /// # Errors
    /// Its head cannot be trusted with them; it has none then.
    pub(crate) fn make_struct_pages(&self, id: SectionId, section: Section) -> Result<(), Distrust> {
        self.map_own_memmap(id, section)?;
        self.machine.clear(id.pages());
        let (head, tables) = (head_range(id, section), table_range(id, section));
        let memmap = PfnRange::new(tables.end(), head.len() - tables.len());
        for (frames, owner) in [(tables, Owner::PageTable), (memmap, Owner::Memmap)] {
            frames.iter().for_each(|pfn| self.machine.page(pfn).set_head(Head::single(PageState::Memmap, owner)));
        }
        let holds_head = |block: &Pageblock| block.first() < head.end();
        Pageblock::of_section(id).take_while(holds_head).for_each(|block| block.reserve(&self.machine, head));
        Ok(())
    }

    /// Leaves a section that was to be opened in its zone, without anything that can be had.
    fn withhold(&self, id: SectionId, section: Section) {
        let kind = section.state.zone().expect("a section that is opened is in a zone");
        self.with_zone(section.node, kind, |zone| {
            self.sections.set(id, Section { openness: Openness::Withheld, ..section });
            self.managed_of(kind, Origin::Added).fetch_sub(section.usable(), Ordering::Relaxed);
            zone.withhold(section);
        });
    }

    /// Writes what there is to know of the pageblocks of a section, each of which has as many `managed` frames.
    pub(crate) fn describe_pageblocks(&self, id: SectionId, kind: ZoneKind, managed: impl Fn(Pageblock) -> u64) {
        Pageblock::of_section(id).for_each(|block| self.describe_pageblock(block, kind, managed(block)));
    }

    pub(crate) fn describe_pageblock(&self, block: Pageblock, kind: ZoneKind, managed: u64) {
        // One that can never be free as a whole is where the kernel does least harm.
        let mobility = match kind {
            ZoneKind::Normal if managed < FRAMES => Mobility::Unmovable,
            _ => Mobility::Movable,
        };
        block.set(&self.machine, Descriptor::unlisted(managed, mobility));
    }

    /// Does what those who take and give memory leave to be done: takes faulty frames that were given back out of use, closes
    /// added sections that hold nothing, the one that has been empty for longest first, and opens a section before the kernel
    /// itself runs out of open memory.
    ///
    /// To be called after [`wake_keeper`](crate::machine::Machine::wake_keeper), from a task, with no lock held. Does a
    /// bounded part of it, and asks to be called again if there is more.
    pub fn keep(&self) {
        self.poison_given_back();
        for node in self.nodes() {
            for kind in ZoneKind::ALL {
                self.close_spare(node, kind);
                let cell = self.zones.cell(node, kind);
                if kind == ZoneKind::Normal
                    && cell.has_unopened()
                    && cell.open_free(Origin::Added) < AHEAD_PAGES
                    && self.is_boot_memory_short()
                {
                    self.open_lowest(node, kind);
                }
            }
        }
    }

    fn close_spare(&self, node: NodeId, kind: ZoneKind) {
        if self.zones.lock(node, kind).area(Origin::Added).empty_sections() <= SPARE_HIGH {
            return;
        }
        let mut closing = Vec::<_, CLOSED_AT_ONCE>::new();
        while !closing.is_full()
            && let Some(next) = self.begin_close(node, kind)
        {
            assert!(closing.push(next).is_ok(), "there is room");
        }
        if closing.is_empty() {
            return;
        }
        self.machine.wait_for_readers();
        closing.iter().for_each(|closing| self.discard_struct_pages(closing.id, closing.section));
        self.machine.settle_memmaps();
        closing.iter().for_each(|closing| self.finish_close(closing, node, kind));
        if closing.is_full() {
            self.machine.wake_keeper();
        }
    }

    /// Takes the section that has been empty for longest from the allocator. An operation on it is not disturbed: if it leaves
    /// the section where it is, the keeper is called again.
    fn begin_close(&self, node: NodeId, kind: ZoneKind) -> Option<Closing<'_, M>> {
        let candidate = self.zones.lock(node, kind).area(Origin::Added).longest_empty()?;
        let alone = self.try_lock_range(SectionRange::single(candidate))?;
        let section = self.with_zone(node, kind, |zone| {
            let area = zone.area_mut(Origin::Added);
            let id = area.longest_empty().filter(|id| area.empty_sections() > SPARE_LOW && *id == candidate)?;
            let section = self.sections.get(id).filter(|section| section.state == BlockState::Online(kind))?;
            area.isolate(&self.machine, id);
            area.retire(&self.machine, id);
            zone.begin_changing(section);
            self.sections.set(id, Section { openness: Openness::Changing, ..section });
            Some(section)
        })?;
        Some(Closing { id: candidate, section, _alone: alone })
    }

    /// Its struct pages are gone.
    fn finish_close(&self, closing: &Closing<'_, M>, node: NodeId, kind: ZoneKind) {
        let Closing { id, section, .. } = *closing;
        self.with_zone(node, kind, |zone| {
            self.sections.set(id, Section { openness: Openness::Untouched, ..section });
            zone.end_changing(section);
            zone.put_untouched(SectionRange::single(id), section);
        });
    }

    /// Maps the struct pages that lie at the head of an added section, if that can be trusted with them.
    fn map_own_memmap(&self, id: SectionId, section: Section) -> Result<(), Distrust> {
        self.pass(Point::AllocOpen).map_err(Distrust::Injected)?;
        if section.memmap == MemmapPlace::Head {
            let backing = PfnRange::new(table_range(id, section).end(), MEMMAP_PAGES);
            self.machine.try_frames(backing).map_err(Distrust::BadMemory)?;
            self.machine.map_memmap(id, backing).map_err(Distrust::BadMemory)?;
        }
        Ok(())
    }

    /// Unmaps the struct pages of a section that is not in use any more, unless they tell what somebody will want to know.
    pub(crate) fn discard_struct_pages(&self, id: SectionId, section: Section) {
        if !section.poisoned {
            self.unmap_own_memmap(id, section);
        }
    }

    pub(crate) fn unmap_own_memmap(&self, id: SectionId, section: Section) {
        if section.memmap == MemmapPlace::Head {
            self.machine.unmap_memmap(id);
        }
    }
}

fn is_available(section: Section, node: NodeId, kind: ZoneKind) -> bool {
    section.openness == Openness::Untouched && section.state == BlockState::Online(kind) && section.node == node
}
