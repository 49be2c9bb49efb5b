//! Watermarks: what is free for the kernel, and what must be left, as far as can be told without a lock.
//!
//! From the lowest: [`RESERVE_PAGES`](crate::limits::RESERVE_PAGES) of boot memory are for hotplug alone, [`KERNEL_PAGES`]
//! more are left to the kernel by bulk users. There is no reclaim, so a request that would cross its watermark falls back to
//! the next source, or fails.

use crate::limits::KERNEL_PAGES;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::kind::{Origin, ZoneKind};
use crate::zone::zones::kind_of_zone;
use core::sync::atomic::Ordering;

impl<M: Machine> Memory<M> {
    /// Returns whether Normal zones are at the watermark of bulk users, who can have nothing of them but what lies in per-CPU
    /// page lists.
    pub fn is_kernel_short(&self) -> bool {
        bulk_spare(self) == 0
    }
}

/// Whether what hotplug may take, and nobody else, is used in part. `zone` is where a free frame of boot memory lies.
#[inline]
pub(crate) fn is_reserve_short<M: Machine>(memory: &Memory<M>, zone: usize) -> bool {
    kind_of_zone(zone) == ZoneKind::Normal && memory.boot_free.is_reserve_short()
}

/// Whether the kernel will soon depend on memory that is to be opened, or was added.
pub(crate) fn is_boot_memory_short<M: Machine>(memory: &Memory<M>) -> bool {
    memory.boot_free.is_short()
}

/// Frames in Normal zones that bulk users can have, as far as can be told without a lock; those in caches are not among them.
pub(crate) fn bulk_spare<M: Machine>(memory: &Memory<M>) -> u64 {
    kernel_free(memory).saturating_sub(floor(memory))
}

/// Those that unmovable memory can get, in the same way.
pub(crate) fn kernel_free<M: Machine>(memory: &Memory<M>) -> u64 {
    memory.boot_free.spare() + free_beside(memory)
}

/// Frames in Normal zones, the reserve not among them, that bulk users leave.
pub(crate) fn floor<M: Machine>(memory: &Memory<M>) -> u64 {
    KERNEL_PAGES + memory.promised.load(Ordering::Relaxed)
}

/// Frames in Normal zones that are free beside those of open boot memory, as far as can be told without a lock.
pub(crate) fn free_beside<M: Machine>(memory: &Memory<M>) -> u64 {
    let normal = memory.zones.all().filter(|(_, kind)| *kind == ZoneKind::Normal);
    let free = |(node, kind)| {
        let zone = memory.zones.cell(node, kind);
        zone.unopened(Origin::Boot) + zone.unopened(Origin::Added) + zone.open_free(Origin::Added)
    };
    normal.map(free).sum()
}
