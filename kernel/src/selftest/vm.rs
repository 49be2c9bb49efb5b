//! Address spaces: pages on demand, tasks that see their own, and pages that move under those who write to them.
#![deny(unsafe_code)]

use super::Test;
use crate::memory::{self, mm};
use crate::vm::{AddressSpace, FaultError, NotPinned, PageSize, PinError, PinMode, Placement, pin_of};
use crate::{arch, task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use mm::Errno;
use mm::addr::{NodeId, Order, Pfn};
use mm::alloc::{AllocError, Mobility, Place, Request, Urgency};
use mm::inject::{Injected, Point};
use mm::machine::{Memmap, Move, Mover, Stay, Unhurried};
use mm::page::Owner;
use mm::site::Site;

pub(super) const TESTS: &[Test] = &[
    Test { name: "vm::a_page_comes_zeroed_when_it_is_touched", run: a_page_comes_zeroed_when_it_is_touched },
    Test { name: "vm::large_pages_come_where_they_fit", run: large_pages_come_where_they_fit },
    Test { name: "vm::tasks_see_their_own_memory_at_the_same_address", run: tasks_see_their_own_memory },
    Test { name: "vm::a_page_is_not_brought_without_memory", run: a_page_is_not_brought_without_memory },
    Test { name: "vm::a_task_that_touches_a_page_waits_for_memory", run: a_task_that_touches_a_page_waits_for_memory },
    Test { name: "vm::discarded_pages_are_zero_again", run: discarded_pages_are_zero_again },
    Test { name: "vm::no_write_is_lost_while_pages_move", run: no_write_is_lost_while_pages_move },
    Test { name: "vm::no_write_is_lost_while_large_pages_move", run: no_write_is_lost_while_large_pages_move },
    Test { name: "vm::a_large_page_is_split_under_its_writers", run: a_large_page_is_split_under_its_writers },
    Test { name: "vm::what_is_pinned_stays", run: what_is_pinned_stays },
    Test { name: "vm::a_move_that_fails_leaves_everything_as_it_was", run: a_move_that_fails_changes_nothing },
    Test { name: "vm::pages_are_discarded_while_they_move", run: pages_are_discarded_while_they_move },
];

const ANYWHERE: Placement = Placement { node: None, blocks: None, page: PageSize::Small };
const LARGE: Placement = Placement { page: PageSize::Huge, ..ANYWHERE };

const REQUEST: Request = Request {
    order: Order::PAGE,
    mobility: Mobility::Movable,
    place: Place::Near(NodeId::ZERO),
    owner: Owner::Anonymous,
    urgency: Urgency::Ordinary,
    site: Site::here(),
};

/// Free frames and page tables of spaces.
fn totals() -> (u64, u64) {
    let mut free = 0;
    mm().for_each_zone(|zone| free += zone.free);
    (free, memory::space_table_bytes())
}

/// Runs a test, which leaves no trace.
#[track_caller]
fn without_a_trace(test: impl FnOnce()) {
    task::settle();
    let before = totals();
    test();
    task::settle();
    assert_eq!(totals(), before);
    let recount = memory::recount();
    assert!(recount.is_ok(), "{recount}");
}

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
        mm().arm(Point::AllocFrames, Errno::NoMemory, 3);
        assert_eq!(entered.words(3)[0].load(SeqCst), 0);
        assert_eq!(mm().armed(Point::AllocFrames), None, "it asked until there was some");
    });
}

fn discarded_pages_are_zero_again() {
    without_a_trace(|| {
        let space = space(2000, LARGE);
        let entered = space.enter();
        (0..2000).for_each(|page| entered.words(page)[7].store(1, SeqCst));
        space.discard(600..1100, &mut Unhurried).expect("nobody stops it");
        // The large page around 600 goes as a whole.
        let is_there = |page: u64| entered.words(page)[7].load(SeqCst) == 1;
        assert!((0..2000).all(|page| is_there(page) != (512..1536).contains(&page)));
        space.discard(0..2000, &mut Unhurried).expect("nobody stops it");
        assert!((0..2000).all(|page| space.frame_of(page).is_none()));
    });
}

