//! What the shell shows: plain values, recounted from the parts at the moment of asking.

use crate::addr::{NodeId, Order, PAGE_SIZE, Pfn, SectionId};
use crate::alloc::{caches, lookup};
use crate::evacuate::budget;
use crate::frame::mobility::Mobility;
use crate::frame::page::{MEMMAP_PAGES, Owner, PageState};
use crate::frame::pageblock::{Listing, Pageblock};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::poison;
use crate::section::kind::{Origin, ZoneKind};
use crate::section::state::BlockState;
use crate::section::word::Section;
use crate::site::Site;
use crate::zone::Untouched;
use crate::zone::zones::zone_number;
use core::ops::AddAssign;
use core::sync::atomic::Ordering;

/// The memory of the whole machine, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryReport {
    /// Managed by the allocator.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Free for ordinary requests: without the reserve of hotplug.
    pub available: u64,
    /// Of that, what kernel memory can get: what lies in Normal zones.
    pub kernel_available: u64,
    /// In blocks that are offline.
    pub offline: u64,
    /// Of the free memory, what lies in untouched sections.
    pub untouched: u64,
    /// Struct pages that are in use: of open sections, and for ever of boot blocks that held something at boot.
    pub memmap_used: u64,
    /// Frames set aside for struct pages of all present blocks.
    pub memmap_reserved: u64,
    /// Page tables.
    pub page_tables: u64,
    /// In frames that have an error, online and offline. Of those above, only what is offline counts them.
    pub poisoned: u64,
    /// In frames that have an error and go out of use when their owners give them back.
    pub faulty: u64,
    /// In blocks, online and offline, that cannot have struct pages, so that nothing of them is handed out: what the allocator
    /// would manage otherwise.
    pub withheld: u64,
}

/// One zone of one node, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneReport {
    /// Its node.
    pub node: NodeId,
    /// Its kind.
    pub kind: ZoneKind,
    /// The lowest and highest block.
    pub span: (SectionId, SectionId),
    /// From the lowest to the highest block.
    pub spanned: u64,
    /// Memory in its blocks.
    pub present: u64,
    /// Of that, what the allocator got.
    pub managed: u64,
    /// Free, caches and untouched sections included.
    pub free: u64,
    /// Of that, what was there at boot; without caches.
    pub free_boot: u64,
    /// Of that, in the caches of CPUs.
    pub cached: u64,
    /// Of that, in untouched sections.
    pub untouched: u64,
    /// How many sections are untouched.
    pub untouched_sections: u64,
    /// Free, but on its way out.
    pub isolated: u64,
}

/// Free groups of frames of a zone's open sections, by order: each frame counts once, in the largest group it is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FreeGroups {
    /// In pageblocks that serve unmovable requests.
    pub unmovable: [u64; Order::COUNT],
    /// In pageblocks that serve movable requests.
    pub movable: [u64; Order::COUNT],
    /// In pageblocks that are on their way out.
    pub isolated: [u64; Order::COUNT],
    /// Pageblocks that are free as a whole, and so of no migrate type.
    pub whole: [u64; Order::COUNT],
}

impl AddAssign for FreeGroups {
    fn add_assign(&mut self, other: Self) {
        for (sums, counts) in [
            (&mut self.unmovable, other.unmovable),
            (&mut self.movable, other.movable),
            (&mut self.isolated, other.isolated),
            (&mut self.whole, other.whole),
        ] {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

/// What a frame is, for people and scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameState {
    /// Not in use.
    Free,
    /// In use.
    Allocated,
    /// It holds struct pages or page tables of its own section or group.
    Memmap,
    /// Free, as everything in its section is.
    Untouched,
    /// Its block is offline.
    Offline,
    /// The allocator never sees it.
    Reserved,
    /// It has an error.
    Poisoned,
    /// Nothing of its section is handed out.
    Withheld,
    /// There is no memory.
    Absent,
    /// Of a device, taken or not.
    Device,
}

impl FrameState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Allocated => "allocated",
            Self::Memmap => "memmap",
            Self::Untouched => "untouched",
            Self::Offline => "offline",
            Self::Reserved => "reserved",
            Self::Poisoned => "poisoned",
            Self::Withheld => "withheld",
            Self::Device => "device",
            Self::Absent => "absent",
        }
    }
}

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameReport {
    /// Which.
    pub pfn: Pfn,
    /// Its block.
    pub block: Option<SectionId>,
    /// Its node, if the block is present.
    pub node: Option<NodeId>,
    /// Its zone, if the block is online.
    pub zone: Option<ZoneKind>,
    /// What it is.
    pub state: FrameState,
    /// Whose it is.
    pub owner: Owner,
    /// References.
    pub refs: u32,
    /// The first frame of the free or allocated block it belongs to, and its order.
    pub block_head: Option<(Pfn, Order)>,
    /// Where in the source it was taken, if it is allocated and unmovable.
    pub site: Option<Site>,
    /// When that was, in nanoseconds of the clock, to the second.
    pub since_ns: Option<u64>,
}

