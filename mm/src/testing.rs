//! A machine made of tables, for tests.

extern crate std;

use crate::addr::Pfn;
use crate::frame::memmap::Memmap;
use crate::frame::page::PageInfo;
use std::vec::Vec;

/// Struct pages of the first frames, always mapped.
pub(crate) struct Table(Vec<PageInfo>);

impl Table {
    pub(crate) fn new(pages: u64) -> Self {
        Self((0..pages.next_multiple_of(1024)).map(|_| PageInfo::default()).collect())
    }
}

impl Memmap for Table {
    fn page(&self, pfn: Pfn) -> &PageInfo {
        &self.0[pfn.number() as usize]
    }
}
