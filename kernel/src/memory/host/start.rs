//! Handing boot memory to `mm`. Of a section in which something is in use, `mm` learns what each frame is used for, and its memmap is
//! made in frames that are free. Of all others nothing is touched: they are handed over in runs, each with room for its page
//! tables and memmaps at its head.
//!
//! Tables that runs share, and the heap, take frames that are open. Where those in use do not leave enough of them, the lowest of the
//! others is opened, too, before all runs.

use super::kernelcore::{BootRam, KernelCore};
use super::machine;
use super::mover::{self, HeapMover};
use crate::firmware::Firmware;
use crate::firmware::owners::Owners;
use crate::firmware::slit::Slit;
use crate::firmware::srat::Srat;
use crate::firmware::window::{self, Reach, Window};
use crate::memory::frames::early::EarlyFrames;
use crate::memory::frames::ram::PIECES_MAX;
use crate::memory::frames::{self, EARLY, Kernel, MM};
use crate::memory::layout;
use crate::memory::paging::editor::Editor;
use crate::memory::paging::entry::Level;
use crate::memory::paging::tables::KernelEditor;
use crate::memory::paging::{boot_map, ranges, shared_tables, tables};
use crate::sync::SpinLock;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::sync::atomic::AtomicU64;
use mm::addr::{MAX_PHYS_BITS, NodeId, PAGE_SIZE, Pfn, PfnRange, SECTION_LIMIT, SECTION_SIZE, SectionId, SectionRange};
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{BootSection, BootUse, EmptyBootSections};
use mm::limits::KERNEL_FLOOR_PAGES;
use mm::machine::mapper::Mapper;
use mm::memory::{MachineCache, MachineZone};
use mm::node::Distances;
use mm::plural::Plural;
use mm::section::kind::ZoneKind;
use mm::{Memory, Storage};

const MIB: u64 = 1 << 20;

/// Less than this is no machine for us, so a smaller `mem=` is not obeyed.
const SMALLEST: u64 = SECTION_SIZE;

/// Where it is not known how far memory may come, the section table takes no more than this part of boot memory.
const TABLE_SHARE: u64 = 256;

/// Where memory may come.
static WINDOWS: spin::Once<Vec<Window>> = spin::Once::new();

/// Where memory may come, lowest first. The section table reaches to the end of the last.
pub(crate) fn windows() -> &'static [Window] {
    WINDOWS.get().map_or(&[], Vec::as_slice)
}

/// The sections that `mem=` hid.
static HIDDEN: spin::Once<Vec<SectionRange>> = spin::Once::new();
/// The address above which `mem=` hides RAM.
static LIMIT: spin::Once<u64> = spin::Once::new();

/// The RAM that `mem=` hid, in whole sections: it may be added by hand.
pub(crate) fn hidden() -> &'static [SectionRange] {
    HIDDEN.get().map_or(&[], Vec::as_slice)
}

pub(super) fn limit() -> u64 {
    LIMIT.get().copied().unwrap_or(u64::MAX)
}