impl<M: Machine> Memory<M> {
    /// The memory of the whole machine.
    pub fn memory_report(&self) -> MemoryReport {
        let room = budget::room(self);
        let mut report = MemoryReport {
            page_tables: self.machine.table_frames() * PAGE_SIZE,
            available: room.available() * PAGE_SIZE,
            kernel_available: room.kernel() * PAGE_SIZE,
            withheld: self.withheld_count.load(Ordering::Relaxed) * PAGE_SIZE,
            poisoned: self.poisoned_count.load(Ordering::Relaxed) * PAGE_SIZE,
            faulty: self.faulty_count.load(Ordering::Relaxed) * PAGE_SIZE,
            ..Default::default()
        };
        for (run, section) in self.block_runs() {
            let memmap = run.count() * MEMMAP_PAGES * PAGE_SIZE;
            if section.ready {
                report.memmap_reserved += memmap;
            }
            if section.has_struct_pages() {
                report.memmap_used += memmap;
            }
            report.withheld += run.count() * (u64::from(section.managed) - section.usable()) * PAGE_SIZE;
            if section.state == BlockState::Offline {
                report.offline += run.count() * u64::from(section.present) * PAGE_SIZE;
            }
        }
        self.for_each_zone(|zone| {
            report.total += zone.managed;
            report.free += zone.free;
            report.untouched += zone.untouched;
        });
        report
    }

    /// Every zone that spans anything, by node, Normal first.
    pub fn for_each_zone(&self, mut each: impl FnMut(&ZoneReport)) {
        for (node, kind) in self.zones.populated() {
            let cached = caches::cached_pages(self, zone_number(node, kind)) * PAGE_SIZE;
            let zone = self.zones.lock(node, kind);
            let Some(span) = zone.span() else { continue };
            let untouched = || Origin::ALL.into_iter().map(|origin| zone.untouched(origin));
            let report = ZoneReport {
                node,
                kind,
                span,
                spanned: span.1.address() - span.0.address() + crate::addr::SECTION_SIZE,
                present: zone.present_pages() * PAGE_SIZE,
                managed: zone.managed_pages() * PAGE_SIZE,
                // What went from a cache to the zone in between is there once.
                free: (zone.free_pages() * PAGE_SIZE + cached).min(zone.managed_pages() * PAGE_SIZE),
                free_boot: zone.free_pages_of(Origin::Boot) * PAGE_SIZE,
                cached,
                untouched: untouched().map(Untouched::pages).sum::<u64>() * PAGE_SIZE,
                untouched_sections: untouched().map(|untouched| untouched.sections).sum(),
                isolated: zone.isolated_pages() * PAGE_SIZE,
            };
            drop(zone);
            each(&report);
        }
    }

    /// The free groups of a section, unless it is not open; each pageblock is looked at at a moment of its own.
    pub fn free_groups(&self, id: SectionId) -> Option<FreeGroups> {
        let parts = ZoneKind::ALL.into_iter().filter_map(|kind| self.free_groups_in(id, kind));
        parts.reduce(|mut all, part| {
            all += part;
            all
        })
    }

    /// Those of a section, or of the part of it, that is in one zone.
    pub fn free_groups_in(&self, id: SectionId, kind: ZoneKind) -> Option<FreeGroups> {
        let is_still = |section: Section| {
            self.sections.get(id).filter(|now| now.is_open() && (now.state, now.node) == (section.state, section.node))
        };
        let section = self.section(id).filter(|section| section.is_open() && section.state.reaches_into(kind))?;
        let mut groups = FreeGroups::default();
        let is_here = |block: &Pageblock| section.state.zone_of(block.first()) == Some(kind);
        for block in Pageblock::of_section(id).filter(is_here) {
            let _zone = self.zones.lock(section.node, kind);
            // The section may have gone since.
            is_still(section)?;
            count_groups(self, block, &mut groups);
        }
        Some(groups)
    }

