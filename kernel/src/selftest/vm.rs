//! Address spaces: pages on demand, and tasks that see their own.
#![deny(unsafe_code)]

pub(super) mod moving;
pub(super) mod tables;
mod writers;

use super::Test;
use super::fixture::without_a_trace;
use crate::memory::mm;
use crate::vm::{AddressSpace, FaultError, PageSize, Placement};
use crate::{arch, task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use mm::Errno;
use mm::addr::Order;
use mm::alloc::request::AllocError;
use mm::frame::memmap::Memmap;
use mm::frame::page::Owner;
use mm::inject::Point;

pub(super) const TESTS: &[Test] = &[
    Test { name: "vm::a_page_comes_zeroed_when_it_is_touched", run: a_page_comes_zeroed_when_it_is_touched },
    Test { name: "vm::large_pages_come_where_they_fit", run: large_pages_come_where_they_fit },
    Test { name: "vm::tasks_see_their_own_memory_at_the_same_address", run: tasks_see_their_own_memory },
    Test { name: "vm::a_page_is_not_brought_without_memory", run: a_page_is_not_brought_without_memory },
    Test { name: "vm::a_task_that_touches_a_page_waits_for_memory", run: a_task_that_touches_a_page_waits_for_memory },
    Test { name: "vm::discarded_pages_are_zero_again", run: discarded_pages_are_zero_again },
];

const ANYWHERE: Placement = Placement { node: None, blocks: None, page: PageSize::Small };
const LARGE: Placement = Placement { page: PageSize::Huge, ..ANYWHERE };

fn space(pages: u64, placement: Placement) -> Arc<AddressSpace> {
    AddressSpace::new(pages, placement).expect("there is memory")
}

fn a_page_comes_zeroed_when_it_is_touched() {
    without_a_trace(|| {
        let space = space(1 << 20, ANYWHERE);
        assert_eq!(space.frame_of(5), None);
        let entered = space.enter();
        for page in [5, 6, 511, 512, (1 << 20) - 1] {
            let words = entered.words(page);
            assert!(words.iter().all(|word| word.load(Relaxed) == 0));
            words[511].store(page, Relaxed);
            let (frame, order) = space.frame_of(page).expect("it is there");
            assert_eq!((order, mm().machine().page(frame).head().owner), (Order::PAGE, Owner::Anonymous));
        }
        assert!([5, 6, 511, 512, (1 << 20) - 1].iter().all(|page| entered.words(*page)[511].load(Relaxed) == *page));
        assert_eq!(space.frame_of(7), None);
        assert_eq!(space.fault_in(7), Ok(1));
    });
}

fn large_pages_come_where_they_fit() {
    without_a_trace(|| {
        let space = space(512 + 512 + 100, LARGE);
        assert_eq!(space.fault_in(500), Ok(12));
        assert_eq!(space.fault_in(0), Ok(512));
        assert_eq!(space.fault_in(1024), Ok(1), "the region ends before a large page would");
        let (frame, order) = space.frame_of(511).expect("it is there");
        assert_eq!((order, frame.number() % 512), (Order::PAGEBLOCK, 511));
        let entered = space.enter();
        assert!((0..1124).all(|page| entered.words(page).iter().all(|word| word.load(Relaxed) == 0)));
        assert_eq!(space.frame_of(600).map(|(_, order)| order), Some(Order::PAGEBLOCK));
    });
}

fn tasks_see_their_own_memory() {
    const PAGES: u64 = 8;
    without_a_trace(|| {
        let tasks: Vec<_> = (0..arch::online_cpus().count() as u64 + 2)
            .map(|own| {
                task::spawn("space", move || {
                    let space = space(PAGES, ANYWHERE);
                    let entered = space.enter();
                    for round in 0..200 {
                        for page in 0..PAGES {
                            let before = entered.words(page)[0].swap(own << 32 | (round + 1), SeqCst);
                            assert_eq!(before, if round == 0 { 0 } else { own << 32 | round });
                        }
                        task::yield_now();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(task::wait_for_end);
    });
}

fn a_page_is_not_brought_without_memory() {
    without_a_trace(|| {
        let space = space(10, Placement { blocks: Some(Vec::new()), ..ANYWHERE });
        assert_eq!(space.fault_in(0), Err(FaultError::NoFrame(AllocError::OutOfMemory)));
        assert_eq!(space.frame_of(0), None);
        assert!(AddressSpace::new(1 << 40, ANYWHERE).is_err());
    });
}

fn a_task_that_touches_a_page_waits_for_memory() {
    without_a_trace(|| {
        let space = space(10, ANYWHERE);
        let entered = space.enter();
        mm().failure_points().arm(Point::AllocFrames, Errno::NoMemory, 3);
        assert_eq!(entered.words(3)[0].load(SeqCst), 0);
        assert_eq!(mm().failure_points().armed(Point::AllocFrames), None, "it asked until there was some");
    });
}

fn discarded_pages_are_zero_again() {
    without_a_trace(|| {
        let space = space(2000, LARGE);
        let entered = space.enter();
        (0..2000).for_each(|page| entered.words(page)[7].store(1, SeqCst));
        space.discard(600..1100);
        // The large page around 600 goes as a whole.
        let is_there = |page: u64| entered.words(page)[7].load(SeqCst) == 1;
        assert!((0..2000).all(|page| is_there(page) != (512..1536).contains(&page)));
        space.discard(0..2000);
        assert!((0..2000).all(|page| space.frame_of(page).is_none()));
    });
}
