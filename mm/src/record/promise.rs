//! Normal memory that operations under way will still take: bulk users cannot have it meanwhile.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

/// So many frames for one operation.
#[must_use = "what nobody holds is promised to nobody"]
pub(crate) struct Promise<'a> {
    /// Those of all operations.
    all: &'a AtomicU64,
    left: Cell<u64>,
}

impl<'a> Promise<'a> {
    /// Frames that the operation has looked for.
    pub(crate) fn new(all: &'a AtomicU64, pages: u64) -> Self {
        all.fetch_add(pages, Ordering::Relaxed);
        Self { all, left: Cell::new(pages) }
    }

    /// Frames for an operation, if with them no more than `most` are promised.
    pub(crate) fn within(all: &'a AtomicU64, pages: u64, most: u64) -> Option<Self> {
        let more = |before: u64| Some(before + pages).filter(|all| *all <= most);
        all.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { all, left: Cell::new(pages) })
    }

    /// So many of the frames are taken, and counted where all are that are in use.
    pub(crate) fn use_up(&self, pages: u64) {
        let used = pages.min(self.left.get());
        self.left.set(self.left.get() - used);
        self.all.fetch_sub(used, Ordering::Relaxed);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.use_up(self.left.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_used_up_or_given_back() {
        let all = AtomicU64::new(0);
        let promised = || all.load(Ordering::Relaxed);
        let first = Promise::new(&all, 10);
        assert!(Promise::within(&all, 6, 15).is_none());
        let second = Promise::within(&all, 5, 15).expect("exactly enough");
        first.use_up(4);
        assert_eq!(promised(), 11);
        // More than that were not promised to it.
        second.use_up(7);
        assert_eq!(promised(), 6);
        drop(first);
        assert_eq!(promised(), 0);
        drop(second);
        assert_eq!(promised(), 0);
    }
}
