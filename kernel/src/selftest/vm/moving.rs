//! Pages that move under those who write to them, and pages that must not.
#![deny(unsafe_code)]

use super::super::Test;
use super::super::fixture::{with_a_block, without_a_trace};
use super::tables::page_tables;
use super::writers::Writers;
use super::{ANYWHERE, LARGE, space};
use crate::memory::mm;
use crate::task;
use crate::vm::{AddressSpace, FaultError, NotPinned, PageSize, PinError, PinMode, Placement, pin_of};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use mm::Errno;
use mm::addr::{NodeId, Order, Pfn, SectionId, SectionRange};
use mm::alloc::request::{AllocError, Place, Request, Urgency};
use mm::evacuate::moving::MoveError;
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::inject::{Injected, Point};
use mm::machine::mover::{Move, Mover, Stay};
use mm::machine::tasks::Unhurried;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use mm::site::Site;

pub(in crate::selftest) const TESTS: &[Test] = &[
    Test { name: "vm::no_write_is_lost_while_pages_move", run: no_write_is_lost_while_pages_move },
    Test { name: "vm::no_write_is_lost_while_large_pages_move", run: no_write_is_lost_while_large_pages_move },
    Test { name: "vm::a_large_page_is_split_under_its_writers", run: a_large_page_is_split_under_its_writers },
    Test { name: "vm::what_is_pinned_stays", run: what_is_pinned_stays },
    Test { name: "vm::a_page_is_pinned_outside_of_movable", run: a_page_is_pinned_outside_of_movable },
    Test { name: "vm::a_block_in_use_goes_offline", run: a_block_in_use_goes_offline },
    Test { name: "vm::a_move_that_fails_leaves_everything_as_it_was", run: a_move_that_fails_changes_nothing },
    Test { name: "vm::pages_are_discarded_while_they_move", run: pages_are_discarded_while_they_move },
    Test { name: "vm::what_is_gone_or_another_owners_does_not_move", run: what_is_gone_does_not_move },
];

/// A page of a space.
pub(super) const REQUEST: Request = Request {
    order: Order::PAGE,
    mobility: Mobility::Movable,
    place: Place::Near(NodeId::ZERO),
    owner: Owner::Anonymous,
    urgency: Urgency::Ordinary,
    site: Site::here(),
};

/// Moves all pages of a space that can, those of `order`, and says how many that were.
pub(super) fn move_all(space: &AddressSpace, order: Order) -> u64 {
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
        let space = space(2 * 512, Placement { blocks: Some(normal_blocks()), ..LARGE });
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
        space.discard(0..512);
        assert_eq!(space.unpin(3), Err(NotPinned));
        space.pin(700, PinMode::Stay).expect("it is brought");
        let none = AddressSpace::new(1, Placement { blocks: Some(Vec::new()), ..ANYWHERE }).expect("there is memory");
        let missing = PinError::Missing(FaultError::NoFrame(AllocError::OutOfMemory));
        assert_eq!(none.pin(0, PinMode::Stay), Err(missing));
        assert_eq!(missing.errno(), Errno::NoMemory);
    });
}

/// The blocks of Normal, from which nobody has to go to be pinned.
fn normal_blocks() -> Vec<SectionRange> {
    let normal = BlockState::Online(ZoneKind::Normal);
    let blocks = mm().blocks().filter(|(_, section)| section.state == normal);
    blocks.map(|(id, _)| SectionRange::single(id)).collect()
}

/// A block that is offline at first, in Movable; and a placement of pages there.
fn in_movable(test: impl FnOnce(SectionRange, Placement)) {
    with_a_block(ZoneKind::Movable, |range| {
        test(range, Placement { blocks: Some(alloc::vec![range]), ..LARGE });
    });
}

