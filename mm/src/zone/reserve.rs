//! Free boot memory in open sections, and the part of it that is kept for hotplug: the lowest watermark.

use crate::addr::Order;
use crate::limits::{AHEAD_PAGES, CACHE_LINE_PAIR, RESERVE_PAGES};
use core::sync::atomic::{AtomicI64, Ordering};

/// How much boot memory is free in open sections of all Normal zones, without what somebody is about to take.
///
/// Ordinary requests set aside what they want before they take it, so that together they never reach into the reserve. What
/// comes and goes otherwise is counted a moment later, so for that moment there may seem to be less than nothing.
#[repr(align(128))]
pub(crate) struct BootFree(AtomicI64);

const _: () =
    assert!(align_of::<BootFree>() == CACHE_LINE_PAIR, "what all CPUs write is on lines without what they read");

impl BootFree {
    const RESERVE: i64 = RESERVE_PAGES as i64;

    pub(crate) const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub(crate) fn add(&self, pages: i64) {
        self.0.fetch_add(pages, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn pages(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the reserve is used in part.
    #[inline]
    pub(crate) fn is_reserve_short(&self) -> bool {
        self.pages() < Self::RESERVE
    }

    /// Whether the kernel will soon depend on memory that is to be opened, or was added.
    pub(crate) fn is_short(&self) -> bool {
        self.pages() < AHEAD_PAGES as i64
    }

    /// Frames above the reserve.
    pub(crate) fn spare(&self) -> u64 {
        Self::above_reserve(self.pages())
    }

    fn above_reserve(pages: i64) -> u64 {
        u64::try_from(pages - Self::RESERVE).unwrap_or(0)
    }

    /// Sets up to `most` blocks above the reserve and so many frames more aside, for somebody who is going to take them; how
    /// many those are.
    pub(crate) fn set_aside(&self, order: Order, most: u64, floor: u64) -> u64 {
        let count_of = |pages: i64| (Self::above_reserve(pages).saturating_sub(floor) >> order.index()).min(most);
        let take = |pages: i64| pages - (count_of(pages) << order.index()) as i64;
        count_of(self.0.update(Ordering::Relaxed, Ordering::Relaxed, take))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_above_the_reserve_is_set_aside() {
        let free = BootFree::new();
        assert_eq!(free.set_aside(Order::PAGE, 1, 0), 0);
        free.add(BootFree::RESERVE + 5);
        assert_eq!(free.set_aside(Order::PAGEBLOCK, 1, 0), 0);
        assert_eq!(free.set_aside(Order::PAGE, 3, 0), 3);
        assert_eq!(free.set_aside(Order::PAGE, 3, 0), 2);
        assert_eq!((free.spare(), free.is_reserve_short()), (0, false));
        free.add(-BootFree::RESERVE - 1);
        assert!(free.is_reserve_short());
        assert_eq!(free.set_aside(Order::PAGE, 1, 0), 0);
    }

    #[test]
    fn what_is_kept_beside_the_reserve_is_not_set_aside() {
        let free = BootFree::new();
        free.add(BootFree::RESERVE + 5);
        assert_eq!(free.set_aside(Order::PAGE, 1, 6), 0);
        assert_eq!(free.set_aside(Order::PAGE, 9, 3), 2);
        assert_eq!((free.set_aside(Order::PAGE, 1, 3), free.spare()), (0, 3));
    }
}
