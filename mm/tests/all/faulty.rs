//! Frames with an error that somebody holds: he keeps them, and nobody gets them after him.

use crate::machine::dimms::{MOVABLE, NORMAL, offline, online, plug};
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::listening::listen;
use crate::machine::poisoning::{assert_gone, frame, is_handed_out, poison};
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange};
use mm::alloc::request::Request;
use mm::errno::Errno;
use mm::frame::memmap::Memmap;
use mm::frame::page::Owner;
use mm::inject::Point;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::record::notifier::{Accept, Change, MemoryListener};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// A block of kernel memory in block 32.
fn kernel_block(memory: &Memory<Fake>, order: Order) -> Pfn {
    let request = Request { order, ..Request::kernel(Owner::Kfill) };
    memory.allocate_within(&request, blocks(32, 32)).expect("free")
}

#[track_caller]
fn assert_bad(memory: &Memory<Fake>, poisoned: u64, faulty: u64) {
    let report = memory.memory_report();
    assert_eq!((report.poisoned, report.faulty), (poisoned * PAGE_SIZE, faulty * PAGE_SIZE));
    assert_valid(memory);
}

#[test]
fn what_the_kernel_holds_goes_out_of_use_when_it_is_given_back() {
    for order in [Order::PAGE, Order::new(3).expect("in range"), Order::PAGEBLOCK, Order::MAX] {
        let memory = booted();
        plug(&memory, 0, blocks(32, 32), 1);
        online(&memory, blocks(32, 32), NORMAL);
        let head = kernel_block(&memory, order);
        let bad = BTreeSet::from([head, head.add(order.pages() - 1)]);
        let before = Snapshot::of(&memory);
        let recorded = |pfn: Pfn| (memory.frame_report(pfn).site, memory.frame_report(pfn).since_ns);
        let (site, since) = recorded(head);
        assert!(site.is_some() && since.is_some());
        for pfn in bad.iter().chain(&bad) {
            let used = PoisonError::Used { pfn: *pfn, owner: Owner::Kfill };
            assert_eq!((poison(&memory, *pfn), used.errno()), (Err(used), Errno::Busy));
            assert_eq!(memory.frame_report(*pfn).state, FrameState::Allocated);
            assert_eq!(recorded(*pfn), (site, since));
        }
        assert_eq!(Snapshot::of(&memory), before, "it is held as before");
        let count = bad.len() as u64;
        assert_bad(&memory, 0, count);
        memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("the kernel holds it");
        memory.housekeep();
        assert_bad(&memory, 0, count);

        let calls = memory.machine().keeper_calls.load(Ordering::Relaxed);
        memory.free(head, order);
        assert!(memory.machine().keeper_calls.load(Ordering::Relaxed) > calls, "somebody has to take it");
        for pfn in &bad {
            assert!(!is_handed_out(&memory, blocks(32, 32), *pfn));
        }
        memory.housekeep();
        assert_bad(&memory, count, 0);
        bad.iter().for_each(|pfn| assert_gone(&memory, *pfn));
        offline(&memory, blocks(32, 32));
        online(&memory, blocks(32, 32), MOVABLE);
        bad.iter().for_each(|pfn| assert_gone(&memory, *pfn));
    }
}

#[test]
fn a_block_goes_offline_although_nobody_has_looked_after_what_was_given_back() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 1);
    online(&memory, blocks(32, 32), NORMAL);
    let bad = kernel_block(&memory, Order::PAGE);
    poison(&memory, bad).expect_err("the kernel holds it");
    memory.free(bad, Order::PAGE);
    offline(&memory, blocks(32, 32));
    assert_bad(&memory, 1, 0);
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_bad(&memory, 0, 0);
}

#[test]
fn what_is_pinned_goes_out_of_use_when_that_ends() {
    type End = fn(&Memory<Fake>, Pfn);
    let ends: [End; 4] = [
        |memory, _| memory.housekeep(),
        |memory, _| offline(memory, blocks(32, 32)),
        |memory, _| online(memory, blocks(32, 32), NORMAL),
        |memory, pfn| poison(memory, pfn).expect("it can move"),
    ];
    for (end, order) in ends.into_iter().flat_map(|end| [Order::PAGE, Order::PAGEBLOCK].map(|order| (end, order))) {
        let memory = booted_with_holders();
        plug(&memory, 0, blocks(32, 32), 1);
        online(&memory, blocks(32, 32), MOVABLE);
        let (head, _) = place_of(&memory, hold_in(&memory, order, blocks(32, 32))).expect("held");
        let bad = head.add(order.pages() - 1);
        assert!(memory.machine().page(head).pin());
        assert_eq!(poison(&memory, bad), Err(PoisonError::Pinned(bad)));
        memory.housekeep();
        assert_bad(&memory, 0, 1);
        memory.machine().page(head).unpin();
        end(&memory, bad);
        assert_bad(&memory, 1, 0);
        assert_eq!(memory.frame_report(bad).state, FrameState::Poisoned);
        let held: u64 = all_places(&memory).iter().map(|(_, _, order)| order.pages()).sum();
        assert_eq!(held, order.pages(), "nothing is lost");
        let next = hold(&memory, &movable(order)).expect("there is room");
        let (next, _) = place_of(&memory, next).expect("held");
        assert!(!PfnRange::new(next, order.pages()).contains(bad));
        all_places(&memory).into_iter().for_each(|(holder, _, _)| release(&memory, holder));
        assert_bad(&memory, 1, 0);
    }
}

