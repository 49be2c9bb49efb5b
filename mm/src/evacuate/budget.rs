//! What is free, and what of it must be left alone: the one place where that is counted.
//!
//! The kernel lives on Normal memory. The last [`RESERVE_PAGES`] of what the machine booted with are for hotplug itself; all
//! else there may be taken, also added memory, of which nothing is reserved. Bulk users leave [`KERNEL_PAGES`] of it, and
//! what others were [promised](crate::record::promise): an add whose struct pages lie in the system, a fill, page tables of address spaces,
//! and what moves there. A policy leaves more, see [`zone_choice`](crate::hotplug::zone_choice).
//!
//! A command that takes Normal memory away, to Movable or offline, is obeyed, as on Linux, though the kernel may have
//! little left. But the reserve stays: without it, no command could bring memory back.
//!
//! A large page for which there is no whole pageblock is split, and its parts need a page table, which finds its place where
//! they do.

use crate::addr::{Order, SectionRange};
use crate::alloc::caches;
use crate::evacuate::content::Block;
use crate::frame::mobility::Mobility;
use crate::frame::pageblock::{FRAMES, Pageblock};
use crate::limits::{KERNEL_PAGES, RESERVE_PAGES};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::kind::{Origin, ZoneKind};
use crate::zone::zones::zone_number;
use core::ops::AddAssign;
use core::sync::atomic::Ordering;

/// Frames that are to move, by where they may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Demand {
    /// Anywhere.
    movable: u64,
    /// To Normal zones only.
    kernel: u64,
    /// Pageblocks among them, each of which may have to be split.
    large: u64,
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Self) {
        self.movable += other.movable;
        self.kernel += other.kernel;
        self.large += other.large;
    }
}

impl Demand {
    pub(crate) const fn add(&mut self, block: Block) {
        match block.mobility {
            Mobility::Movable => self.movable += block.order.pages(),
            Mobility::Unmovable => self.kernel += block.order.pages(),
        }
        self.large += (block.order.index() == Order::PAGEBLOCK.index()) as u64;
    }

    pub(crate) const fn pages(self) -> u64 {
        self.movable + self.kernel
    }

    /// To Normal zones only.
    pub(crate) const fn kernel(self) -> u64 {
        self.kernel
    }

    /// Pageblocks that all the smaller ones fill.
    const fn filled(self) -> u64 {
        self.pages().saturating_sub(self.large * FRAMES).div_ceil(FRAMES)
    }
}

/// Free frames that can be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Room {
    /// Of boot memory in Normal zones, the reserve included.
    boot: u64,
    /// Of added memory in Normal zones.
    added: u64,
    /// In Movable zones.
    movable: u64,
    /// Pageblocks among those in Movable zones that are free as a whole.
    whole: u64,
    /// Of what is in Normal zones, what operations under way will still take.
    promised: u64,
    /// On its way into Movable zones.
    expected: u64,
}

impl Room {
    const fn place(&mut self, kind: ZoneKind, origin: Origin) -> &mut u64 {
        match (kind, origin) {
            (ZoneKind::Movable, _) => &mut self.movable,
            (ZoneKind::Normal, Origin::Boot) => &mut self.boot,
            (ZoneKind::Normal, Origin::Added) => &mut self.added,
        }
    }

    /// With so many free frames of a zone more.
    pub(crate) const fn include(&mut self, kind: ZoneKind, origin: Origin, pages: u64) {
        *self.place(kind, origin) += pages;
    }

    /// With so many pageblocks more among them that are free as a whole.
    pub(crate) const fn include_whole(&mut self, kind: ZoneKind, count: u64) {
        if matches!(kind, ZoneKind::Movable) {
            self.whole += count;
        }
    }

    /// What is left when another part is not to be counted on.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self {
            boot: self.boot.saturating_sub(other.boot),
            added: self.added.saturating_sub(other.added),
            movable: self.movable.saturating_sub(other.movable),
            whole: self.whole.saturating_sub(other.whole),
            ..self
        }
    }

    /// What unmovable memory can get.
    pub(crate) const fn kernel(self) -> u64 {
        self.boot.saturating_sub(RESERVE_PAGES) + self.added
    }

    /// What bulk users can get in Normal zones.
    pub(crate) const fn bulk(self) -> u64 {
        self.kernel().saturating_sub(KERNEL_PAGES)
    }

    /// What movable memory can get.
    pub(crate) const fn available(self) -> u64 {
        self.kernel() + self.movable
    }

    /// What is free in Movable zones, or on its way there.
    pub(crate) const fn movable_soon(self) -> u64 {
        self.movable + self.expected
    }

    /// How many frames of the reserve have no place here, if a part of it may go with what leaves. What of this is not open
    /// yet is opened [before](crate::alloc::ahead) anything leaves.
    pub(crate) const fn reserve_shortfall(self, leaving: Self) -> u64 {
        if leaving.boot == 0 { 0 } else { RESERVE_PAGES.saturating_sub(self.boot) }
    }

    /// How many frames are missing to give `demand` a place, and leave the kernel what bulk users leave it.
    pub(crate) const fn shortfall(self, demand: Demand) -> u64 {
        let normal = self.bulk().saturating_sub(self.promised);
        let kernel_shortfall = demand.kernel.saturating_sub(normal);
        let rest = normal.saturating_sub(demand.kernel) + self.movable;
        kernel_shortfall + (demand.movable + self.tables(demand)).saturating_sub(rest)
    }

    /// Page tables for large pages that may have to be split. Smaller ones may fill whole pageblocks before those come.
    const fn tables(self, demand: Demand) -> u64 {
        demand.large.saturating_sub(self.whole.saturating_sub(demand.filled()))
    }
}

