//! Making `mm` the owner of all memory: where memory may come, what `mem=` hides, what `mm` keeps its books in; then every
//! [block of boot memory](super::boot_blocks).

use super::boot_blocks::{self, BootBlock};
use super::kernelcore::KernelCore;
use super::mover::{self, HeapMover};
use crate::firmware::Firmware;
use crate::firmware::slit::Slit;
use crate::firmware::window::{self, Reach, Window};
use crate::memory::frames::early::EarlyFrames;
use crate::memory::frames::{EARLY, Kernel, MM};
use crate::memory::layout;
use crate::memory::paging::editor::Editor;
use crate::memory::paging::entry::Level;
use crate::memory::paging::tables::KernelEditor;
use crate::memory::paging::{boot_map, ranges, tables};
use crate::sync::SpinLock;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use mm::addr::{MAX_PHYS_BITS, PAGE_SIZE, PfnRange, SECTION_LIMIT, SECTION_SIZE, SectionId, SectionRange};
use mm::frame::page::Owner;
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

    let (mut blocks, ram) = boot_blocks::list(srat, &sections, limit, kernelcore);
    let opened = boot_blocks::remove_opened(&EARLY, &mut blocks, &ram, limit);
    if let Some(block) = opened {
        boot_blocks::make_table(block.id);
    }

    // From here until `mm` has frames the heap has only those that it has already.
    EARLY.lock().close();
    boot_blocks::find_empty(&EARLY, &mut blocks, &ram, limit);
    let mut uses = Vec::new();
    let mm = MM.call_once(|| Memory::new(Kernel, storage));
    if let Some(block) = opened {
        boot_blocks::hand_over(mm, &ram, block, limit, &mut uses);
    }
    for run in blocks.chunk_by(BootBlock::is_like) {
        match run[0].empty_in {
            Some(zone) => boot_blocks::hand_over_empty(mm, run, zone),
            None => boot_blocks::hand_over(mm, &ram, run[0], limit, &mut uses),
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
        boot_blocks::make_table(*id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{MemoryRegion, RegionKind};
    use crate::memory::frames::ram::Ram;

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
    fn the_list_of_sections_does_not_grow_while_the_frames_are_locked() {
        let frames = frames();
        let found = sections_where(&frames, |_, _| true);
        assert_eq!(found.iter().map(|id| id.number()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(found.capacity(), 2);
        let untouched = sections_where(&frames, EarlyFrames::is_untouched);
        assert_eq!(untouched.iter().map(|id| id.number()).collect::<Vec<_>>(), [1]);
    }
}
