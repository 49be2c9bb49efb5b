//! The blocks of boot memory, and how each is handed to `mm`. Of a section in which something is in use, `mm` learns what each frame
//! is used for, and its memmap is made in frames that are free. Of all others nothing is touched: they are handed over in runs, each
//! with room for its page tables and memmaps at its head.
//!
//! Tables that runs share, and the heap, take frames that are open. Where those in use do not leave enough of them, the lowest of the
//! others is opened, too, before all runs.

use super::kernelcore::{BootRam, KernelCore};
use super::machine;
use crate::firmware::owners::Owners;
use crate::firmware::srat::Srat;
use crate::memory::frames::early::EarlyFrames;
use crate::memory::frames::ram::PIECES_MAX;
use crate::memory::frames::{self, EARLY, Kernel};
use crate::memory::paging::{shared_tables, tables};
use crate::sync::SpinLock;
use alloc::vec::Vec;
use core::cmp::Reverse;
use mm::Memory;
use mm::addr::{NodeId, Pfn, PfnRange, SECTION_SIZE, SectionId, SectionRange};
use mm::frame::page::MEMMAP_PAGES;
use mm::hotplug::{BootSection, BootUse, EmptyBootSections};
use mm::limits::KERNEL_FLOOR_PAGES;
use mm::machine::mapper::Mapper;
use mm::section::kind::ZoneKind;

/// A section with RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BootBlock {
    pub(super) id: SectionId,
    node: NodeId,
    /// The one zone of a section that is all there and holds nothing.
    pub(super) empty_in: Option<ZoneKind>,
}

impl BootBlock {
    /// Whether `next` can be handed over with it.
    pub(super) fn is_like(&self, next: &Self) -> bool {
        self.empty_in.is_some()
            && (self.empty_in, self.node, self.id.next()) == (next.empty_in, next.node, Some(next.id))
    }
}

/// Removes the block that is to be opened though it holds nothing: the lowest in Normal, unless those below it that hold something
/// have enough room for what the kernel takes until it can open one itself.
pub(super) fn remove_opened(
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
pub(super) fn find_empty(frames: &SpinLock<EarlyFrames>, blocks: &mut [BootBlock], ram: &BootRam, limit: u64) {
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
pub(super) fn list(
    srat: &Srat,
    sections: &[SectionId],
    limit: u64,
    kernelcore: KernelCore,
) -> (Vec<BootBlock>, BootRam) {
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
pub(super) fn hand_over_empty(mm: &Memory<Kernel>, blocks: &[BootBlock], zone: ZoneKind) {
    let BootBlock { id, node, .. } = blocks[0];
    let all = SectionRange::new(id.number().into(), blocks.len() as u64).expect("a run of sections that exist");
    for range in all.cut(Kernel::PART) {
        let tables = machine::prepare_boot(range);
        mm.add_empty_boot_sections(&EmptyBootSections { range, node, zone, tables });
    }
}

/// Hands a block over that is opened at once: it holds something, is in two zones or not all there, or is opened for the others.
pub(super) fn hand_over(
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

/// Makes the page table for the struct pages of a section, if there is none yet.
pub(super) fn make_table(id: SectionId) {
    tables::edit(|tree| shared_tables::claim_one(tree, id)).expect("boot memory has room for its page tables");
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

#[cfg(test)]
mod tests {
    use super::super::kernelcore::Amount;
    use super::*;
    use crate::entry::{MemoryRegion, RegionKind};
    use crate::firmware::owners::MemoryAffinity;
    use crate::memory::frames::ram::Ram;
    use mm::addr::PAGE_SIZE;
    use mm::frame::page::Owner;

    const MIB: u64 = 1 << 20;

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
