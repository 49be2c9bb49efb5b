//! Poisoned frames: nobody gets them any more, whatever becomes of their block.

use crate::machine::dimms::{MOVABLE, NORMAL, offline, online, plug};
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::poisoning::{assert_gone, frame, is_handed_out, poison};
use crate::machine::{Snapshot, assert_valid, blocks, booted, booted_with, dimm, section};
use mm::addr::{Order, PAGE_SIZE, PAGES_PER_SECTION, Pfn};
use mm::alloc::request::Request;
use mm::errno::Errno;
use mm::frame::memmap::Memmap;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::inject::Point;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::record::policy::OnlineAs;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

#[test]
fn a_poisoned_frame_survives_every_way_its_block_can_go() {
    let memory = booted();
    let before = memory.memory_report();
    plug(&memory, 0, blocks(32, 33), 1);
    let pfn = frame(32, 700);
    poison(&memory, pfn).expect("its block is offline");
    assert_eq!(memory.memory_report().poisoned, PAGE_SIZE);
    assert_eq!(memory.memory_report().total, before.total);
    for how in [MOVABLE, NORMAL, MOVABLE] {
        assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned);
        online(&memory, blocks(32, 33), how);
        let managed = 2 * (section(32).pages().len() - MEMMAP_PAGES) - 1 - 1;
        assert_eq!(memory.memory_report().total - before.total, managed * PAGE_SIZE, "one table, one poisoned frame");
        assert_gone(&memory, pfn);
        offline(&memory, blocks(32, 33));
        assert_valid(&memory);
    }
    assert_eq!(memory.memory_report().poisoned, PAGE_SIZE);
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(memory.memory_report(), before);

    // What comes to the same place next is other hardware.
    plug(&memory, 0, blocks(32, 33), 1);
    online(&memory, blocks(32, 33), MOVABLE);
    assert_eq!(memory.frame_report(pfn).state, FrameState::Untouched);
    assert!(is_handed_out(&memory, blocks(32, 32), pfn));
}

#[test]
fn free_frames_are_set_aside_wherever_they_lie() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 1);
    online(&memory, blocks(32, 33), MOVABLE);
    let untouched = frame(32, 512);
    poison(&memory, untouched).expect("free");
    assert_gone(&memory, untouched);

    // The block is open now: as a part of a whole pageblock, in a cache, alone in its pageblock.
    let request = Request { owner: Owner::Selftest, ..movable(Order::PAGE) };
    let cached = memory.allocate_within(&request, blocks(32, 32)).expect("free");
    memory.free(cached, Order::PAGE);
    for pfn in [frame(32, 20_000), frame(32, 20_511), cached, frame(32, 32_767), frame(0, 0), frame(1, 159)] {
        poison(&memory, pfn).expect("free");
        assert_gone(&memory, pfn);
    }
    assert_eq!(memory.memory_report().poisoned, 7 * PAGE_SIZE);
    // In a pageblock whose other frames are all taken, and in one of which nothing is left.
    let all: Vec<_> = std::iter::from_fn(|| memory.allocate_within(&request, blocks(33, 33)).ok()).collect();
    for pfn in section(33).pages().iter().skip(512).take(100) {
        memory.free(pfn, Order::PAGE);
        memory.drain_caches();
        poison(&memory, pfn).expect("free");
    }
    assert_valid(&memory);
    all.into_iter()
        .filter(|pfn| !(512..612).contains(&pfn.index_in_section()))
        .for_each(|pfn| memory.free(pfn, Order::PAGE));
    assert_valid(&memory);
    offline(&memory, blocks(32, 33));
    assert_eq!(memory.memory_report().poisoned, 107 * PAGE_SIZE);
}

#[test]
fn a_block_with_poisoned_frames_can_be_closed_and_opened() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 47), 1);
    online(&memory, blocks(32, 47), MOVABLE);
    let pfn = frame(40, 30_000);
    poison(&memory, pfn).expect("free");
    for id in 32..=47 {
        let request = Request { owner: Owner::Selftest, ..movable(Order::PAGEBLOCK) };
        let head = memory.allocate_within(&request, blocks(id, id)).expect("free");
        memory.free(head, Order::PAGEBLOCK);
        memory.drain_caches();
    }
    memory.housekeep();
    let closed = memory.blocks().filter(|(_, section)| section.is_untouched()).count();
    assert!(closed >= 12, "{closed} are closed");
    assert_gone(&memory, pfn);
}

