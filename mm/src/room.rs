//! What is free, and what of it must be left alone: the one place where that is counted.
//!
//! The kernel lives on Normal memory. The last [`RESERVE_PAGES`] of what the machine booted with are for hotplug itself; all
//! else there may be taken, also added memory, of which nothing is reserved. Whoever takes in bulk leaves [`KERNEL_PAGES`] of it: an
//! add whose struct pages lie in the system, a fill, and what moves there. A policy leaves more, see [`outlook`](crate::outlook).
//!
//! Somebody who takes Normal memory away by a command, to Movable or offline, is obeyed, as on Linux, though the kernel may have
//! little left. But the reserve stays: without it, no command could bring memory back.
//!
//! A large page for which there is no whole pageblock is split, and its parts need a page table, which only a Normal zone can
//! give. What is left there for the kernel, [`KERNEL_PAGES`] if there are so many, is enough for as many splits, which need not be
//! counted; those beyond are, and large pages that would go to Normal whole are split instead of taking what is left.

use crate::addr::{Order, SectionRange};
use crate::alloc::Mobility;
use crate::content::Block;
use crate::machine::Machine;
use crate::memory::{KERNEL_PAGES, Memory, RESERVE_PAGES, zone_number};
use crate::pageblock::{FRAMES, Pageblock};
use crate::section::ZoneKind;
use crate::zone::Origin;
use core::ops::AddAssign;

/// Frames that need a place, by where they may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Need {
    /// Anywhere.
    movable: u64,
    /// To Normal zones only.
    kernel: u64,
    /// Pageblocks among them, each of which may have to be split.
    large: u64,
}

impl AddAssign for Need {
    fn add_assign(&mut self, other: Self) {
        self.movable += other.movable;
        self.kernel += other.kernel;
        self.large += other.large;
    }
}

impl Need {
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

    /// What is free in Movable zones.
    pub(crate) const fn movable(self) -> u64 {
        self.movable
    }

    /// How many frames of the reserve have no place here, if a part of it may go with what leaves.
    pub(crate) const fn reserve_lack(self, leaving: Self) -> u64 {
        if leaving.boot == 0 { 0 } else { RESERVE_PAGES.saturating_sub(self.boot) }
    }

    /// How many frames are missing to give `need` a place, and leave the kernel what bulk users leave it.
    pub(crate) const fn lack(self, need: Need) -> u64 {
        let normal = self.bulk();
        let kernel = need.kernel + self.tables(need);
        let kernel_lack = kernel.saturating_sub(normal);
        let rest = normal.saturating_sub(kernel) + self.movable;
        kernel_lack + need.movable.saturating_sub(rest)
    }

    /// Page tables for splits, beyond those that what is left for the kernel has frames for.
    const fn tables(self, need: Need) -> u64 {
        let splits = need.large.saturating_sub(self.whole.saturating_sub(need.filled()));
        let left = self.kernel() - self.bulk();
        splits.saturating_sub(left)
    }

    /// Free frames that must stay in Normal zones when movable memory comes there, for the kernel and for what else of `need` can
    /// go nowhere else.
    pub(crate) const fn kept(self, need: Need) -> u64 {
        KERNEL_PAGES + need.kernel + self.tables(need)
    }
}

impl<M: Machine> Memory<M> {
    /// What is free in all zones, caches included; what an offline under way has isolated is not.
    pub(crate) fn room(&self) -> Room {
        self.room_in(&ZoneKind::ALL)
    }

    /// Free frames that unmovable memory can get.
    pub(crate) fn kernel_available(&self) -> u64 {
        self.room_in(&[ZoneKind::Normal]).kernel()
    }

    /// Whether bulk users have to leave what there is to the kernel.
    pub fn is_kernel_short(&self) -> bool {
        self.kernel_available() < KERNEL_PAGES
    }