/// Tasks that add to words of their own in every page of a space until this is stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    /// What each has added to each page.
    rounds: Vec<Arc<AtomicU64>>,
    tasks: Vec<task::TaskId>,
    pages: u64,
}

impl Writers {
    fn start(space: &Arc<AddressSpace>, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pages = space.page_count();
        let mut writers = Self { stop, rounds: Vec::new(), tasks: Vec::new(), pages };
        for own in 0..count {
            let rounds = Arc::new(AtomicU64::new(0));
            writers.rounds.push(Arc::clone(&rounds));
            let (stop, space) = (Arc::clone(&writers.stop), Arc::clone(space));
            writers.tasks.push(task::spawn("writer", move || {
                let entered = space.enter();
                while !stop.load(SeqCst) {
                    for page in 0..pages {
                        let word = &entered.words(page)[own * 64];
                        // Not in one step: a write between the two that goes to an old frame is lost.
                        word.store(word.load(Relaxed) + 1, Relaxed);
                    }
                    rounds.fetch_add(1, SeqCst);
                }
            }));
        }
        writers
    }

    /// Waits until every writer has gone through all pages once more.
    fn wait_for_round(&self) {
        for rounds in &self.rounds {
            let before = rounds.load(SeqCst);
            while rounds.load(SeqCst) == before {
                task::yield_now();
            }
        }
    }

    /// Stops them and checks what they have written.
    #[track_caller]
    fn finish(self, space: &Arc<AddressSpace>) {
        self.stop.store(true, SeqCst);
        self.tasks.into_iter().for_each(task::wait_for_end);
        let entered = space.enter();
        for page in 0..self.pages {
            for (own, rounds) in self.rounds.iter().enumerate() {
                assert_eq!(entered.words(page)[own * 64].load(SeqCst), rounds.load(SeqCst), "page {page}");
            }
        }
    }
}

/// Moves all pages of a space that can, those of `order`, and says how many that were.
fn move_all(space: &AddressSpace, order: Order) -> u64 {
    let mut moved = 0;
    let heads = (0..space.page_count()).filter_map(|page| space.frame_of(page));
    let mut heads: Vec<Pfn> = heads.filter(|(_, of)| *of == order).map(|(frame, _)| frame.align_down(order)).collect();
    heads.dedup();
    for some in heads.chunks(64) {
        let mut moves: Vec<_> = some
            .iter()
            .map(|from| {
                let to = mm().allocate(&Request { order, ..REQUEST }).expect("there is memory");
                Move { from: *from, to, order, outcome: Err(Stay::InFlight) }
            })
            .collect();
        mm().machine().migrate(&mut moves);
        for Move { from, to, outcome, .. } in moves {
            mm().free(if outcome.is_ok() { from } else { to }, order);
            moved += u64::from(outcome.is_ok());
        }
    }
    moved
}

fn no_write_is_lost_while_pages_move() {
    without_a_trace(|| {
        let space = space(100, ANYWHERE);
        let writers = Writers::start(&space, 3);
        writers.wait_for_round();
        for _ in 0..50 {
            assert_eq!(move_all(&space, Order::PAGE), 100);
        }
        writers.wait_for_round();
        writers.finish(&space);
    });
}

fn no_write_is_lost_while_large_pages_move() {
    without_a_trace(|| {
        let space = space(2 * 512, LARGE);
        let writers = Writers::start(&space, 2);
        writers.wait_for_round();
        for _ in 0..10 {
            assert_eq!(move_all(&space, Order::PAGEBLOCK), 2);
        }
        writers.finish(&space);
    });
}

fn a_large_page_is_split_under_its_writers() {
    without_a_trace(|| {
        for _ in 0..5 {
            let space = space(2 * 512, LARGE);
            let writers = Writers::start(&space, 2);
            writers.wait_for_round();
            let (head, _) = space.frame_of(512).expect("it is there");
            assert_eq!(mm().machine().split(head), Ok(()));
            assert_eq!(mm().machine().split(head), Err(Stay::InFlight), "it is no large page any more");
            assert_eq!(space.frame_of(600), Some((head.add(88), Order::PAGE)));
            assert_eq!(space.frame_of(3).map(|(_, order)| order), Some(Order::PAGEBLOCK));
            assert_eq!(move_all(&space, Order::PAGE), 512);
            writers.finish(&space);
        }
    });
}

