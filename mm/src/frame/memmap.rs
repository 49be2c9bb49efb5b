//! The seam to the struct pages themselves.

use crate::addr::{Pfn, PfnRange};
use crate::frame::page::PageInfo;

/// Access to the struct pages.
///
/// # Invariants
/// 1. *Before.* The memmap of the section is mapped. What keeps it so while the reference is used is one of: the lock of the
///    zone of an open section, [`Machine::reading`](crate::machine::Machine::reading) taken before the section was found
///    open, the range of a section, or an allocated block in it.
/// 2. *During.* No call blocks, takes a lock or allocates: every allocation makes many of them, with spin locks held.
/// 3. *After.* The same frame has the same struct page as long as its memmap is mapped. Writes need no barrier of the
///    implementor: they are published by the word of the section or by a lock.
pub trait Memmap {
    /// Returns the struct page of `pfn`.
    fn page(&self, pfn: Pfn) -> &PageInfo;

    /// Zeroes the struct pages of `range`, which may hold anything before.
    ///
    /// # Invariants
    /// Nothing else reads or writes them until this returns.
    fn clear(&self, range: PfnRange) {
        for pfn in range.iter() {
            self.page(pfn).clear();
        }
    }
}