/// Makes `mm` the owner of all memory, for that many CPUs. `limit` is the address above which RAM is left alone (`mem=`), and
/// `kernelcore` says how the rest is split.
pub(crate) fn start(firmware: &Firmware, cpus: usize, limit: Option<u64>, kernelcore: KernelCore) {
    let begun_ns = crate::time::now_ns();
    let limit = *LIMIT.call_once(|| limit.map_or(u64::MAX, obeyed_limit));
    hide_ram_above(limit);

    let srat = &firmware.srat;
    let sections = boot_sections(limit);
    let reach = reach(&EARLY, boot_map::physical_bits());
    let windows = WINDOWS.call_once(|| window::windows(srat, firmware.dimm_slots, reach));
    let section_count = section_limit(reach.ram_end, windows);
    let nodes = firmware.node_count() as usize;
    let storage = Storage {
        sections: section_words(section_count),
        withheld: section_words(section_count),
        zones: empty_zones(nodes),
        caches: empty_caches(cpus, nodes),
        distances: firmware.slit.as_ref().map_or(Distances::UNKNOWN, |slit| distances(slit, nodes)),
    };
    make_tables(&sections, section_count * SECTION_SIZE);

    let (mut blocks, ram) = boot_blocks(srat, &sections, limit, kernelcore);
    let opened = remove_opened(&EARLY, &mut blocks, &ram, limit);
    if let Some(block) = opened {
        make_table(block.id);
    }

    // From here until `mm` has frames the heap has only those that it has already.
    EARLY.lock().close();
    find_empty(&EARLY, &mut blocks, &ram, limit);
    let mut uses = Vec::new();
    let mm = MM.call_once(|| Memory::new(Kernel, storage));
    if let Some(block) = opened {
        hand_over(mm, &ram, block, limit, &mut uses);
    }
    for run in blocks.chunk_by(BootBlock::is_like) {
        match run[0].empty_in {
            Some(zone) => hand_over_empty(mm, run, zone),
            None => hand_over(mm, &ram, run[0], limit, &mut uses),
        }
    }
    mover::register(&[Owner::Heap], &HeapMover);
    log::info!(
        target: "memory",
        "{} MiB in {}, nodes: {}, room for {}, page tables: {}; took {} us",
        mm.blocks().map(|(_, section)| u64::from(section.present)).sum::<u64>() * PAGE_SIZE / MIB,
        Plural(mm.blocks().count() as u64, "block"),
        nodes,
        Plural(section_count, "block"),
        mm.machine().table_frames(),
        (crate::time::now_ns() - begun_ns) / 1000,
    );
}

/// How far memory can lie. Whatever the firmware promises, a CPU reaches no further than its addresses are wide, and we
/// than the windows of the address space.
fn reach(frames: &SpinLock<EarlyFrames>, physical_bits: u32) -> Reach {
    let early = frames.lock();
    let ram_bytes = early.ram().spans().map(PfnRange::len).sum::<u64>() * PAGE_SIZE;
    let cheap_words = ram_bytes / TABLE_SHARE / size_of::<AtomicU64>() as u64;
    Reach {
        ram_end: early.ram().end().address(),
        bits: physical_bits.min(MAX_PHYS_BITS),
        cheap_end: cheap_words * SECTION_SIZE,
    }
}

/// How many sections there can ever be.
fn section_limit(ram_end: u64, windows: &[Window]) -> u64 {
    let end = windows.last().map_or(ram_end, |window| window.end().max(ram_end));
    end.div_ceil(SECTION_SIZE).min(SECTION_LIMIT)
}

fn obeyed_limit(limit: u64) -> u64 {
    if limit < SMALLEST {
        log::warn!(target: "memory", "mem= is raised to {} MiB", SMALLEST / MIB);
    }
    limit.max(SMALLEST)
}

/// Takes whole unused sections above `limit` out of the direct map and remembers them.
fn hide_ram_above(limit: u64) {
    let mut ranges: Vec<SectionRange> = Vec::new();
    if limit < u64::MAX {
        let first = limit.div_ceil(SECTION_SIZE);
        let unused = sections_where(&EARLY, |early, id| u64::from(id.number()) >= first && early.is_untouched(id));
        for id in unused.into_iter().map(|id| u64::from(id.number())) {
            match ranges.last_mut() {
                Some(last) if u64::from(last.last().number()) + 1 == id => {
                    *last = SectionRange::new(u64::from(last.first().number()), last.count() + 1)
                        .expect("a run of sections that exist");
                }
                _ => ranges.extend(SectionRange::new(id, 1)),
            }
        }
    }
    for range in &ranges {
        let start = layout::direct(range.pages().start());
        let last = layout::direct(range.last().pages().start());
        for address in [start, last] {
            KernelEditor
                .edit(|tree| tree.split(address, Level::DIRECTORY))
                .expect("boot memory has room for a page table");
        }
        ranges::unmap(&KernelEditor, *range);
        log::info!(target: "memory", "blocks {}-{} are hidden by mem=", range.first(), range.last());
    }
    HIDDEN.call_once(|| ranges);
}

/// Sections with RAM below `limit`.
fn boot_sections(limit: u64) -> Vec<SectionId> {
    sections_where(&EARLY, |_, id| id.address() < limit)
}