fn a_page_is_pinned_outside_of_movable() {
    in_movable(|range, placement| {
        let space = space(2 * 512, placement);
        let is_there = |page: u64| range.pages().contains(space.frame_of(page).expect("it is there").0);
        space.fault_in(0).expect("there is memory");
        space.fault_in(512).expect("there is memory");
        space.enter().words(5)[1].store(77, SeqCst);
        let frame = space.pin(5, PinMode::Stay).expect("it can stay");
        assert!(range.pages().contains(frame));
        let stuck = PinError::Stuck(MoveError::Stay(Stay::Pinned));
        assert_eq!(space.pin(5, PinMode::Move), Err(stuck));
        assert_eq!(space.unpin(5), Ok(()));
        let frame = space.pin(5, PinMode::Move).expect("there is room elsewhere");
        assert!(!range.pages().contains(frame) && !is_there(511) && is_there(512));
        assert_eq!(space.enter().words(5)[1].load(SeqCst), 77);
        // It is unmovable as long as it is pinned, and then again like any other page.
        let is_unmovable = || mm().frame_report(frame).site.is_some();
        assert!(is_unmovable());
        assert_eq!(space.unpin(5), Ok(()));
        assert!(!is_unmovable());
    });
}

fn a_block_in_use_goes_offline() {
    in_movable(|range, placement| {
        let large = space(4 * 512, placement.clone());
        let small = space(1000, Placement { page: PageSize::Small, ..placement });
        let writers = [Writers::start(&large, 1), Writers::start(&small, 2)];
        writers.iter().for_each(Writers::wait_for_round);
        assert!(range.pages().contains(large.frame_of(700).expect("it is there").0));
        let frame = small.pin(999, PinMode::Stay).expect("it can stay");
        mm().offline(&[range], &mut Unhurried).expect_err("a page is pinned");
        assert_eq!(small.frame_of(999), Some((frame, Order::PAGE)));
        assert_eq!(small.unpin(999), Ok(()));
        mm().offline(&[range], &mut Unhurried).expect("all of it can move");
        assert!(!range.pages().contains(large.frame_of(700).expect("it is there").0));
        writers.iter().for_each(Writers::wait_for_round);
        let [of_large, of_small] = writers;
        of_large.finish(&large);
        of_small.finish(&small);
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
            mm().failure_points().arm(point, Errno::Io, 64);
            assert_eq!(move_all(&space, Order::PAGE), 0);
            assert_eq!(frames(), before);
            mm().failure_points().arm(point, Errno::Io, 10);
            assert_eq!(move_all(&space, Order::PAGE), 54);
        }
        let large = self::space(512, LARGE);
        large.fault_in(0).expect("there is memory");
        let (head, _) = large.frame_of(0).expect("it is there");
        for point in [Point::MigrateSplit, Point::AllocFrames, Point::MigrateUnmap] {
            mm().failure_points().arm(point, Errno::Io, 1);
            let injected = Injected { point, errno: Errno::Io };
            assert_eq!(mm().machine().split(head), Err(Stay::Injected(injected)));
        }
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
        for round in 1..50 {
            (0..128).for_each(|page| assert_eq!(entered.words(page)[9].swap(round, SeqCst), 0));
            task::yield_now();
            (0..128).for_each(|page| assert_eq!(entered.words(page)[9].load(SeqCst), round));
            space.discard(0..128);
        }
        drop(entered);
        // The last one to have it gives it back, the mover or this.
        drop(space);
        stop.store(true, SeqCst);
        task::wait_for_end(mover);
    });
}

fn what_is_gone_does_not_move() {
    without_a_trace(|| {
        let space = space(1, ANYWHERE);
        space.fault_in(0).expect("there is memory");
        let to = mm().allocate(&REQUEST).expect("there is memory");
        let outcome = |from| {
            let mut moves = [Move { from, to, order: Order::PAGE, outcome: Ok(()) }];
            mm().machine().migrate(&mut moves);
            moves[0].outcome
        };
        // Its page moved elsewhere, and then its block went offline or away: there is no struct page any more.
        let is_closed = |id: &SectionId| !mm().section(*id).is_some_and(|section| section.is_open());
        let closed = (0..mm().section_limit()).filter_map(SectionId::new).find(is_closed);
        if let Some(gone) = closed.map(|id| id.pages().start()) {
            assert_eq!(outcome(gone), Err(Stay::InFlight));
            assert_eq!(mm().machine().split(gone), Err(Stay::InFlight));
            assert_eq!(pin_of(gone, Order::PAGE), None);
        }
        // Or somebody else has the frame by now.
        for table in page_tables() {
            assert_eq!(outcome(table), Err(Stay::InFlight));
        }
        mm().free(to, Order::PAGE);
    });
}