#[test]
fn what_has_an_error_is_not_simply_moved_away() {
    let memory = booted_with_holders();
    plug(&memory, 0, blocks(32, 33), 1);
    online(&memory, blocks(32, 33), MOVABLE);
    let (bad, _) = place_of(&memory, hold_in(&memory, Order::PAGE, blocks(32, 32))).expect("held");
    assert!(memory.machine().page(bad).pin());
    assert_eq!(poison(&memory, bad), Err(PoisonError::Pinned(bad)));
    memory.machine().page(bad).unpin();
    // Before its block is isolated, and the first time after that, the offline cannot poison it.
    memory.failure_points().arm(Point::MigrateDestination, Errno::NoMemory, 2);
    offline(&memory, blocks(32, 32));
    assert_bad(&memory, 1, 0);
    online(&memory, blocks(32, 32), NORMAL);
    assert_gone(&memory, bad);
}

/// Gives memory back when it is asked whether a block may go.
struct Giver {
    memory: &'static Memory<Fake>,
    held: (Pfn, Order),
    answer: Accept,
}

impl MemoryListener for Giver {
    fn prepare(&self, _: &Change) -> Accept {
        self.memory.free(self.held.0, self.held.1);
        self.answer
    }

    fn committed(&self, _: &Change) {}

    fn cancelled(&self, _: &Change) {}
}

#[test]
fn what_is_given_back_while_its_block_goes_is_poisoned_too() {
    for order in [Order::PAGE, Order::PAGEBLOCK, Order::MAX] {
        for (answer, fails_later) in [(Accept::Yes, false), (Accept::Yes, true), (Accept::No, false)] {
            let memory: &'static _ = Box::leak(Box::new(booted()));
            plug(memory, 0, blocks(32, 32), 1);
            online(memory, blocks(32, 32), MOVABLE);
            let request = Request { owner: Owner::Selftest, ..movable(order) };
            let head = memory.allocate_within(&request, blocks(32, 32)).expect("free");
            hold_in(memory, Order::PAGE, blocks(32, 32));
            let bad = BTreeSet::from([head, head.add(order.pages() - 1)]);
            for pfn in &bad {
                assert_eq!(poison(memory, *pfn), Err(PoisonError::Used { pfn: *pfn, owner: Owner::Selftest }));
            }
            if fails_later {
                memory.failure_points().arm(Point::MigrateDestination, Errno::NoMemory, 1);
            }
            listen(memory, "giver", 0, Giver { memory, held: (head, order), answer });
            let result = memory.offline(&[blocks(32, 32)], &mut Unhurried);
            assert_eq!(result.is_ok(), answer == Accept::Yes && !fails_later, "{result:?}");
            if answer == Accept::No {
                memory.housekeep();
            }
            assert_bad(memory, bad.len() as u64, 0);
            assert!(bad.iter().all(|pfn| memory.frame_report(*pfn).state == FrameState::Poisoned));
        }
    }
}

#[test]
fn the_parts_of_a_large_page_with_an_error_are_told_apart() {
    let memory = booted_with_holders();
    plug(&memory, 0, blocks(32, 32), 1);
    online(&memory, blocks(32, 32), MOVABLE);
    let head = memory.allocate_within(&movable(Order::PAGEBLOCK), blocks(32, 32)).expect("free");
    let bad = head.add(77);
    assert!(memory.machine().page(head).pin());
    assert_eq!(poison(&memory, bad), Err(PoisonError::Pinned(bad)));
    memory.split_block(head);
    assert_bad(&memory, 0, 1);
    for pfn in PfnRange::new(head, Order::PAGEBLOCK.pages()).iter() {
        memory.free(pfn, Order::PAGE);
    }
    memory.housekeep();
    assert_bad(&memory, 1, 0);
    assert_gone(&memory, bad);
}

#[test]
fn whoever_is_just_giving_memory_back_gives_back_no_error() {
    const WANTED: usize = 100;
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 1);
    online(&memory, blocks(32, 32), NORMAL);
    let request = Request::kernel(Owner::Kfill);
    let mut bad = BTreeSet::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let take = |_| memory.allocate_within(&request, blocks(32, 32)).expect("there is room");
            while !is_over.load(Ordering::Relaxed) {
                let taken: Vec<_> = (0..8).map(take).collect();
                taken.into_iter().for_each(|pfn| memory.free(pfn, Order::PAGE));
            }
        });
        let mut next = frame(32, 0);
        while bad.len() < WANTED {
            // Where the others are just now: the lowest frames that are in use or in a cache.
            next = if next.index_in_section() > 6000 { frame(32, 4096) } else { next.add(1) };
            let error = poison(&memory, next).err();
            if matches!(error, None | Some(PoisonError::Used { .. })) {
                bad.insert(next);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    memory.housekeep();
    assert_bad(&memory, bad.len() as u64, 0);
    bad.into_iter().for_each(|pfn| assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned));
}

#[test]
fn all_that_is_held_can_be_faulty() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 1);
    online(&memory, blocks(32, 32), NORMAL);
    let held: Vec<Pfn> = (0..8).map(|_| kernel_block(&memory, Order::PAGEBLOCK)).collect();
    let frames = || held.iter().flat_map(|head| PfnRange::new(*head, Order::PAGEBLOCK.pages()).iter());
    let bad: Vec<Pfn> = frames().collect();
    for pfn in &bad {
        assert_eq!(poison(&memory, *pfn).map_err(PoisonError::errno), Err(Errno::Busy));
    }
    assert_bad(&memory, 0, bad.len() as u64);
    memory.free(held[0], Order::PAGEBLOCK);
    memory.housekeep();
    assert_bad(&memory, 512, bad.len() as u64 - 512);
    held[1..].iter().for_each(|head| memory.free(*head, Order::PAGEBLOCK));
    memory.housekeep();
    assert_bad(&memory, bad.len() as u64, 0);
    assert!(!memory.section(bad[0].section()).expect("present").faulty);
    bad.iter().step_by(100).for_each(|pfn| assert_gone(&memory, *pfn));
}