/// What is free in all zones, caches included; what an offline under way has isolated is not.
pub(crate) fn room<M: Machine>(memory: &Memory<M>) -> Room {
    let mut room = Room { promised: memory.promised.load(Ordering::Relaxed), ..Room::default() };
    for (node, kind) in memory.zones.all() {
        let cached = caches::cached_pages_by_origin(memory, zone_number(node, kind));
        let zone = memory.zones.lock(node, kind);
        for (origin, cached) in Origin::ALL.into_iter().zip(cached) {
            // What went from a cache to the zone in between is there once.
            let free = (zone.free_pages_of(origin) + cached).min(zone.managed_pages_of(origin));
            room.include(kind, origin, free);
        }
        room.include_whole(kind, zone.whole_blocks());
        room.expected += zone.expected_pages();
    }
    room
}

/// What is free in those of `ranges`, which are isolated, that are boot memory.
pub(crate) fn boot_room_in<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) -> Room {
    let mut room = Room::default();
    for (run, section) in memory.sections.present_runs(ranges).filter(|(_, section)| section.origin == Origin::Boot) {
        let Some(kind) = section.state.zone() else { continue };
        let in_open =
            || run.iter().flat_map(Pageblock::of_section).map(|block| block.descriptor(&memory.machine).free());
        let free = if section.is_open() { in_open().sum() } else { run.count() * section.usable() };
        room.include(kind, Origin::Boot, free);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: u64 = RESERVE_PAGES + KERNEL_PAGES;

    #[test]
    fn movable_memory_goes_anywhere_and_kernel_memory_to_normal_only() {
        let room = Room { boot: LEFT + 10, added: 5, movable: 100, ..Room::default() };
        let shortfall = |movable, kernel| room.shortfall(Demand { movable, kernel, large: 0 });
        assert_eq!((shortfall(115, 0), shortfall(116, 0)), (0, 1));
        assert_eq!((shortfall(100, 15), shortfall(101, 15)), (0, 1));
        assert_eq!((shortfall(0, 16), shortfall(100, 16)), (1, 1));
    }

    #[test]
    fn the_reserve_is_of_boot_memory_and_what_the_kernel_needs_of_any() {
        let shortfall =
            |boot, added| Room { boot, added, ..Room::default() }.shortfall(Demand { movable: 1, ..Demand::default() });
        assert_eq!((shortfall(LEFT + 1, 0), shortfall(LEFT, 0)), (0, 1));
        assert_eq!((shortfall(0, KERNEL_PAGES + 1), shortfall(0, KERNEL_PAGES)), (0, 1));
    }

    #[test]
    fn tables_for_splits_are_counted_where_the_parts_are() {
        let shortfall = |spare, whole, large, small| {
            let movable = large * FRAMES + small;
            let room = Room { boot: LEFT, movable: movable + spare, whole, ..Room::default() };
            room.shortfall(Demand { movable, kernel: 0, large })
        };
        assert_eq!((shortfall(7, 0, 7, 0), shortfall(7, 0, 8, 0)), (0, 1));
        assert_eq!((shortfall(7, 9, 16, 0), shortfall(7, 9, 17, 0)), (0, 1));
        // Smaller ones may fill whole pageblocks before the large ones come.
        assert_eq!((shortfall(7, 9, 15, FRAMES), shortfall(7, 9, 15, FRAMES + 1)), (0, 1));
        assert_eq!(shortfall(0, 0, 0, 1 << 39), 0);
        // Normal memory serves, too, as far as it is not the kernel's.
        let shortfall = |boot| {
            let room = Room { boot, movable: 8 * FRAMES, ..Room::default() };
            room.shortfall(Demand { movable: 8 * FRAMES, kernel: 0, large: 8 })
        };
        assert_eq!((shortfall(LEFT + 8), shortfall(LEFT + 7), shortfall(RESERVE_PAGES)), (0, 1, 8));
    }

    #[test]
    fn what_is_promised_to_others_is_no_room() {
        let shortfall = |promised| {
            let room = Room { boot: LEFT + 10, movable: 5, promised, ..Room::default() };
            room.shortfall(Demand { movable: 8, kernel: 4, large: 0 })
        };
        assert_eq!([3, 4, 7, 99].map(shortfall), [0, 1, 4, 7]);
    }

    #[test]
    fn what_the_kernel_can_get_is_boot_memory_above_the_reserve_and_all_that_was_added() {
        for (boot, added, kernel) in
            [(0, 300, 300), (RESERVE_PAGES - 1, 300, 300), (RESERVE_PAGES, 0, 0), (LEFT, 300, KERNEL_PAGES + 300)]
        {
            let room = Room { boot, added, movable: 7, ..Room::default() };
            let bulk = kernel.saturating_sub(KERNEL_PAGES);
            assert_eq!((room.kernel(), room.bulk(), room.available()), (kernel, bulk, kernel + 7));
        }
    }
}