#[test]
fn boot_blocks_keep_their_poisoned_frames() {
    let memory = booted();
    let (early, late) = (frame(1, 20), frame(1, 21));
    poison(&memory, early).expect("free");
    offline(&memory, blocks(1, 1));
    poison(&memory, late).expect("offline");
    for pfn in [early, late] {
        assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned);
        assert_eq!(poison(&memory, pfn), Err(PoisonError::Already(pfn)));
    }
    let refused = [poison(&memory, frame(1, 200)), poison(&memory, frame(1, 4096))];
    let memmap = PoisonError::Held { pfn: frame(1, 4096), owner: Owner::Memmap };
    assert_eq!(refused, [Err(PoisonError::Absent(frame(1, 200))), Err(memmap)]);
    online(&memory, blocks(1, 1), NORMAL);
    assert_gone(&memory, early);
    assert_gone(&memory, late);
}

#[test]
fn what_a_frame_holds_moves_first() {
    for with_split in [false, true] {
        let memory = if with_split { booted_with_holders() } else { std::sync::Arc::new(booted()) };
        plug(&memory, 0, blocks(32, 33), 1);
        online(&memory, blocks(32, 33), MOVABLE);
        for order in [Order::PAGE, Order::new(3).expect("in range"), Order::PAGEBLOCK, Order::MAX] {
            let holder = hold_in(&memory, order, blocks(32, 32));
            let (head, _) = place_of(&memory, holder).expect("held");
            let bad = head.add(order.pages() - 1);
            poison(&memory, bad).expect("it can move");
            assert_eq!(memory.frame_report(bad).state, FrameState::Poisoned);
            assert_valid(&memory);
            let held: u64 = all_places(&memory).iter().map(|(_, _, order)| order.pages()).sum();
            assert_eq!(held, order.pages(), "nothing is lost");
            if with_split && order == Order::PAGEBLOCK {
                let stayed = all_places(&memory)
                    .iter()
                    .filter(|(_, pfn, _)| (head.number()..bad.number()).contains(&pfn.number()))
                    .count();
                assert_eq!(stayed as u64, order.pages() - 1, "one frame of the large page moves");
            }
            all_places(&memory).into_iter().for_each(|(holder, _, _)| release(&memory, holder));
            assert_gone(&memory, bad);
        }
        offline(&memory, blocks(32, 33));
        assert_valid(&memory);
    }
}

#[test]
fn a_refusal_changes_nothing() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 1);
    online(&memory, blocks(32, 32), NORMAL);
    let unlucky = hold_in(&memory, Order::PAGE, blocks(32, 32));
    let (unlucky, _) = place_of(&memory, unlucky).expect("held");
    poison(&memory, frame(32, 9000)).expect("free");
    let before = Snapshot::of(&memory);
    let held = |pfn, owner| PoisonError::Held { pfn, owner };
    for (pfn, error, errno) in [
        (frame(0, 256), held(frame(0, 256), Owner::KernelImage), Errno::Busy),
        (frame(0, 4096), held(frame(0, 4096), Owner::Memmap), Errno::Busy),
        (frame(32, 1), held(frame(32, 1), Owner::Memmap), Errno::Busy),
        (frame(0, 200), PoisonError::Absent(frame(0, 200)), Errno::NoDevice),
        (frame(20, 0), PoisonError::Absent(frame(20, 0)), Errno::NoDevice),
        (frame(600, 0), PoisonError::Absent(frame(600, 0)), Errno::NoDevice),
        (frame(32, 9000), PoisonError::Already(frame(32, 9000)), Errno::Exists),
    ] {
        assert_eq!(poison(&memory, pfn), Err(error));
        assert_eq!(error.errno(), errno, "{error}");
        assert_eq!(Snapshot::of(&memory), before);
    }
    memory.failure_points().arm(Point::MigrateDestination, Errno::NoMemory, 1);
    assert_eq!(poison(&memory, unlucky).map_err(PoisonError::errno), Err(Errno::NoMemory));
    memory.machine().holders.in_flight_every.store(1, Ordering::Relaxed);
    assert_eq!(poison(&memory, unlucky), Err(PoisonError::InFlight(unlucky)));
    assert_eq!(Snapshot::of(&memory), before);
    memory.machine().holders.in_flight_every.store(2, Ordering::Relaxed);
    poison(&memory, unlucky).expect("the second time it can move");
    assert_valid(&memory);
}