/// The sections with RAM that are `wanted`. The list has room for all of them before the lock is taken to fill it: while
/// it is held, the heap cannot grow.
fn sections_where(frames: &SpinLock<EarlyFrames>, wanted: impl Fn(&EarlyFrames, SectionId) -> bool) -> Vec<SectionId> {
    let count = frames.lock().ram().sections().count();
    let mut found = Vec::with_capacity(count);
    let early = frames.lock();
    found.extend(early.ram().sections().filter(|id| wanted(&early, *id)));
    found
}

/// Replaces `uses` by those of the part of a section that is visible, under the same rule.
fn collect_uses(frames: &SpinLock<EarlyFrames>, id: SectionId, visible: PfnRange, uses: &mut Vec<(PfnRange, BootUse)>) {
    let mut count = 0;
    frames.lock().uses(id, |_, _| count += 1);
    uses.clear();
    uses.reserve(count);
    frames.lock().uses(id, |pages, usage| {
        let pages = pages.intersection(visible);
        if !pages.is_empty() {
            uses.push((pages, usage));
        }
    });
}

fn section_words(count: u64) -> &'static [AtomicU64] {
    let pages = (count * size_of::<AtomicU64>() as u64).div_ceil(PAGE_SIZE);
    let frames = EARLY.lock().take(pages, Owner::BootTables).expect("boot memory has room for the section table");
    let start = core::ptr::with_exposed_provenance_mut::<u64>(layout::direct(frames.start()) as usize);
    // SAFETY: The frames are mapped and were taken for this; this many words lie in them.
    unsafe { start.write_bytes(0, count as usize) };
    // SAFETY: The words are initialised, stay mapped for ever, and are reached through this slice only.
    unsafe { core::slice::from_raw_parts(start.cast::<AtomicU64>(), count as usize) }
}

fn empty_zones(nodes: usize) -> &'static [MachineZone<Kernel>] {
    let zones: Vec<_> = (0..nodes * ZoneKind::ALL.len()).map(|_| MachineZone::<Kernel>::new()).collect();
    zones.leak()
}

fn empty_caches(cpus: usize, nodes: usize) -> &'static [MachineCache<Kernel>] {
    let caches: Vec<_> = (0..cpus * nodes * ZoneKind::ALL.len()).map(|_| MachineCache::<Kernel>::new()).collect();
    caches.leak()
}

fn distances(slit: &Slit, nodes: usize) -> Distances {
    let rows = 0..nodes as u32;
    let matrix: Vec<u8> = rows.clone().flat_map(|from| rows.clone().map(move |to| slit.distance(from, to))).collect();
    Distances::new(nodes, matrix.leak()).expect("a matrix of rows and columns is square")
}

/// Completes the top-level table and makes the page tables for the struct pages of boot memory that is in use: others get theirs
/// when they are handed over.
fn make_tables(sections: &[SectionId], end: u64) {
    for slot in 0..end.div_ceil(layout::SLOT_SIZE) {
        tables::edit(|tree| tree.make(layout::DIRECT_MAP + slot * layout::SLOT_SIZE, Level::POINTERS))
            .expect("boot memory has room for its page tables");
    }
    for id in sections.iter().filter(|id| EARLY.lock().is_kept(**id)) {
        make_table(*id);
    }
}

/// Makes the page table for the struct pages of a section, if there is none yet.
fn make_table(id: SectionId) {
    tables::edit(|tree| shared_tables::claim_one(tree, id)).expect("boot memory has room for its page tables");
}

/// A section with RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BootBlock {
    id: SectionId,
    node: NodeId,
    /// The one zone of a section that is all there and holds nothing.
    empty_in: Option<ZoneKind>,
}

impl BootBlock {
    /// Whether `next` can be handed over with it.
    fn is_like(&self, next: &Self) -> bool {
        self.empty_in.is_some()
            && (self.empty_in, self.node, self.id.next()) == (next.empty_in, next.node, Some(next.id))
    }
}