    fn room_in(&self, kinds: &[ZoneKind]) -> Room {
        let mut room = Room::default();
        for (node, kind) in self.all_zones().filter(|(_, kind)| kinds.contains(kind)) {
            let cached = Origin::ALL.map(|origin| self.cached_pages_of(zone_number(node, kind), origin));
            let zone = self.zone(node, kind);
            for (origin, cached) in Origin::ALL.into_iter().zip(cached) {
                // What went from a cache to the zone in between is there once.
                let free = (zone.free_pages_of(origin) + cached).min(zone.managed_pages_of(origin));
                room.include(kind, origin, free);
            }
            room.include_whole(kind, zone.whole_blocks());
        }
        room
    }

    /// What is free in those of `ranges` that are boot memory.
    pub(crate) fn boot_room_in(&self, ranges: &[SectionRange]) -> Room {
        let mut room = Room::default();
        for (run, section) in self.present_runs(ranges).filter(|(_, section)| section.is_boot()) {
            let Some(kind) = section.state.zone() else { continue };
            let blocks = run.iter().flat_map(Pageblock::of_section);
            room.include(kind, Origin::Boot, blocks.map(|block| block.descriptor(&self.machine).free()).sum());
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: u64 = RESERVE_PAGES + KERNEL_PAGES;

    #[test]
    fn movable_memory_goes_anywhere_and_kernel_memory_to_normal_only() {
        let room = Room { boot: LEFT + 10, added: 5, movable: 100, whole: 0 };
        let lack = |movable, kernel| room.lack(Need { movable, kernel, large: 0 });
        assert_eq!((lack(115, 0), lack(116, 0)), (0, 1));
        assert_eq!((lack(100, 15), lack(101, 15)), (0, 1));
        assert_eq!((lack(0, 16), lack(100, 16)), (1, 1));
    }

    #[test]
    fn the_reserve_is_of_boot_memory_and_what_the_kernel_needs_of_any() {
        let lack = |boot, added| Room { boot, added, ..Room::default() }.lack(Need { movable: 1, ..Need::default() });
        assert_eq!((lack(LEFT + 1, 0), lack(LEFT, 0)), (0, 1));
        assert_eq!((lack(0, KERNEL_PAGES + 1), lack(0, KERNEL_PAGES)), (0, 1));
    }

    #[test]
    fn tables_for_splits_are_missing_when_they_are_more_than_what_is_left_for_the_kernel() {
        let lack = |boot, whole, large, small| {
            let room = Room { boot: LEFT + boot, added: 0, movable: 1 << 40, whole };
            room.lack(Need { movable: large * FRAMES + small, kernel: 0, large })
        };
        assert_eq!((lack(0, 0, KERNEL_PAGES, 0), lack(0, 0, KERNEL_PAGES + 1, 0)), (0, 1));
        assert_eq!((lack(1, 0, KERNEL_PAGES + 1, 0), lack(1, 0, KERNEL_PAGES + 2, 0)), (0, 1));
        assert_eq!((lack(0, 9, KERNEL_PAGES + 9, 0), lack(0, 9, KERNEL_PAGES + 10, 0)), (0, 1));
        // Smaller ones may fill whole pageblocks before the large ones come.
        assert_eq!((lack(0, 9, KERNEL_PAGES + 8, FRAMES), lack(0, 9, KERNEL_PAGES + 8, FRAMES + 1)), (0, 1));
        assert_eq!(lack(0, 0, 0, 1 << 39), 0);
        // There may be less than shall be left.
        let few = Room { boot: RESERVE_PAGES + 3, added: 0, movable: 1 << 40, whole: 1 };
        let few_lack = |large| few.lack(Need { movable: large * FRAMES, kernel: 0, large });
        assert_eq!((few_lack(4), few_lack(5)), (0, 1));
    }

    #[test]
    fn what_the_kernel_can_get_is_boot_memory_above_the_reserve_and_all_that_was_added() {
        for (boot, added, kernel) in
            [(0, 300, 300), (RESERVE_PAGES - 1, 300, 300), (RESERVE_PAGES, 0, 0), (LEFT, 300, KERNEL_PAGES + 300)]
        {
            let room = Room { boot, added, movable: 7, whole: 0 };
            let bulk = kernel.saturating_sub(KERNEL_PAGES);
            assert_eq!((room.kernel(), room.bulk(), room.available()), (kernel, bulk, kernel + 7));
        }
    }
}
