//! What the shell shows: plain values, recounted from the parts at the moment of asking.

use crate::addr::{NodeId, Order, PAGE_SIZE, Pfn, SectionId};
use crate::machine::{MEMMAP_PAGES, Machine};
use crate::memory::{Memory, RESERVE_PAGES};
use crate::page::{Owner, PageState};
use crate::section::{BlockState, ZoneKind};
use crate::zone::Origin;

/// The memory of the whole machine, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryReport {
    /// Managed by the allocator.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Free for ordinary requests: without the reserve of hotplug.
    pub available: u64,
    /// In blocks that are offline.
    pub offline: u64,
    /// In online sections whose memmap is not materialised.
    pub untouched: u64,
    /// Struct pages of online blocks.
    pub memmap_used: u64,
    /// Frames set aside for struct pages of all present blocks.
    pub memmap_reserved: u64,
    /// Page tables.
    pub page_tables: u64,
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
    /// Free.
    pub free: u64,
    /// Of that, what was there at boot.
    pub free_boot: u64,
    /// Free, but on its way out.
    pub isolated: u64,
    /// Free blocks of each order.
    pub free_blocks: [u64; Order::COUNT],
}

/// What a frame is, for people and scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameState {
    /// Nobody's.
    Free,
    /// Somebody's.
    Allocated,
    /// It holds struct pages or page tables of its own section or group.
    Memmap,
    /// Its block is offline.
    Offline,
    /// The allocator never sees it.
    Reserved,
    /// There is no memory.
    Absent,
}

impl FrameState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Allocated => "allocated",
            Self::Memmap => "memmap",
            Self::Offline => "offline",
            Self::Reserved => "reserved",
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
}

impl<M: Machine> Memory<M> {
    /// The memory of the whole machine.
    pub fn memory_report(&self) -> MemoryReport {
        let mut report = MemoryReport { page_tables: self.machine.table_frames() * PAGE_SIZE, ..Default::default() };
        for (_, section) in self.blocks() {
            report.memmap_reserved += MEMMAP_PAGES * PAGE_SIZE;
            if section.state.is_populated() {
                report.memmap_used += MEMMAP_PAGES * PAGE_SIZE;
            }
            if section.state == BlockState::Offline {
                report.offline += u64::from(section.present) * PAGE_SIZE;
            }
        }
        let mut boot_free = 0;
        self.for_each_zone(|zone| {
            report.total += zone.managed;
            report.free += zone.free;
            if zone.kind == ZoneKind::Normal {
                boot_free += zone.free_boot;
            }
        });
        report.available = report.free - boot_free.min(RESERVE_PAGES * PAGE_SIZE);
        report
    }

    /// Every zone that spans anything, by node, Normal first.
    pub fn for_each_zone(&self, mut each: impl FnMut(&ZoneReport)) {
        for (node, kind) in self.populated_zones() {
            let zone = self.zone(node, kind);
            let Some(span) = zone.span() else { continue };
            let mut free_blocks = [0; Order::COUNT];
            for order in Order::all() {
                free_blocks[order.index()] = zone.free_blocks(order);
            }
            let report = ZoneReport {
                node,
                kind,
                span,
                spanned: span.1.address() - span.0.address() + crate::addr::SECTION_SIZE,
                present: zone.present_pages() * PAGE_SIZE,
                managed: zone.managed_pages() * PAGE_SIZE,
                free: zone.free_pages() * PAGE_SIZE,
                free_boot: zone.free_pages_of(Origin::Boot) * PAGE_SIZE,
                isolated: zone.isolated_pages() * PAGE_SIZE,
                free_blocks,
            };
            drop(zone);
            each(&report);
        }
    }

    /// What one frame is.
    pub fn frame_report(&self, pfn: Pfn) -> FrameReport {
        let id = SectionId::new(pfn.number() / crate::addr::PAGES_PER_SECTION);
        let section = id.and_then(|id| self.section(id));
        let mut report = FrameReport {
            pfn,
            block: id,
            node: section.map(|section| section.node),
            zone: section.and_then(|section| section.state.zone()),
            state: FrameState::Absent,
            owner: Owner::None,
            refs: 0,
            block_head: None,
        };
        let (Some(id), Some(section)) = (id, section) else { return report };
        // The struct pages of a boot block stay when it goes offline.
        let described = section.is_boot() || section.state.is_populated();
        if !described {
            let at_head = crate::section::head_range(id, section).contains(pfn);
            let is_table = self.group(section.group).is_some_and(|group| group.tables.contains(pfn));
            (report.state, report.owner) = match (at_head, is_table) {
                (false, _) => (FrameState::Offline, Owner::None),
                (true, false) => (FrameState::Memmap, Owner::Memmap),
                (true, true) => (FrameState::Memmap, Owner::PageTable),
            };
            return report;
        }
        let (head, found) = self.containing_block(pfn);
        report.owner = found.owner;
        report.state = match found.state {
            PageState::Free | PageState::Isolated => FrameState::Free,
            PageState::Allocated => FrameState::Allocated,
            PageState::Memmap => FrameState::Memmap,
            PageState::Reserved | PageState::Tail => FrameState::Reserved,
            PageState::Absent => FrameState::Absent,
            PageState::Offline => FrameState::Offline,
        };
        if matches!(found.state, PageState::Free | PageState::Isolated | PageState::Allocated) {
            report.block_head = Some((head, found.order));
        }
        if found.state == PageState::Allocated {
            report.refs = self.machine.page(head).refs();
        }
        report
    }
}