/// Removes the block that is to be opened though it holds nothing: the lowest in Normal, unless those below it that hold something
/// have enough room for what the kernel takes until it can open one itself.
fn remove_opened(
    frames: &SpinLock<EarlyFrames>,
    blocks: &mut Vec<BootBlock>,
    ram: &BootRam,
    limit: u64,
) -> Option<BootBlock> {
    let early = frames.lock();
    let empty = |block: &BootBlock| zone_of_empty(&early, block, ram, limit);
    let below = blocks.iter().take_while(|block| empty(block).is_none());
    let in_normal = below.filter(|block| early.is_kept(block.id));
    let room: u64 = in_normal.map(|block| early.room_in(block.id, PfnRange::inside(0, limit))).sum();
    if room >= KERNEL_FLOOR_PAGES {
        return None;
    }
    let lowest = blocks.iter().position(|block| empty(block) == Some(ZoneKind::Normal))?;
    Some(blocks.remove(lowest))
}

/// Finds the blocks that hold nothing now that all is taken that boot takes.
fn find_empty(frames: &SpinLock<EarlyFrames>, blocks: &mut [BootBlock], ram: &BootRam, limit: u64) {
    let early = frames.lock();
    for block in blocks {
        block.empty_in = zone_of_empty(&early, block, ram, limit);
    }
}

/// The one zone of a block that is all there, below `limit`, and holds nothing.
fn zone_of_empty(early: &EarlyFrames, block: &BootBlock, ram: &BootRam, limit: u64) -> Option<ZoneKind> {
    let is_visible = block.id.address() + SECTION_SIZE <= limit;
    let zone = || ram.zone_of_all(block.node, block.id.pages());
    (is_visible && early.is_untouched(block.id)).then(zone).flatten()
}

/// Every section with its node, and the RAM of every node with where Movable begins on it.
fn boot_blocks(srat: &Srat, sections: &[SectionId], limit: u64, kernelcore: KernelCore) -> (Vec<BootBlock>, BootRam) {
    let mut ram = BootRam::default();
    // While the frames are locked, the heap cannot grow.
    let spans: heapless::Vec<PfnRange, PIECES_MAX> = EARLY.lock().ram().spans().collect();
    let visible = PfnRange::inside(0, limit);
    let home = |id: &SectionId| {
        let parts = spans.iter().map(|span| span.intersection(visible).intersection(id.pages()));
        let parts = parts.filter(|part| !part.is_empty());
        let (node, others) = node_with_most(&srat.owners, parts.clone());
        if others > 0 {
            let count = others + 1;
            log::warn!(target: "memory", "block {id} lies on {count} nodes; node {node} has most and gets all of it");
        }
        let is_kept = EARLY.lock().is_kept(*id);
        parts.for_each(|part| if is_kept { ram.add_kept(node, part) } else { ram.add(node, part) });
        BootBlock { id: *id, node, empty_in: None }
    };
    let blocks = sections.iter().map(home).collect();
    if kernelcore != KernelCore::default() {
        ram.split(kernelcore);
        for node in ram.kept_nodes() {
            log::warn!(target: "memory", "node {node} has no Movable memory: firmware or the kernel has frames in all its blocks");
        }
    }
    (blocks, ram)
}

/// The node that owns most of some RAM, the lowest one of equals, and how many others own some. What nobody owns has no say.
fn node_with_most(owners: &Owners, ram: impl Iterator<Item = PfnRange>) -> (NodeId, usize) {
    let mut owned = [0; NodeId::LIMIT];
    for part in ram.flat_map(|range| owners.between(range.start().address(), range.end().address())) {
        owned[part.domain as usize] += part.len;
    }
    let most = NodeId::all().min_by_key(|node| Reverse(owned[node.index()])).unwrap_or(NodeId::ZERO);
    let count = owned.iter().filter(|bytes| **bytes > 0).count();
    (most, count.saturating_sub(1))
}

/// Hands blocks over that hold nothing.
fn hand_over_empty(mm: &Memory<Kernel>, blocks: &[BootBlock], zone: ZoneKind) {
    let BootBlock { id, node, .. } = blocks[0];
    let all = SectionRange::new(id.number().into(), blocks.len() as u64).expect("a run of sections that exist");
    for range in all.cut(Kernel::PART) {
        let tables = machine::prepare_boot(range);
        mm.add_empty_boot_sections(&EmptyBootSections { range, node, zone, tables });
    }
}