#[test]
fn all_of_a_block_can_be_poisoned_and_is_remembered() {
    for how_added in [true, false] {
        let memory = booted();
        memory.set_policy(|policy| policy.memmap_on_memory = how_added);
        plug(&memory, 0, blocks(32, 33), 1);
        let before = memory.memory_report();
        // Half of it offline, the rest while it is in use.
        let usable: Vec<Pfn> = {
            let section = memory.section(section(32)).expect("present");
            (section.head_frames()..PAGES_PER_SECTION).map(|n| frame(32, n)).collect()
        };
        let (early, late) = usable.split_at(usable.len() / 2);
        early.iter().for_each(|pfn| poison(&memory, *pfn).expect("offline"));
        assert_valid(&memory);
        online(&memory, blocks(32, 33), MOVABLE);
        late.iter().for_each(|pfn| poison(&memory, *pfn).expect("free"));
        let all = usable.len() as u64 * PAGE_SIZE;
        for how in [NORMAL, MOVABLE] {
            assert_eq!(memory.memory_report().poisoned, all);
            assert_eq!(memory.section(section(32)).expect("present").managed, 0);
            assert!(memory.allocate_within(&movable(Order::PAGE), blocks(32, 32)).is_err());
            assert_valid(&memory);
            offline(&memory, blocks(32, 33));
            assert_eq!(poison(&memory, usable[0]), Err(PoisonError::Already(usable[0])));
            assert!(usable.iter().all(|pfn| memory.frame_report(*pfn).state == FrameState::Poisoned));
            assert_valid(&memory);
            online(&memory, blocks(32, 33), how);
        }
        offline(&memory, blocks(32, 33));
        memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
        plug(&memory, 0, blocks(32, 33), 1);
        assert_eq!(memory.memory_report(), before, "it is other hardware");
        assert_valid(&memory);
    }
}

#[test]
fn frames_of_both_parts_of_a_mixed_block_are_remembered() {
    let memory = booted_with([0, 0], Some(frame(1, 8192)));
    let bad: Vec<Pfn> = (0..150).flat_map(|n| [frame(1, 1300 + n), frame(1, 10_000 + 3 * n)]).collect();
    bad.iter().for_each(|pfn| poison(&memory, *pfn).expect("free"));
    assert_eq!(memory.memory_report().poisoned, 300 * PAGE_SIZE);
    assert!(bad.iter().all(|pfn| memory.frame_report(*pfn).state == FrameState::Poisoned));
    assert_valid(&memory);
}

#[test]
fn what_moves_goes_into_no_frame_with_an_error() {
    let memory = booted_with_holders();
    plug(&memory, 0, blocks(32, 33), 1);
    online(&memory, blocks(32, 33), MOVABLE);
    let bad: BTreeSet<Pfn> = (0..300).map(|n| frame(33, 500 + 107 * n)).collect();
    bad.iter().for_each(|pfn| poison(&memory, *pfn).expect("free"));
    let held: Vec<_> = (0..20_000).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 32))).collect();
    offline(&memory, blocks(32, 32));
    let places: BTreeSet<Pfn> = all_places(&memory).into_iter().map(|(_, pfn, _)| pfn).collect();
    assert_eq!(places.len(), held.len());
    assert!(places.is_disjoint(&bad));
    assert!(places.iter().any(|pfn| pfn.section() == section(33)), "they are where errors are");
    assert_valid(&memory);
}

/// One step of a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hold(u8),
    Release(usize),
    Poison(u64, u64),
    /// Where somebody is.
    PoisonHeld(usize, u64),
    /// Where somebody is who cannot go.
    PoisonPinned(usize, u64),
    Take(u8),
    Give(usize),
    PoisonTaken(usize, u64),
    Online(u64, OnlineAs),
    Offline(u64),
    Replace,
    Keep,
}

