//! Blocks that go from one zone to the other while they are online, with what they hold.

use crate::machine::dimms::{MOVABLE, NORMAL, plug_online};
use crate::machine::holders::TABLE;
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::pausing::{At, when};
use crate::machine::taking::request;
use crate::machine::{CPU, CPUS, Fake, Snapshot, assert_valid, blocks, booted, dimm, section};
use mm::addr::{Order, Pfn, SectionRange};
use mm::alloc::request::Request;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::hotplug::{OnlineError, RelabelError};
use mm::inject::Point;
use mm::limits::RESERVE_PAGES;
use mm::machine::tasks::{Stop, Unhurried};
use mm::record::journal::Op;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::{Errno, Memory};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn to(memory: &Memory<Fake>, range: SectionRange, zone: ZoneKind) -> Result<(), OnlineError> {
    memory.online(&[range], OnlineAs::Zone(zone), &mut Unhurried).map(drop)
}

fn zone_of(memory: &Memory<Fake>, block: u64) -> Option<ZoneKind> {
    memory.section(section(block)).expect("present").state.zone()
}

fn take_in(memory: &Memory<Fake>, range: SectionRange, mobility: Mobility) -> Pfn {
    memory.allocate_within(&request(Order::PAGE, mobility), range).expect("free")
}

#[test]
fn untouched_blocks_change_their_zone_and_nobody_looks_at_their_frames() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 40), 1, NORMAL);
    let before = Snapshot::of(&memory);
    let mapped = memory.machine().mapped_memmap_pages();
    to(&memory, blocks(33, 38), ZoneKind::Movable).expect("nothing is in the way");
    assert_valid(&memory);
    assert_eq!(zone_of(&memory, 32), Some(ZoneKind::Normal));
    assert!((33..=38).all(|block| zone_of(&memory, block) == Some(ZoneKind::Movable)));
    assert_eq!(memory.machine().mapped_memmap_pages(), mapped);
    to(&memory, blocks(33, 38), ZoneKind::Normal).expect("everything may be in Normal");
    assert_eq!(Snapshot::of(&memory), before);
    let event = (0..).map_while(|number| memory.event_since(number)).last().expect("something was done");
    assert_eq!((event.op, event.range, event.result), (Op::Online, blocks(33, 38), Ok(())));
}

#[test]
fn what_is_allocated_stays_and_comes_back_to_the_new_zone() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 33), 0, NORMAL);
    let before = Snapshot::of(&memory);
    let holders = [Order::PAGE, Order::PAGEBLOCK, Order::MAX].map(|order| hold_in(&memory, order, blocks(32, 32)));
    let at_hand = hold(&memory, &movable(Order::PAGE)).expect("free");
    let places = all_places(&memory);
    for zone in [ZoneKind::Movable, ZoneKind::Normal, ZoneKind::Movable] {
        to(&memory, blocks(32, 33), zone).expect("all of it can move");
        assert_eq!([32, 33].map(|block| zone_of(&memory, block)), [Some(zone); 2]);
        assert_valid(&memory);
    }
    assert!(memory.allocate_within(&request(Order::PAGE, Mobility::Unmovable), blocks(32, 33)).is_err());
    assert_eq!(all_places(&memory), places);
    holders.into_iter().chain([at_hand]).for_each(|holder| release(&memory, holder));
    assert_valid(&memory);
    to(&memory, blocks(32, 33), ZoneKind::Normal).expect("everything may be in Normal");
    assert_eq!(Snapshot::of(&memory), before);
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("free");
}

#[test]
fn page_tables_of_spaces_go_with_their_block_to_either_zone() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 32), 0, NORMAL);
    let tables: Vec<_> = (0..9).map(|_| memory.allocate_within(&TABLE, blocks(32, 32)).expect("free")).collect();
    for zone in [ZoneKind::Movable, ZoneKind::Normal] {
        to(&memory, blocks(32, 32), zone).expect("they can move");
        assert!(tables.iter().all(|table| memory.zone_of(*table) == Some(zone)));
        assert_valid(&memory);
    }
    tables.into_iter().for_each(|table| memory.free(table, Order::PAGE));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
}

#[test]
fn what_cannot_move_is_named_and_keeps_all_blocks_in_normal() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 35), 0, NORMAL);
    hold_in(&memory, Order::PAGE, blocks(33, 33));
    let fixed = take_in(&memory, blocks(34, 34), Mobility::Unmovable);
    let before = Snapshot::of(&memory);
    let error = to(&memory, blocks(32, 35), ZoneKind::Movable).expect_err("in the way");
    let reason = RelabelError::Unmovable { pfn: fixed, owner: Owner::Selftest };
    assert_eq!((error, error.errno()), (OnlineError::Relabel(reason), Errno::Busy));
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
    memory.free(fixed, Order::PAGE);
    to(&memory, blocks(32, 35), ZoneKind::Movable).expect("nothing is in the way any more");
}