/// Hands a block over that is opened at once: it holds something, is in two zones or not all there, or is opened for the others.
fn hand_over(
    mm: &Memory<Kernel>,
    ram: &BootRam,
    BootBlock { id, node, .. }: BootBlock,
    limit: u64,
    uses: &mut Vec<(PfnRange, BootUse)>,
) {
    collect_uses(&EARLY, id, PfnRange::inside(0, limit), uses);
    let Some(memmap) = place_memmap(uses) else {
        log::info!(target: "memory", "block {id} has no room for its own memmap and is left out");
        return;
    };
    make_table(id);
    mm.machine().map_memmap(id, memmap).expect("boot memory has system tables");
    mm.add_boot_section(&BootSection { id, node, movable_from: movable_from(ram, node, id, uses), uses });
    // The page tables for the next ones come from there.
    frames::open();
}

/// Where Movable begins on the node of a block, unless that could never leave it.
fn movable_from(ram: &BootRam, node: NodeId, id: SectionId, uses: &[(PfnRange, BootUse)]) -> Option<Pfn> {
    let line = ram.movable_from(node)?;
    let is_kept = uses.iter().any(|(_, usage)| matches!(usage, BootUse::Reserved(_)));
    if is_kept && line < id.pages().end() {
        log::info!(target: "memory", "block {id} is Normal: firmware or the kernel has frames in it");
        return None;
    }
    Some(line)
}

/// Sets the lowest frames aside that are free in a row and hold the memmap of a section.
fn place_memmap(uses: &mut Vec<(PfnRange, BootUse)>) -> Option<PfnRange> {
    let found = uses.iter().position(|(pages, usage)| *usage == BootUse::Free && pages.len() >= MEMMAP_PAGES)?;
    let (pages, _) = uses[found];
    let memmap = PfnRange::new(pages.start(), MEMMAP_PAGES);
    let rest = PfnRange::new(memmap.end(), pages.len() - MEMMAP_PAGES);
    uses[found] = (memmap, BootUse::Memmap);
    if !rest.is_empty() {
        uses.insert(found + 1, (rest, BootUse::Free));
    }
    Some(memmap)
}

#[cfg(test)]
mod tests {
    use super::super::kernelcore::Amount;
    use super::*;
    use crate::entry::{MemoryRegion, RegionKind};
    use crate::firmware::owners::MemoryAffinity;
    use crate::memory::frames::ram::Ram;
    use mm::addr::Pfn;

    /// Two sections with RAM whose first one has three holders.
    fn frames() -> SpinLock<EarlyFrames> {
        let region = |start, end, kind| MemoryRegion { start, end, kind };
        SpinLock::new(EarlyFrames::new(Ram::new(&[
            region(0x10_0000, 0x20_0000, RegionKind::Usable),
            region(0x20_0000, 0x30_0000, RegionKind::Bootloader),
            region(0x30_0000, 2 * SECTION_SIZE, RegionKind::Usable),
        ])))
    }

    #[test]
    fn there_are_no_sections_beyond_ram_and_windows() {
        assert_eq!(section_limit(5 << 30, &[]), 40);
        let windows = [Window { start: 0, len: 1 << 30 }, Window { start: 4 << 30, len: (1 << 30) + 1 }];
        assert_eq!(section_limit(1 << 30, &windows), 41);
        assert_eq!(section_limit(5 << 30, &windows[..1]), 40);
        assert_eq!(section_limit(1 << 46, &windows), SECTION_LIMIT);
    }

    #[test]
    fn memory_is_reached_as_far_as_the_cpu_and_the_address_space_reach() {
        let bits = |physical_bits| reach(&frames(), physical_bits).bits;
        assert_eq!([bits(36), bits(46), bits(52), bits(64)], [36, 46, 46, 46]);
        // The table for this is one part in 256 of the 255 MiB of RAM.
        assert_eq!(reach(&frames(), 40).ram_end, 2 * SECTION_SIZE);
        assert_eq!(reach(&frames(), 40).cheap_end, (255 << 20) / 256 / 8 * SECTION_SIZE);
    }

