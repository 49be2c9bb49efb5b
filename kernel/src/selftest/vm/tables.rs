//! Page tables that move under those whose pages they map.
#![deny(unsafe_code)]

use super::super::Test;
use super::super::fixture::without_a_trace;
use super::super::kernel_frames::{leave_a_block, survives_an_error};
use super::moving::{REQUEST, move_all};
use super::writers::Writers;
use super::{ANYWHERE, space};
use crate::memory::{OwnedFrames, SPACE, mm};
use crate::recount::recount;
use crate::vm::AddressSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::addr::{Order, Pfn};
use mm::alloc::request::Request;
use mm::frame::memmap::Memmap;
use mm::frame::page::Owner;
use mm::observe::validate::Problem;
use mm::section::kind::ZoneKind;

pub(in crate::selftest) const TESTS: &[Test] = &[
    Test { name: "vm::page_tables_move_under_writers", run: page_tables_move_under_writers },
    Test { name: "vm::page_tables_leave_a_block_that_goes_offline", run: page_tables_leave_a_block },
    Test { name: "vm::the_topmost_page_table_leaves_a_block_that_goes_offline", run: the_topmost_leaves_a_block },
    Test { name: "vm::a_recount_notices_what_tables_do_not_agree_with", run: a_recount_notices_disagreement },
    Test { name: "vm::page_tables_with_an_error_are_replaced", run: page_tables_with_an_error_are_replaced },
];

/// For a page table of a space.
const TABLE: Request = Request { owner: Owner::UserTable, ..REQUEST };

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
        for _ in 0..50 {
            let tables = page_tables();
            // Three with pages, and one at each level above.
            assert_eq!(tables.len(), 6);
            assert!(tables.iter().all(|table| mm().move_block(*table, &TABLE).is_ok()));
            move_all(&space, Order::PAGE);
        }
        writers.finish(&space);
    });
}

/// A space with a few tables and tasks that write to all of its pages.
struct Mapped {
    space: Arc<AddressSpace>,
    topmost: Pfn,
    /// The others.
    lower: Vec<Pfn>,
    writers: Writers,
}

impl Mapped {
    fn new() -> Self {
        let space = space(2 * 512, ANYWHERE);
        let [topmost] = page_tables()[..] else { panic!("a space without pages has one table") };
        let writers = Writers::start(&space, 2);
        writers.wait_for_round();
        let lower: Vec<_> = page_tables().into_iter().filter(|table| *table != topmost).collect();
        // Two with pages, and one at each level between.
        assert_eq!(lower.len(), 4);
        Self { space, topmost, lower, writers }
    }

    /// Goes on using it for a while.
    fn work(&self) {
        self.writers.wait_for_round();
        assert_eq!(page_tables().len(), 1 + self.lower.len());
    }

    fn finish(self) {
        self.writers.finish(&self.space);
    }
}

fn page_tables_leave_a_block() {
    for zone in ZoneKind::ALL {
        without_a_trace(|| {
            let mapped = Mapped::new();
            leave_a_block(zone, &TABLE, &mapped.lower, || mapped.work());
            mapped.finish();
        });
    }
}

fn the_topmost_leaves_a_block() {
    for zone in ZoneKind::ALL {
        without_a_trace(|| {
            let mapped = Mapped::new();
            leave_a_block(zone, &TABLE, &[mapped.topmost], || mapped.work());
            mapped.finish();
        });
    }
}

/// Replaces the entry in the topmost table of a space for all that the space maps.
#[expect(unsafe_code, reason = "a page table is damaged, to see whether that is noticed")]
fn replace_entry(topmost: Pfn, entry: u64) -> u64 {
    // SAFETY: The space has the table and no task sees it, so nothing else reads or writes it until it is given back below.
    let mut table = unsafe { OwnedFrames::from_head(topmost) };
    let at = &mut table.bytes_mut().as_chunks_mut().0[(SPACE >> 39) as usize];
    let before = u64::from_le_bytes(*at);
    *at = entry.to_le_bytes();
    table.into_head();
    before
}

fn a_recount_notices_disagreement() {
    let problems = || recount().problems().copied().collect::<Vec<_>>();
    without_a_trace(|| {
        let space = space(600, ANYWHERE);
        let [topmost] = page_tables()[..] else { panic!("a space without pages has one table") };
        space.fault_in(3).expect("there is memory");
        space.fault_in(599).expect("there is memory");
        let (frame, _) = space.frame_of(599).expect("it is there");
        assert_eq!(problems(), []);
        let kinds = [
            (frame, "is a page of a space, and says that it is not"),
            (topmost, "is a page table of a space, and says that it is not"),
        ];
        for (pfn, what) in kinds {
            let page = mm().machine().page(pfn);
            let word = page.private();
            // Of page 598, and of none.
            for wrong in [word - 1, 0] {
                page.set_private(wrong);
                assert_eq!(problems(), [Problem::Page { pfn, what }]);
            }
            page.set_private(word);
        }
        let entry = replace_entry(topmost, 0);
        let (kept, counted) = (page_tables().len() as u64, 1);
        let expected = Problem::Count { of: "page tables of spaces", zone: None, block: None, kept, counted };
        assert_eq!(problems(), [expected]);
        replace_entry(topmost, entry);
        assert_eq!(problems(), []);
    });
}

fn page_tables_with_an_error_are_replaced() {
    let mapped = Mapped::new();
    for bad in mapped.lower.iter().chain([&mapped.topmost]) {
        survives_an_error(*bad, || mapped.work());
        assert!(!page_tables().contains(bad));
    }
    mapped.finish();
}