#[test]
fn kernel_memory_in_movable_frames_is_unmovable_too() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 32), 0, NORMAL);
    let request = Request { owner: Owner::Anonymous, ..request(Order::PAGE, Mobility::Unmovable) };
    let pfn = memory.allocate_within(&request, blocks(32, 32)).expect("free");
    let error = to(&memory, blocks(32, 32), ZoneKind::Movable).expect_err("it serves the kernel");
    assert_eq!(error, OnlineError::Relabel(RelabelError::Unmovable { pfn, owner: Owner::Anonymous }));
    memory.free(pfn, Order::PAGE);
}

#[test]
fn a_pin_keeps_a_block_out_of_movable_but_not_out_of_normal() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 32), 0, MOVABLE);
    let holder = hold_in(&memory, Order::PAGE, blocks(32, 32));
    let pfn = place_of(&memory, holder).expect("held").0;
    assert!(memory.machine().page(pfn).pin());
    to(&memory, blocks(32, 32), ZoneKind::Normal).expect("everything may be in Normal");
    let error = to(&memory, blocks(32, 32), ZoneKind::Movable).expect_err("pinned");
    assert_eq!(error, OnlineError::Relabel(RelabelError::Pinned { pfn, owner: Owner::Anonymous }));
    memory.machine().page(pfn).unpin();
    to(&memory, blocks(32, 32), ZoneKind::Movable).expect("not pinned any more");
    assert_valid(&memory);
}

#[test]
fn only_blocks_that_are_all_in_the_other_zone_are_relabelled() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 33), 0, NORMAL);
    plug_online(&memory, 1, blocks(34, 35), 1, MOVABLE);
    let before = Snapshot::of(&memory);
    let error = |range, how| memory.online(&[range], how, &mut Unhurried).expect_err("refused");
    let there = |block, state| OnlineError::NotOffline { block: section(block), state };
    assert_eq!(error(blocks(32, 32), OnlineAs::Zone(ZoneKind::Normal)), there(32, "online"));
    assert_eq!(error(blocks(34, 34), OnlineAs::Zone(ZoneKind::Movable)), there(34, "online"));
    assert_eq!(error(blocks(32, 32), OnlineAs::ByPolicy), there(32, "online"));
    for (range, reason) in [
        (blocks(33, 34), RelabelError::NotThere { block: section(34), state: "online", zone: ZoneKind::Normal }),
        (
            blocks(32, 32),
            RelabelError::Injected(mm::inject::Injected { point: Point::OnlineRelabel, errno: Errno::Io }),
        ),
    ] {
        memory.failure_points().arm(Point::OnlineRelabel, Errno::Io, 1);
        assert_eq!(error(range, OnlineAs::Zone(ZoneKind::Movable)), OnlineError::Relabel(reason));
        assert_eq!(Snapshot::of(&memory), before);
        assert_valid(&memory);
    }
    memory.online(&[blocks(32, 33)], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("not armed any more");
    memory.offline(&[blocks(32, 35)], &mut Unhurried).expect("all of it is free");
}

const FIVE: std::ops::RangeInclusive<u64> = 32..=36;

/// Relabels five blocks, but for that it is told to stop at that pause; whether it came to that, and how it ended.
fn stop_at(memory: &Memory<Fake>, pause: u32, zone: ZoneKind) -> (bool, Result<(), OnlineError>) {
    let is_told = Cell::new(false);
    let stop = || {
        is_told.set(true);
        Err(Stop::Cancelled)
    };
    let range = blocks(*FIVE.start(), *FIVE.end());
    let result = memory.online(&[range], OnlineAs::Zone(zone), &mut At(pause, stop)).map(drop);
    assert_valid(memory);
    (is_told.get(), result)
}

/// Everything that is known of the five blocks.
fn five(memory: &Memory<Fake>) -> impl PartialEq + std::fmt::Debug {
    let snapshot = Snapshot::of(memory);
    (snapshot, FIVE.map(|block| memory.free_groups(section(block))).collect::<Vec<_>>(), all_places(memory))
}

const CANCELLED: Result<(), OnlineError> = Err(OnlineError::Relabel(RelabelError::Stopped(Stop::Cancelled)));