    /// Returns what one frame is. Takes no lock: for a frame that is being allocated or freed at this moment the answer may be neither the
    /// old state nor the new one.
    pub fn frame_report(&self, pfn: Pfn) -> FrameReport {
        let _reading = self.machine.reading();
        let id = SectionId::new(pfn.number() / crate::addr::PAGES_PER_SECTION);
        let section = id.and_then(|id| self.section(id));
        let mut report = FrameReport {
            pfn,
            block: id,
            node: section.map(|section| section.node),
            zone: section.and_then(|section| section.state.zone_of(pfn)),
            state: FrameState::Absent,
            owner: Owner::None,
            refs: 0,
            block_head: None,
            site: None,
            since_ns: None,
        };
        let (Some(id), Some(section)) = (id, section) else { return report };
        if poison::is_poisoned(self, section, pfn) {
            report.state = FrameState::Poisoned;
            return report;
        }
        if self.sections.withheld(id).contains(Pageblock::of(pfn).index()) {
            report.state = FrameState::Withheld;
            return report;
        }
        if section.state == BlockState::Device {
            let page = self.machine.page(pfn);
            report.owner = page.head().owner;
            report.state = match page.head().state {
                PageState::Memmap => FrameState::Memmap,
                _ => FrameState::Device,
            };
            report.refs = page.refs();
            return report;
        }
        // Those of a boot block that held something stay when it goes offline, and tell of its reserved frames.
        if !section.is_open() && !section.keeps_struct_pages() {
            let at_head = section.ready && crate::section::word::head_range(id, section).contains(pfn);
            let is_table = crate::section::word::table_range(id, section).contains(pfn);
            (report.state, report.owner) = match (at_head, is_table) {
                (true, false) => (FrameState::Memmap, Owner::Memmap),
                (true, true) => (FrameState::Memmap, Owner::PageTable),
                (false, _) if section.is_withheld() => (FrameState::Withheld, Owner::None),
                (false, _) if section.state.is_in_zone() => (FrameState::Untouched, Owner::None),
                (false, _) => (FrameState::Offline, Owner::None),
            };
            return report;
        }
        if let Some(free) = free_group_around(self, pfn) {
            report.state = if section.state.is_in_zone() { FrameState::Free } else { FrameState::Offline };
            report.block_head = section.state.is_in_zone().then_some(free);
            return report;
        }
        let (head, found) = lookup::containing_block(self, pfn);
        report.owner = found.owner;
        report.state = match found.state {
            PageState::Cached => FrameState::Free,
            PageState::Allocated => FrameState::Allocated,
            PageState::Memmap => FrameState::Memmap,
            PageState::Reserved | PageState::Tail => FrameState::Reserved,
            PageState::Poisoned => FrameState::Poisoned,
            PageState::Absent => FrameState::Absent,
        };
        if found.state == PageState::Allocated {
            report.block_head = Some((head, found.order));
            let page = self.machine.page(head);
            report.refs = page.refs();
            (report.site, report.since_ns) = lookup::provenance(self, page, found.order);
        }
        report
    }
}

fn count_groups<M: Machine>(memory: &Memory<M>, block: Pageblock, groups: &mut FreeGroups) {
    let descriptor = block.descriptor(&memory.machine);
    match descriptor.listing() {
        Listing::Single => groups.whole[Order::PAGEBLOCK.index()] += 1,
        Listing::PairFirst => groups.whole[Order::MAX.index()] += 1,
        Listing::Isolated if descriptor.is_whole() => groups.isolated[Order::PAGEBLOCK.index()] += 1,
        Listing::Partial | Listing::Isolated if descriptor.free() > 0 => {
            let counts = match (descriptor.listing(), descriptor.mobility()) {
                (Listing::Isolated, _) => &mut groups.isolated,
                (_, Mobility::Unmovable) => &mut groups.unmovable,
                (_, Mobility::Movable) => &mut groups.movable,
            };
            block.free_groups(&memory.machine, |_, order| counts[order.index()] += 1);
        }
        Listing::Nowhere | Listing::Partial | Listing::PairSecond | Listing::Isolated => {}
    }
}

/// The largest free group that `pfn`, whose struct page is mapped, is part of.
fn free_group_around<M: Machine>(memory: &Memory<M>, pfn: Pfn) -> Option<(Pfn, Order)> {
    let block = Pageblock::of(pfn);
    let descriptor = block.descriptor(&memory.machine);
    match descriptor.listing() {
        Listing::Single => return Some((block.first(), Order::PAGEBLOCK)),
        Listing::PairFirst | Listing::PairSecond => return Some((block.pair_first().first(), Order::MAX)),
        Listing::Isolated if descriptor.is_whole() => return Some((block.first(), Order::PAGEBLOCK)),
        Listing::Partial | Listing::Isolated | Listing::Nowhere => {}
    }
    if !block.is_free(&memory.machine, pfn) {
        return None;
    }
    let order = block.grown(&memory.machine, pfn, Order::PAGE).unwrap_or(Order::PAGE);
    Some((pfn.align_down(order), order))
}
