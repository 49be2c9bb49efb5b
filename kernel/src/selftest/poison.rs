//! Memory errors under somebody's pages.
#![deny(unsafe_code)]

use super::Test;
use crate::memory::mm;
use crate::recount::recount;
use crate::task;
use crate::vm::{AddressSpace, PageSize, Placement};
use core::sync::atomic::Ordering::Relaxed;
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;

pub(super) const TESTS: &[Test] =
    &[Test { name: "poison::what_a_frame_holds_survives_it", run: what_a_frame_holds_survives_it }];

fn free_pages() -> u64 {
    task::settle();
    let mut free = 0;
    mm().for_each_zone(|zone| free += zone.free);
    free / PAGE_SIZE
}

fn what_a_frame_holds_survives_it() {
    const PAGES: u64 = 1024;
    let bad_pages = [0, 511, 700];
    for page in [PageSize::Small, PageSize::Huge] {
        let (before, poisoned) = (free_pages(), mm().memory_report().poisoned);
        let space = AddressSpace::new(PAGES, Placement { node: None, blocks: None, page }).expect("there is memory");
        let entered = space.enter();
        (0..PAGES).for_each(|page| entered.words(page)[9].store(!page, Relaxed));
        let frame = |page| space.frame_of(page).expect("it is there");
        let bad: [Pfn; 3] = bad_pages.map(|page| frame(page).0);
        let neighbour = frame(510).0;
        for (page, pfn) in bad_pages.into_iter().zip(bad) {
            mm().poison(pfn, &mut Unhurried).expect("it can move");
            assert_ne!(frame(page), (pfn, Order::PAGE));
            assert_eq!(mm().frame_report(pfn).state, FrameState::Poisoned);
            assert_eq!(mm().poison(pfn, &mut Unhurried), Err(PoisonError::Already(pfn)));
        }
        assert_eq!(frame(510), (neighbour, Order::PAGE), "what is good of a large page stays where it is");
        assert!((0..PAGES).all(|page| entered.words(page)[9].load(Relaxed) == !page));
        drop(entered);
        drop(space);
        assert_eq!(free_pages(), before - bad.len() as u64);
        assert_eq!(mm().memory_report().poisoned, poisoned + bad.len() as u64 * PAGE_SIZE);
        let recount = recount();
        assert!(recount.is_ok(), "{recount}");
    }
}