fn step() -> impl Strategy<Value = Step> {
    let block = prop_oneof![0u64..2, 32u64..34];
    prop_oneof![
        6 => prop_oneof![3 => Just(0u8), 1 => 1u8..=10].prop_map(Step::Hold),
        4 => any::<usize>().prop_map(Step::Release),
        2 => (block.clone(), 0u64..32_768).prop_map(|(block, n)| Step::Poison(block, n)),
        3 => (any::<usize>(), 0u64..1024).prop_map(|(who, n)| Step::PoisonHeld(who, n)),
        2 => (any::<usize>(), 0u64..1024).prop_map(|(who, n)| Step::PoisonPinned(who, n)),
        2 => (0u8..=10).prop_map(Step::Take),
        2 => any::<usize>().prop_map(Step::Give),
        2 => (any::<usize>(), 0u64..1024).prop_map(|(who, n)| Step::PoisonTaken(who, n)),
        2 => (block.clone(), prop_oneof![Just(MOVABLE), Just(NORMAL)]).prop_map(|(block, how)| Step::Online(block, how)),
        2 => block.prop_map(Step::Offline),
        1 => Just(Step::Replace),
        1 => Just(Step::Keep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_ever_gets_a_frame_with_an_error(steps in prop::collection::vec(step(), 1..60)) {
        let memory = &*booted_with_holders();
        plug(memory, 0, blocks(32, 33), 1);
        let mut bad = BTreeSet::new();
        // Those of them that somebody held then.
        let mut faulty = BTreeSet::new();
        let mut taken: Vec<(Pfn, Order)> = Vec::new();
        for step in steps {
            match step {
                Step::Hold(order) => {
                    let held = hold(memory, &movable(Order::new(order).expect("in range")));
                    if let Some((head, order)) = held.ok().and_then(|holder| place_of(memory, holder)) {
                        prop_assert_eq!(bad.range(head..head.add(order.pages())).next(), None);
                    }
                }
                Step::Take(order) => {
                    let order = Order::new(order).expect("in range");
                    if let Ok(head) = memory.allocate(&Request { order, ..Request::kernel(Owner::Kfill) }) {
                        prop_assert_eq!(bad.range(head..head.add(order.pages())).next(), None);
                        taken.push((head, order));
                    }
                }
                Step::Give(n) => {
                    if !taken.is_empty() {
                        let (head, order) = taken.swap_remove(n % taken.len());
                        memory.free(head, order);
                    }
                }
                Step::PoisonTaken(n, part) => {
                    if !taken.is_empty() {
                        let (head, order) = taken[n % taken.len()];
                        let pfn = head.add(part % order.pages());
                        match poison(memory, pfn) {
                            Err(PoisonError::Used { owner: Owner::Kfill, .. }) => { bad.insert(pfn); faulty.insert(pfn); }
                            other => prop_assert!(bad.contains(&pfn), "{:?}", other),
                        }
                    }
                }
                Step::PoisonPinned(who, n) => {
                    let places = all_places(memory);
                    if !places.is_empty() {
                        let (_, head, order) = places[who % places.len()];
                        let pfn = head.add(n % order.pages());
                        prop_assert!(memory.machine().page(head).pin());
                        prop_assert_eq!(poison(memory, pfn), Err(PoisonError::Pinned(pfn)));
                        memory.machine().page(head).unpin();
                        bad.insert(pfn);
                        faulty.insert(pfn);
                    }
                }
                Step::Release(n) => {
                    let places = all_places(memory);
                    if !places.is_empty() {
                        release(memory, places[n % places.len()].0);
                    }
                }
                Step::Poison(block, n) => {
                    match poison(memory, frame(block, n)) {
                        Ok(()) => { bad.insert(frame(block, n)); }
                        Err(PoisonError::Used { pfn, .. }) => { bad.insert(pfn); faulty.insert(pfn); }
                        Err(_) => {}
                    }
                }
                Step::PoisonHeld(who, n) => {
                    let places = all_places(memory);
                    if !places.is_empty() {
                        let (_, head, order) = places[who % places.len()];
                        let pfn = head.add(n % order.pages());
                        if poison(memory, pfn).is_ok() {
                            bad.insert(pfn);
                        }
                    }
                }
                Step::Online(block, how) => {
                    let _ = memory.online(&[blocks(block, block)], how, &mut Unhurried);
                }
                Step::Offline(block) => {
                    let _ = memory.offline(&[blocks(block, block)], &mut Unhurried);
                }
                Step::Replace => {
                    if memory.remove(&[dimm(0)], &mut Unhurried).is_ok() {
                        bad.retain(|pfn: &Pfn| pfn.section() < section(32));
                        faulty.retain(|pfn: &Pfn| pfn.section() < section(32));
                        plug(memory, 0, blocks(32, 33), 1);
                    }
                }
                Step::Keep => memory.housekeep(),
            }
            for (_, head, order) in all_places(memory) {
                prop_assert!(bad.range(head..head.add(order.pages())).all(|pfn| faulty.contains(pfn)));
            }
            let report = memory.memory_report();
            prop_assert_eq!(report.poisoned + report.faulty, bad.len() as u64 * PAGE_SIZE);
            assert_valid(memory);
        }
        taken.into_iter().for_each(|(head, order)| memory.free(head, order));
        all_places(memory).into_iter().for_each(|(holder, _, _)| release(memory, holder));
        memory.housekeep();
        prop_assert_eq!(memory.memory_report().faulty, 0);
        prop_assert!(bad.iter().all(|pfn| memory.frame_report(*pfn).state == FrameState::Poisoned));
        assert_valid(memory);
    }
}