#[test]
fn between_any_two_steps_it_is_undone_or_too_late_to_stop() {
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 36), 0, NORMAL);
    // Between and behind them are blocks that nobody has touched.
    for (block, order) in [(32, Order::PAGE), (33, Order::PAGEBLOCK), (35, Order::MAX), (35, Order::PAGE)] {
        hold_in(memory, order, blocks(block, block));
    }
    for (zone, looks) in [(ZoneKind::Movable, 3), (ZoneKind::Normal, 0)] {
        let (mut undone, mut too_late) = (0, 0);
        for pause in 1.. {
            let before = five(memory);
            let (is_told, result) = stop_at(memory, pause, zone);
            if result.is_err() {
                assert_eq!((result, five(memory)), (CANCELLED, before), "at pause {pause}");
                undone += 1;
                continue;
            }
            assert!(FIVE.into_iter().all(|block| zone_of(memory, block) == Some(zone)));
            if !is_told {
                break;
            }
            too_late += 1;
            to(memory, blocks(32, 36), zone.other()).expect("it was there before");
        }
        assert!(
            undone >= 4 + looks,
            "it can be stopped between any two blocks, and after each look into one: {undone}"
        );
        assert!(too_late >= 4, "others may run between any two blocks: {too_late}");
    }
}

#[test]
fn waiting_for_what_is_in_flight_can_be_stopped() {
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 36), 0, NORMAL);
    let pfn = place_of(memory, hold_in(memory, Order::PAGE, blocks(32, 32))).expect("held").0;
    let before = five(memory);
    assert!(memory.machine().page(pfn).freeze());
    let waits = || memory.machine().waits.load(Ordering::Relaxed);
    for times in 1..=3 {
        let start = waits();
        let pace = &mut when(|| waits() == start + times, || Err(Stop::Cancelled));
        assert_eq!(memory.online(&[blocks(32, 36)], MOVABLE, pace).map(drop), CANCELLED);
        assert_eq!(waits(), start + times);
    }
    memory.machine().page(pfn).thaw();
    assert_eq!(five(memory), before);
    to(memory, blocks(32, 36), ZoneKind::Movable).expect("not in flight any more");
}

#[test]
fn boot_memory_becomes_movable_as_long_as_the_kernel_keeps_enough() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    to(&memory, blocks(1, 1), ZoneKind::Movable).expect("nothing is in the way");
    assert_valid(&memory);
    // The kernel image stays where it is.
    let error = to(&memory, blocks(0, 0), ZoneKind::Movable).expect_err("the kernel's own");
    assert_eq!(error.errno(), Errno::NoMemory);
    plug_online(&memory, 0, blocks(32, 32), 0, NORMAL);
    let error = to(&memory, blocks(0, 0), ZoneKind::Movable).expect_err("the reserve is boot memory");
    assert_eq!(error, OnlineError::Relabel(RelabelError::ReserveShort { short_by: RESERVE_PAGES }));
    to(&memory, blocks(1, 1), ZoneKind::Normal).expect("everything may be in Normal");
    let error = to(&memory, blocks(0, 0), ZoneKind::Movable).expect_err("the kernel's own");
    let reason = RelabelError::Unmovable { pfn: Pfn::new(256), owner: Owner::KernelImage };
    assert_eq!(error, OnlineError::Relabel(reason));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn blocks_change_their_zone_while_cpus_take_and_give() {
    const ROUNDS: usize = 1500;
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 33), 0, NORMAL);
    let before = Snapshot::of(&memory);
    let done = AtomicBool::new(false);
    let take_and_give = |cpu: usize, memory: &Arc<Memory<Fake>>| {
        CPU.set(cpu % CPUS);
        let mut held = Vec::new();
        let mut dice = fastrand::Rng::with_seed(cpu as u64);
        while !done.load(Ordering::Relaxed) {
            let order = Order::new([0, 0, 0, 1, 3, 9, 10][dice.usize(..7)]).expect("kept");
            let request = Request { owner: Owner::Anonymous, ..request(order, Mobility::Movable) };
            if dice.bool()
                && held.len() < 500
                && let Ok(head) =
                    memory.allocate_within(&request, blocks(32, 33)).or_else(|_| memory.allocate(&request))
            {
                held.push((head, order));
            } else if !held.is_empty() {
                let (head, order) = held.swap_remove(dice.usize(..held.len()));
                memory.free(head, order);
            }
        }
        held.into_iter().for_each(|(head, order)| memory.free(head, order));
    };
    let changes = std::thread::scope(|scope| {
        for cpu in 0..3 {
            let (memory, take_and_give) = (&memory, &take_and_give);
            scope.spawn(move || take_and_give(cpu, memory));
        }
        let mut changes = 0;
        for round in 0..ROUNDS {
            let zone = ZoneKind::ALL[round % 2].other();
            changes += usize::from(to(&memory, blocks(32, 33), zone).is_ok());
            memory.housekeep();
        }
        done.store(true, Ordering::Relaxed);
        changes
    });
    assert_valid(&memory);
    assert!(changes > ROUNDS / 2, "only {changes} of {ROUNDS} worked");
    if zone_of(&memory, 32) == Some(ZoneKind::Movable) {
        to(&memory, blocks(32, 33), ZoneKind::Normal).expect("everything may be in Normal");
    }
    assert_eq!(Snapshot::of(&memory), before);
}