    #[test]
    fn a_block_is_on_the_node_that_owns_most_of_its_ram() {
        let owner = |mib: core::ops::Range<u64>, domain| MemoryAffinity {
            start: mib.start * MIB,
            len: (mib.end - mib.start) * MIB,
            domain,
            hotpluggable: false,
            nonvolatile: false,
        };
        let node = |n| NodeId::new(n).expect("in reach");
        let ram = [PfnRange::inside(0, 60 * MIB), PfnRange::inside(64 * MIB, 128 * MIB)];
        let most = |owners: &[MemoryAffinity]| node_with_most(&Owners::new(owners.to_vec()), ram.into_iter());
        assert_eq!(most(&[owner(0..1, 0), owner(1..256, 1)]), (node(1), 1));
        assert_eq!(most(&[owner(0..256, 0), owner(40..100, 2)]), (node(0), 1), "it has both ends only");
        assert_eq!(most(&[owner(0..256, 0), owner(20..100, 2)]), (node(2), 1), "it has the middle only");
        assert_eq!(most(&[owner(0..30, 3), owner(30..60, 2), owner(60..64, 1)]), (node(2), 1));
        assert_eq!(most(&[owner(100..101, 5)]), (node(5), 0), "nobody else says anything");
        assert_eq!(most(&[]), (NodeId::ZERO, 0));
    }

