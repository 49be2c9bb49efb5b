//! Page tables that move under those whose pages they map.
#![deny(unsafe_code)]

use super::super::Test;
use super::super::fixture::without_a_trace;
use super::moving::{REQUEST, move_all};
use super::writers::Writers;
use super::{ANYWHERE, space};
use crate::memory::mm;
use alloc::vec::Vec;
use mm::addr::{Order, Pfn};
use mm::alloc::{Mobility, Request};
use mm::machine::Memmap;
use mm::page::Owner;

pub(in crate::selftest) const TESTS: &[Test] =
    &[Test { name: "vm::page_tables_move_under_writers", run: page_tables_move_under_writers }];

/// Every page table of a space.
pub(super) fn page_tables() -> Vec<Pfn> {
    let mut tables = Vec::new();
    for pages in mm().blocks().filter(|(_, section)| section.is_open()).map(|(id, _)| id.pages()) {
        let is_table = |pfn: &Pfn| mm().machine().page(*pfn).head().owner == Owner::UserTable;
        tables.extend(pages.iter().filter(is_table));
    }
    tables
}

fn page_tables_move_under_writers() {
    without_a_trace(|| {
        let space = space(3 * 512, ANYWHERE);
        let writers = Writers::start(&space, 2);
        writers.wait_for_round();
        let request = Request { mobility: Mobility::Unmovable, owner: Owner::UserTable, ..REQUEST };
        for _ in 0..50 {
            let tables = page_tables();
            // Three with pages, and one at each level above.
            assert_eq!(tables.len(), 6);
            assert!(tables.iter().all(|table| mm().move_block(*table, &request).is_ok()));
            move_all(&space, Order::PAGE);
        }
        writers.finish(&space);
    });
}