fn what_is_pinned_stays() {
    without_a_trace(|| {
        let space = space(2 * 512, LARGE);
        space.fault_in(0).expect("there is memory");
        let frame = space.pin(100, PinMode::Stay).expect("it can stay");
        let (head, order) = (frame.align_down(Order::PAGEBLOCK), Order::PAGEBLOCK);
        assert_eq!(move_all(&space, order), 0);
        assert_eq!(mm().machine().split(head), Err(Stay::Pinned));
        assert_eq!(space.frame_of(100), Some((frame, order)));
        assert_eq!(space.pin(100, PinMode::Move), Ok(frame), "it does not lie in Movable");
        let report = pin_of(head, order).expect("it is pinned");
        assert_eq!((report.page, report.count, report.by), (100, 2, task::current()));
        assert_eq!(space.unpin(101), Err(NotPinned));
        assert_eq!((space.unpin(100), space.unpin(100), space.unpin(100)), (Ok(()), Ok(()), Err(NotPinned)));
        assert_eq!(move_all(&space, order), 1);
        assert_eq!(pin_of(head, order), None);
        // Pins end with the page.
        space.pin(3, PinMode::Stay).expect("it can stay");
        space.discard(0..512, &mut Unhurried).expect("nobody stops it");
        assert_eq!(space.unpin(3), Err(NotPinned));
        space.pin(700, PinMode::Stay).expect("it is brought");
        let none = AddressSpace::new(1, Placement { blocks: Some(Vec::new()), ..ANYWHERE }).expect("there is memory");
        let missing = PinError::Missing(FaultError::NoFrame(AllocError::OutOfMemory));
        assert_eq!(none.pin(0, PinMode::Stay), Err(missing));
        assert_eq!(missing.errno(), Errno::NoMemory);
    });
}

fn a_move_that_fails_changes_nothing() {
    without_a_trace(|| {
        let space = space(64, ANYWHERE);
        let writers = Writers::start(&space, 2);
        writers.wait_for_round();
        let frames = || (0..64).map(|page| space.frame_of(page)).collect::<Vec<_>>();
        for point in [Point::MigrateUnmap, Point::MigrateCopy] {
            let before = frames();
            mm().arm(point, Errno::Io, 64);
            assert_eq!(move_all(&space, Order::PAGE), 0);
            assert_eq!(frames(), before);
            mm().arm(point, Errno::Io, 10);
            assert_eq!(move_all(&space, Order::PAGE), 54);
        }
        let large = self::space(512, LARGE);
        large.fault_in(0).expect("there is memory");
        let (head, _) = large.frame_of(0).expect("it is there");
        mm().arm(Point::MigrateSplit, Errno::Io, 1);
        let injected = Injected { point: Point::MigrateSplit, errno: Errno::Io };
        assert_eq!(mm().machine().split(head), Err(Stay::Injected(injected)));
        assert_eq!(large.frame_of(511), Some((head.add(511), Order::PAGEBLOCK)));
        writers.finish(&space);
    });
}

fn pages_are_discarded_while_they_move() {
    without_a_trace(|| {
        let space = space(128, ANYWHERE);
        let stop = Arc::new(AtomicBool::new(false));
        let mover = {
            let (space, stop) = (Arc::clone(&space), Arc::clone(&stop));
            task::spawn("mover", move || {
                while !stop.load(SeqCst) {
                    move_all(&space, Order::PAGE);
                }
            })
        };
        let entered = space.enter();
        for round in 1..200 {
            (0..128).for_each(|page| assert_eq!(entered.words(page)[9].swap(round, SeqCst), 0));
            task::yield_now();
            (0..128).for_each(|page| assert_eq!(entered.words(page)[9].load(SeqCst), round));
            space.discard(0..128, &mut Unhurried).expect("nobody stops it");
        }
        drop(entered);
        // The last one to have it gives it back, the mover or this.
        drop(space);
        stop.store(true, SeqCst);
        task::wait_for_end(mover);
    });
}
