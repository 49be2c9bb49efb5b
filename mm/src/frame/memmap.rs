//! The seam to the struct pages themselves.

use crate::addr::{Pfn, PfnRange};
use crate::frame::page::PageInfo;

/// Access to the struct pages.
pub trait Memmap {
    /// The struct page of `pfn`, whose section's memmap must be mapped.
    fn page(&self, pfn: Pfn) -> &PageInfo;

    /// Zeroes the struct pages of `range`, whose memmap must be mapped and in use by nobody else until this returns. They
    /// may hold anything before.
    fn clear(&self, range: PfnRange) {
        for pfn in range.iter() {
            self.page(pfn).clear();
        }
    }
}
