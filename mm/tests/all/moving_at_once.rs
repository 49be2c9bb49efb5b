//! Blocks that are in use go offline while other threads work on the same memory.

use crate::machine::dimms::{MOVABLE, plug_online};
use crate::machine::holders::Holder;
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::pausing::when;
use crate::machine::taking::take_all_in;
use crate::machine::{Fake, Snapshot, assert_valid, blocks};
use mm::Memory;
use mm::addr::{Order, Pfn, SectionId, SectionRange};
use mm::alloc::request::Request;
use mm::frame::page::Owner;
use mm::hotplug::OfflineError;
use mm::limits::KERNEL_PAGES;
use mm::machine::tasks::Unhurried;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every free frame that can be had, as holders.
fn hold_all(memory: &Memory<Fake>) -> Vec<Holder> {
    std::iter::from_fn(|| hold(memory, &movable(Order::PAGE)).ok()).collect()
}

#[test]
fn memory_moves_while_its_holders_come_and_go() {
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 33), 0, MOVABLE);
    plug_online(memory, 1, blocks(40, 41), 0, MOVABLE);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=3u64 {
            let done = &done;
            scope.spawn(move || {
                let mut dice = fastrand::Rng::with_seed(seed);
                let mut held = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let order = if dice.u8(..20) == 0 { Order::PAGEBLOCK } else { Order::PAGE };
                    if held.len() < 200
                        && let Ok(holder) = hold(memory, &movable(order))
                    {
                        held.push(holder);
                    } else if !held.is_empty() {
                        release(memory, held.swap_remove(dice.usize(..held.len())));
                    }
                }
            });
        }
        let mut offlined = 0;
        for round in 0..60 {
            let range = if round % 2 == 0 { blocks(32, 33) } else { blocks(40, 41) };
            match memory.offline(&[range], &mut Unhurried) {
                Ok(()) => {
                    offlined += 1;
                    let is_inside = |pfn: &Pfn| range.contains(pfn.section());
                    assert!(!all_places(memory).iter().any(|(_, pfn, _)| is_inside(pfn)));
                    memory.online(&[range], MOVABLE, &mut Unhurried).expect("offline");
                }
                Err(OfflineError::InFlight { .. } | OfflineError::NoDestination { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(offlined > 50, "{offlined}");
    });
    for (holder, ..) in all_places(memory) {
        release(memory, holder);
    }
    assert_valid(memory);
    drop(hold_all(memory));
    assert_valid(memory);
}

/// Takes both ranges offline at once, each of which waits for the other when so many of its blocks are isolated.
fn offline_both(memory: &Memory<Fake>, ranges: [SectionRange; 2], isolated: usize) -> [Result<(), OfflineError>; 2] {
    let meeting = Barrier::new(ranges.len());
    let is_isolated = |id: &SectionId| {
        memory.section(*id).is_some_and(|section| matches!(section.state, BlockState::GoingOffline(_)))
    };
    let offline = |range: SectionRange| {
        let meet = || {
            meeting.wait();
            Ok(())
        };
        memory.offline(&[range], &mut when(|| range.iter().filter(is_isolated).count() >= isolated, meet))
    };
    std::thread::scope(|scope| {
        let others = ranges.map(|range| scope.spawn(move || offline(range)));
        others.map(|other| other.join().expect("it ends"))
    })
}

#[test]
fn blocks_that_both_hold_memory_go_offline_at_once() {
    let memory = &*booted_with_holders();
    let ranges = [blocks(32, 33), blocks(40, 41)];
    plug_online(memory, 0, ranges[0], 0, MOVABLE);
    plug_online(memory, 1, ranges[1], 1, MOVABLE);
    plug_online(memory, 2, blocks(48, 48), 2, MOVABLE);
    let before = Snapshot::of(memory);
    for round in 0..20 {
        let mut holders = Vec::new();
        for n in 0..800 {
            let order = if n % 100 == 0 { Order::PAGEBLOCK } else { Order::PAGE };
            holders.extend(ranges.map(|range| hold_in(memory, order, range)));
        }
        // One waits when it has isolated one of its blocks, or both.
        assert_eq!(offline_both(memory, ranges, 1 + round % 2), [Ok(()); 2]);
        assert_valid(memory);
        let places = all_places(memory);
        assert!(places.iter().all(|(_, pfn, _)| !ranges.iter().any(|range| range.contains(pfn.section()))));
        assert!(holders.iter().all(|holder| place_of(memory, *holder).is_some()));
        memory.online(&ranges, MOVABLE, &mut Unhurried).expect("offline");
        holders.into_iter().for_each(|holder| release(memory, holder));
        assert_eq!(Snapshot::of(memory), before);
    }
}

#[test]
fn of_blocks_that_go_offline_at_once_one_stays_if_there_is_room_for_the_other_only() {
    let ranges = [blocks(32, 33), blocks(40, 41)];
    let elsewhere = blocks(48, 48);
    for _ in 0..10 {
        let memory = &*booted_with_holders();
        plug_online(memory, 0, ranges[0], 0, MOVABLE);
        plug_online(memory, 1, ranges[1], 1, MOVABLE);
        plug_online(memory, 2, elsewhere, 2, MOVABLE);
        for n in 0..1200 {
            hold_in(memory, Order::PAGE, ranges[n % 2]);
        }
        for range in [blocks(0, 1), elsewhere] {
            let request = Request { owner: Owner::Selftest, ..movable(Order::PAGE) };
            let mut others = take_all_in(memory, &request, range);
            let given_back = if range == elsewhere { 900 } else { KERNEL_PAGES };
            (0..given_back).for_each(|_| memory.free(others.pop().expect("there was more"), Order::PAGE));
        }
        // Both have isolated their blocks, and each finds room for its own.
        let results = offline_both(memory, ranges, 2);
        assert_valid(memory);
        assert_ne!(results, [Ok(()); 2]);
        assert_eq!(all_places(memory).len(), 1200);
        for (range, result) in ranges.into_iter().zip(results) {
            let zone = result.is_err().then_some(ZoneKind::Movable);
            assert!(range.iter().all(|id| memory.section(id).expect("present").state.zone() == zone));
            assert!(matches!(result, Ok(()) | Err(OfflineError::NoDestination { .. })), "{result:?}");
        }
    }
}
