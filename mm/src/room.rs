//! Whether there is room elsewhere for what is to be moved: counted, so that it is known before anything moves.

use crate::addr::NodeId;
use crate::alloc::Mobility;
use crate::content::Block;
use crate::machine::Machine;
use crate::memory::{KERNEL_PAGES, Memory, RESERVE_PAGES, zone_number};
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
}

impl AddAssign for Need {
    fn add_assign(&mut self, other: Self) {
        self.movable += other.movable;
        self.kernel += other.kernel;
    }
}

impl Need {
    pub(crate) const fn add(&mut self, block: Block) {
        match block.mobility {
            Mobility::Movable => self.movable += block.order.pages(),
            Mobility::Unmovable => self.kernel += block.order.pages(),
        }
    }

    pub(crate) const fn pages(self) -> u64 {
        self.movable + self.kernel
    }
}

/// Free frames that can be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Room {
    /// Of boot memory in Normal zones, a part of which is kept for hotplug.
    boot: u64,
    /// Of added memory in Normal zones.
    added: u64,
    /// In Movable zones.
    movable: u64,
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

    /// What is left when another part is not to be counted on.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self {
            boot: self.boot.saturating_sub(other.boot),
            added: self.added.saturating_sub(other.added),
            movable: self.movable.saturating_sub(other.movable),
        }
    }

    /// How many frames are missing to give `need` a place, and leave the kernel what bulk users leave it.
    pub(crate) const fn lack(self, need: Need) -> u64 {
        let normal = (self.boot.saturating_sub(RESERVE_PAGES) + self.added).saturating_sub(KERNEL_PAGES);
        let kernel_lack = need.kernel.saturating_sub(normal);
        let rest = normal.saturating_sub(need.kernel) + self.movable;
        kernel_lack + need.movable.saturating_sub(rest)
    }
}

impl<M: Machine> Memory<M> {
    /// What is free in all zones, caches included; what an offline under way has isolated is not.
    pub(crate) fn room(&self) -> Room {
        let mut room = Room::default();
        for node in NodeId::all().take(self.node_limit()) {
            for kind in ZoneKind::ALL {
                let [boot, added] = Origin::ALL.map(|origin| self.cached_pages_of(zone_number(node, kind), origin));
                let zone = self.zone(node, kind);
                let free_boot = zone.area(Origin::Boot).pages();
                room.include(kind, Origin::Boot, free_boot + boot);
                room.include(kind, Origin::Added, zone.free_pages() - free_boot + added);
            }
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
        let room = Room { boot: LEFT + 10, added: 5, movable: 100 };
        let lack = |movable, kernel| room.lack(Need { movable, kernel });
        assert_eq!((lack(115, 0), lack(116, 0)), (0, 1));
        assert_eq!((lack(100, 15), lack(101, 15)), (0, 1));
        assert_eq!((lack(0, 16), lack(100, 16)), (1, 1));
    }

    #[test]
    fn the_reserve_is_of_boot_memory_and_what_the_kernel_needs_of_any() {
        let lack = |boot, added| Room { boot, added, movable: 0 }.lack(Need { movable: 1, kernel: 0 });
        assert_eq!((lack(LEFT + 1, 0), lack(LEFT, 0)), (0, 1));
        assert_eq!((lack(0, KERNEL_PAGES + 1), lack(0, KERNEL_PAGES)), (0, 1));
    }
}