    #[test]
    fn the_list_of_sections_does_not_grow_while_the_frames_are_locked() {
        let frames = frames();
        let found = sections_where(&frames, |_, _| true);
        assert_eq!(found.iter().map(|id| id.number()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(found.capacity(), 2);
        let untouched = sections_where(&frames, EarlyFrames::is_untouched);
        assert_eq!(untouched.iter().map(|id| id.number()).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_holds_nothing_and_is_all_there_goes_in_runs_of_one_node_and_zone() {
        let region = |start, end, kind| MemoryRegion { start, end, kind };
        let (last, end) = (11 * SECTION_SIZE, 12 * SECTION_SIZE - MIB);
        let frames = SpinLock::new(EarlyFrames::new(Ram::new(&[
            region(MIB, 7 * SECTION_SIZE, RegionKind::Usable),
            region(7 * SECTION_SIZE, 7 * SECTION_SIZE + MIB, RegionKind::Firmware),
            region(7 * SECTION_SIZE + MIB, last, RegionKind::Usable),
            region(last, end, RegionKind::Usable),
        ])));
        frames.lock().take(1, Owner::PageTable).expect("there is room");
        let node = |n| NodeId::new(n).expect("in reach");
        let runs = |limit, kernelcore| {
            let mut ram = BootRam::default();
            ram.add_kept(node(0), PfnRange::inside(MIB, SECTION_SIZE));
            ram.add(node(0), PfnRange::inside(SECTION_SIZE, 6 * SECTION_SIZE));
            ram.add(node(1), PfnRange::inside(6 * SECTION_SIZE, 7 * SECTION_SIZE));
            ram.add(node(1), PfnRange::inside(8 * SECTION_SIZE, end));
            ram.split(kernelcore);
            let homes = (0..12).map(|n| (SectionId::new(n).expect("it exists"), node(u32::from(n > 5))));
            let mut blocks: Vec<_> = homes.map(|(id, node)| BootBlock { id, node, empty_in: None }).collect();
            find_empty(&frames, &mut blocks, &ram, limit);
            let runs = blocks.chunk_by(BootBlock::is_like);
            runs.map(|run| (run.len(), run[0].empty_in)).collect::<Vec<_>>()
        };
        let (normal, movable) = (Some(ZoneKind::Normal), Some(ZoneKind::Movable));
        let all = [(1, None), (5, normal), (1, normal), (1, None), (3, normal), (1, None)];
        assert_eq!(runs(u64::MAX, KernelCore::default()), all);
        let cut = [(1, None), (5, normal), (1, normal), (1, None), (1, normal), (1, None), (1, None), (1, None)];
        assert_eq!(runs(10 * SECTION_SIZE - MIB, KernelCore::default()), cut);
        // On node 1 a section in the middle of what may be Movable is cut, on node 0 one is, too, behind what is kept.
        let seven = KernelCore { kernel: Some(Amount::Bytes(7 * SECTION_SIZE)), movable: None };
        let split = [
            (1, None),
            (2, normal),
            (1, None),
            (2, movable),
            (1, normal),
            (1, None),
            (2, normal),
            (1, None),
            (1, None),
        ];
        assert_eq!(runs(u64::MAX, seven), split);
    }

    #[test]
    fn a_block_that_holds_nothing_is_opened_where_there_is_no_room_in_those_below_that_do() {
        let region = |start, end, kind| MemoryRegion { start, end, kind };
        let opened = |first: &[MemoryRegion], movable_from: Option<u64>| {
            let rest = region(SECTION_SIZE, 4 * SECTION_SIZE, RegionKind::Usable);
            let regions: Vec<_> = first.iter().cloned().chain([rest]).collect();
            let frames = SpinLock::new(EarlyFrames::new(Ram::new(&regions)));
            frames.lock().take(1, Owner::PageTable).expect("there is room");
            let mut ram = BootRam::default();
            ram.add_kept(NodeId::ZERO, PfnRange::inside(MIB, SECTION_SIZE));
            ram.add(NodeId::ZERO, PfnRange::inside(SECTION_SIZE, 4 * SECTION_SIZE));
            if let Some(end) = movable_from {
                ram.split(KernelCore { kernel: Some(Amount::Bytes(end)), movable: None });
            }
            let ids = (0..4).map(|n| SectionId::new(n).expect("it exists"));
            let mut blocks: Vec<_> = ids.map(|id| BootBlock { id, node: NodeId::ZERO, empty_in: None }).collect();
            let found = remove_opened(&frames, &mut blocks, &ram, u64::MAX);
            assert_eq!(blocks.len() + usize::from(found.is_some()), 4);
            assert!(found.is_none_or(|found| !blocks.contains(&found)));
            found.map(|block| block.id.number())
        };
        let pieces: Vec<_> = (1..128).map(|mib| region(mib * MIB, mib * MIB + MIB / 2, RegionKind::Usable)).collect();
        assert_eq!(opened(&pieces, None), Some(1), "not one of them has room for the struct pages of the first block");
        let half = region(MIB, SECTION_SIZE / 2, RegionKind::Usable);
        assert_eq!(opened(&[half], None), None);
        let little = region(MIB, 18 * MIB, RegionKind::Usable);
        assert_eq!(opened(&[little], None), Some(1), "a frame is missing");
        assert_eq!(opened(&[region(MIB, 18 * MIB + PAGE_SIZE, RegionKind::Usable)], None), None);
        assert_eq!(opened(&[little], Some(SECTION_SIZE)), None, "all others are Movable");
    }

    #[test]
    fn the_list_of_uses_does_not_grow_while_the_frames_are_locked() {
        let frames = frames();
        frames.lock().close();
        let first = SectionId::new(0).expect("it exists");
        let collected = |limit| {
            let mut uses = std::vec![(PfnRange::EMPTY, BootUse::Free)];
            uses.shrink_to_fit();
            collect_uses(&frames, first, PfnRange::inside(0, limit), &mut uses);
            uses
        };
        let all = collected(u64::MAX);
        let room = all.capacity();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1], (PfnRange::inside(0x20_0000, 0x30_0000), BootUse::Reserved(Owner::KernelImage)));
        let some = collected(0x18_0000);
        assert_eq!(some, [(PfnRange::inside(0x10_0000, 0x18_0000), BootUse::Free)]);
        assert_eq!(some.capacity(), room, "there is room for what turns out not to be visible");
    }

    #[test]
    fn the_memmap_of_a_boot_section_takes_the_lowest_free_run_that_holds_it() {
        let run = |start, len| PfnRange::new(Pfn::new(start), len);
        let mut uses =
            std::vec![(run(0, 255), BootUse::Free), (run(300, 10), BootUse::Memmap), (run(1000, 300), BootUse::Free)];
        assert_eq!(place_memmap(&mut uses), Some(run(1000, 256)));
        assert_eq!(uses[2..], [(run(1000, 256), BootUse::Memmap), (run(1256, 44), BootUse::Free)]);
        assert_eq!(place_memmap(&mut uses), None);
    }
}
