//! The memory map, made of regions that come in any order and may overlap.

use super::facts::{MemoryMap, MemoryRegion, RegionKind};
use mm::plural::Plural;

/// Who counts where regions overlap: the last.
const RANKS: [RegionKind; 3] = [RegionKind::Usable, RegionKind::Firmware, RegionKind::Bootloader];

/// The map that is made of the regions that were found.
pub(super) fn memory_map(regions: impl Iterator<Item = MemoryRegion> + Clone) -> MemoryMap {
    let (memory, dropped) = merge(regions);
    if dropped > 0 {
        log::warn!(target: "boot", "no room for {} of the memory map; that memory stays unused", Plural(dropped as u64, "region"));
    }
    memory
}

/// Lays regions over each other, the lowest rank first; what does not fit is counted, and the kernel does without it.
fn merge(regions: impl Iterator<Item = MemoryRegion> + Clone) -> (MemoryMap, usize) {
    let mut map = MemoryMap::new();
    let mut dropped = 0;
    for rank in RANKS {
        for region in regions.clone().filter(|region| region.kind == rank && region.start < region.end) {
            dropped += lay_over(&mut map, region);
        }
    }
    (map, dropped)
}

/// Gives all of `region` its kind, and joins it with neighbours of that kind; returns how many regions are lost by it.
fn lay_over(map: &mut MemoryMap, mut region: MemoryRegion) -> usize {
    let lost = cut(map, region.start) + cut(map, region.end);
    map.retain(|other| other.end <= region.start || region.end <= other.start);
    let at = map.partition_point(|other| other.start < region.start);
    if let Some(next) = map.get(at).filter(|next| next.start == region.end && next.kind == region.kind) {
        region.end = next.end;
        map.remove(at);
    }
    match map[..at].last_mut() {
        Some(previous) if previous.end == region.start && previous.kind == region.kind => {
            previous.end = region.end;
            lost
        }
        _ => lost + insert(map, at, region),
    }
}

/// Makes two regions of the one that `address` lies inside of.
fn cut(map: &mut MemoryMap, address: u64) -> usize {
    let Some(at) = map.iter().position(|region| region.start < address && address < region.end) else { return 0 };
    let upper = MemoryRegion { start: address, ..map[at] };
    map[at].end = address;
    insert(map, at + 1, upper)
}

/// Puts a region into a map that may be full: then the highest one is lost. Low memory is what a machine boots with.
fn insert(map: &mut MemoryMap, at: usize, region: MemoryRegion) -> usize {
    let is_full = map.is_full();
    if is_full && at < map.len() {
        map.pop();
    }
    // It is the highest itself where there is still no room.
    map.insert(at, region).ok();
    usize::from(is_full)
}

#[cfg(test)]
mod tests {
    use super::super::facts::REGIONS_MAX;
    use super::RegionKind::{Bootloader, Firmware, Usable};
    use super::*;
    use std::vec::Vec;

    fn region(start: u64, end: u64, kind: RegionKind) -> MemoryRegion {
        MemoryRegion { start, end, kind }
    }

    #[track_caller]
    fn assert_merged(regions: &[MemoryRegion], expected: &[MemoryRegion]) {
        assert_eq!(merge(regions.iter().copied()), (expected.iter().copied().collect(), 0));
        assert_eq!(merge(regions.iter().rev().copied()), (expected.iter().copied().collect(), 0), "in reverse");
    }

    #[test]
    fn neighbours_of_one_kind_become_one_region() {
        assert_merged(
            &[region(0, 10, Usable), region(10, 20, Usable), region(30, 40, Usable), region(40, 50, Firmware)],
            &[region(0, 20, Usable), region(30, 40, Usable), region(40, 50, Firmware)],
        );
        assert_merged(
            &[region(0, 10, Usable), region(20, 30, Usable), region(10, 20, Usable)],
            &[region(0, 30, Usable)],
        );
    }

    #[test]
    fn an_empty_region_vanishes() {
        assert_merged(&[region(5, 5, Usable), region(9, 3, Usable)], &[]);
    }

    #[test]
    fn where_regions_overlap_the_stricter_kind_counts() {
        assert_merged(
            &[region(0, 100, Usable), region(20, 30, Firmware), region(25, 40, Bootloader)],
            &[region(0, 20, Usable), region(20, 25, Firmware), region(25, 40, Bootloader), region(40, 100, Usable)],
        );
        assert_merged(
            &[region(10, 20, Usable), region(30, 40, Usable), region(15, 35, Firmware), region(18, 22, Usable)],
            &[region(10, 15, Usable), region(15, 35, Firmware), region(35, 40, Usable)],
        );
        assert_merged(&[region(10, 20, Usable), region(0, 100, Firmware)], &[region(0, 100, Firmware)]);
        assert_merged(&[region(10, 30, Usable), region(20, 50, Usable)], &[region(10, 50, Usable)]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_image_fits_always() {
        let count = REGIONS_MAX as u64 + 3;
        let many = (0..count).map(|n| region(n * 10, n * 10 + 5, Usable));
        assert_eq!(merge(many.clone()).1, 3);
        let image = region(22, 24, Bootloader);
        let (merged, dropped) = merge(many.chain([image]));
        assert!(merged.contains(&image) && merged.contains(&region(20, 22, Usable)));
        assert_eq!((merged.len(), dropped), (REGIONS_MAX, 5));
    }

    proptest::proptest! {
        #[test]
        fn a_map_is_sorted_and_says_of_every_address_what_the_strictest_region_says(
            found in proptest::collection::vec((0..100u64, 0..100u64, 0..3usize), 0..30)
        ) {
            let regions: Vec<_> =
                found.iter().map(|(start, end, rank)| region(*start, *end, RANKS[*rank])).collect();
            let (map, dropped) = merge(regions.iter().copied());
            assert_eq!(dropped, 0);
            assert!(map.iter().all(|region| region.start < region.end));
            assert!(map.windows(2).all(|pair| pair[0].end < pair[1].start
                || pair[0].end == pair[1].start && pair[0].kind != pair[1].kind));
            let rank = |regions: &[MemoryRegion], at| {
                let here = regions.iter().filter(|region| (region.start..region.end).contains(&at));
                here.filter_map(|region| RANKS.iter().position(|rank| *rank == region.kind)).max()
            };
            for at in 0..100 {
                assert_eq!(rank(&map, at), rank(&regions, at), "at {at}");
            }
        }
    }
}
