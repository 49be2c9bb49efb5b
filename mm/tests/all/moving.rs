//! Blocks that are in use go offline: what can move moves, once, and what cannot is told before anything has.

use crate::machine::dimms::{MOVABLE, NORMAL, plug_online};
use crate::machine::holders::{Holder, TABLE};
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::pausing::{At, when};
use crate::machine::taking::take_all_in;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{Request, Urgency};
use mm::errno::Errno;
use mm::evacuate::content::{Blocker, Hold};
use mm::evacuate::evacuation::MOVED_TOGETHER;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::hotplug::preview::{OfflinePreview, PreviewItem};
use mm::hotplug::{AddRequest, OfflineError, UnplugError};
use mm::inject::Point;
use mm::limits::{KERNEL_PAGES, RESERVE_PAGES};
use mm::machine::tasks::{Stop, Unhurried};
use mm::record::journal::Op;
use mm::section::kind::ZoneKind;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn place(memory: &Memory<Fake>, holder: Holder) -> Pfn {
    place_of(memory, holder).expect("held").0
}

fn moved(memory: &Memory<Fake>) -> u64 {
    memory.machine().holders.moved.load(Ordering::Relaxed)
}

fn last_moved(memory: &Memory<Fake>) -> u64 {
    let events = std::iter::successors(memory.event_since(0), |event| memory.event_since(event.number + 1));
    events.filter(|event| event.op == Op::Offline).last().expect("there was one").moved
}

#[test]
fn what_is_in_use_moves_out_once_and_to_the_same_node() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 33), 1, MOVABLE);
    plug_online(&memory, 1, blocks(40, 40), 2, MOVABLE);
    plug_online(&memory, 2, blocks(48, 48), 1, MOVABLE);
    let holders: Vec<_> = (0..1500)
        .map(|n| hold_in(&memory, if n % 100 == 0 { Order::PAGEBLOCK } else { Order::PAGE }, blocks(32, 33)))
        .collect();
    let pages = 1485 + 15 * Order::PAGEBLOCK.pages();
    memory.unplug(&[dimm(0)], &[blocks(32, 33)], &mut Unhurried).expect("all of it can move");
    assert_eq!((moved(&memory), last_moved(&memory)), (pages, pages));
    for holder in &holders {
        assert_eq!(place(&memory, *holder).section(), section(48), "nearest to where it was");
    }
    assert_valid(&memory);
    holders.into_iter().for_each(|holder| release(&memory, holder));
    assert_valid(&memory);
}

#[test]
fn nothing_moves_into_what_goes_too() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 35), 0, MOVABLE);
    let holders: Vec<_> = (0..600).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 35))).collect();
    memory.offline(&[blocks(32, 32), blocks(34, 35)], &mut Unhurried).expect("block 33 has room");
    assert!(holders.iter().all(|holder| place(&memory, *holder).section() == section(33)));
    assert_eq!(moved(&memory), 600);
    assert_valid(&memory);
}

#[test]
fn what_the_kernel_holds_is_told_before_anything_moves() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 33), 0, NORMAL);
    let holder = hold_in(&memory, Order::PAGE, blocks(32, 32));
    let kernel = memory.allocate_within(&Request::kernel(Owner::Kfill), blocks(33, 33)).expect("room");
    let before = Snapshot::of(&memory);
    let error = memory.offline(&[blocks(32, 33)], &mut Unhurried).expect_err("the kernel is in the way");
    assert_eq!(error, OfflineError::Unmovable { pfn: kernel, owner: Owner::Kfill });
    assert_eq!((error.errno(), moved(&memory)), (Errno::Busy, 0));
    assert_eq!(Snapshot::of(&memory), before);
    memory.free(kernel, Order::PAGE);
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("only what can move is left");
    assert_ne!(place(&memory, holder).section(), section(32));
    assert_valid(&memory);
}

#[test]
fn a_pin_keeps_a_block_until_it_is_given_up() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 33), 0, MOVABLE);
    plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
    let holders: Vec<_> = (0..300).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 32))).collect();
    let pinned = place(&memory, holders[200]);
    assert!(memory.machine().page(pinned).pin());
    let before = Snapshot::of(&memory);
    for _ in 0..2 {
        let error = memory.offline(&[blocks(32, 33)], &mut Unhurried).expect_err("pinned");
        assert_eq!(error, OfflineError::Pinned { pfn: pinned, owner: Owner::Anonymous });
        assert_eq!((Snapshot::of(&memory), moved(&memory)), (before.clone(), 0));
    }
    memory.machine().page(pinned).unpin();
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("nobody refers to it any more");
    assert_eq!(moved(&memory), 300);
    assert_valid(&memory);
}

#[test]
fn too_little_room_is_known_beforehand_to_the_page() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 32), 0, MOVABLE);
    plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
    let inside: Vec<_> = (0..100).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 32))).collect();
    let mut others = Vec::new();
    // All there is elsewhere, but what the kernel keeps and ninety frames.
    while let Ok(head) = memory.allocate_within(&movable(Order::PAGE), blocks(40, 40)) {
        others.push(head);
    }
    let kernel = Request::kernel(Owner::Selftest);
    let free_boot = || {
        let mut pages = 0;
        memory.drain_caches();
        memory.for_each_zone(|zone| pages += zone.free_boot / PAGE_SIZE);
        pages
    };
    while free_boot() > RESERVE_PAGES + KERNEL_PAGES + 90 {
        others.push(memory.allocate(&kernel).expect("above the reserve"));
    }
    let before = Snapshot::of(&memory);
    let error = memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("ten too many");
    assert_eq!(error, OfflineError::NoDestination { short_by: 10 });
    assert_eq!((error.errno(), moved(&memory)), (Errno::NoMemory, 0));
    assert_eq!(Snapshot::of(&memory), before);
    for _ in 0..10 {
        memory.free(others.pop().expect("many"), Order::PAGE);
    }
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("exactly enough");
    assert_eq!(moved(&memory), 100);
    assert_eq!(free_boot(), RESERVE_PAGES + KERNEL_PAGES);
    inside.into_iter().for_each(|holder| release(&memory, holder));
    others.into_iter().for_each(|head| memory.free(head, Order::PAGE));
    assert_valid(&memory);
}

/// Takes all of some blocks but the first half of every pageblock, so that none is free as a whole.
fn use_half_of_every_pageblock(memory: &Memory<Fake>, ranges: &[SectionRange]) {
    let order = Order::PAGEBLOCK.smaller().expect("it has parts");
    let request = Request { owner: Owner::Selftest, ..movable(order) };
    let take = || ranges.iter().find_map(|range| memory.allocate_within(&request, *range).ok());
    let halves: Vec<_> = std::iter::from_fn(take).collect();
    let is_first = |half: &&Pfn| half.align_down(Order::PAGEBLOCK) == **half;
    halves.iter().filter(is_first).for_each(|half| memory.free(*half, order));
}

#[test]
fn a_full_boot_block_leaves_though_the_reserve_is_used() {
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 33), 0, MOVABLE);
    for order in [Order::PAGEBLOCK, Order::PAGE] {
        while let Ok(head) = memory.allocate_within(&movable(order), blocks(1, 1)) {
            memory.machine().settle_down(head, order);
        }
    }
    let urgent = Request { urgency: Urgency::Hotplug, ..Request::kernel(Owner::Selftest) };
    while memory.allocate(&urgent).is_ok() {}
    memory.offline(&[blocks(1, 1)], &mut Unhurried).expect("no part of the reserve goes with it");
    assert_valid(memory);
}

#[test]
fn a_large_page_moves_whole_or_in_parts() {
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 32), 0, MOVABLE);
    plug_online(memory, 1, blocks(40, 40), 0, MOVABLE);
    let large = hold_in(memory, Order::PAGEBLOCK, blocks(32, 32));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("there is a whole pageblock elsewhere");
    assert_eq!(place_of(memory, large).expect("not split").1, Order::PAGEBLOCK);
    // Now one frame of every pageblock elsewhere is used, so that none is free as a whole.
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    release(memory, large);
    let large = hold_in(memory, Order::PAGEBLOCK, blocks(32, 32));
    use_half_of_every_pageblock(memory, &[blocks(0, 1), blocks(40, 40)]);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("there are frames enough");
    assert_eq!(place_of(memory, large), None, "it was split");
    let parts = all_places(memory);
    assert_eq!(parts.len() as u64, Order::PAGEBLOCK.pages());
    assert!(parts.iter().all(|(_, pfn, order)| *order == Order::PAGE && pfn.section() != section(32)));
    assert_valid(memory);
    for (holder, ..) in parts {
        release(memory, holder);
    }
    assert_valid(memory);
}

/// Takes all free frames of some blocks but the last so many; what it took.
fn use_all_but(memory: &Memory<Fake>, range: SectionRange, left: u64) -> Vec<Pfn> {
    let request = Request { owner: Owner::Selftest, ..movable(Order::PAGE) };
    let mut taken = take_all_in(memory, &request, range);
    taken.sort_unstable();
    (0..left).for_each(|_| memory.free(taken.pop().expect("there was more"), Order::PAGE));
    taken
}

#[test]
fn a_large_page_is_split_rather_than_take_what_tables_for_the_others_need() {
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 32), 0, MOVABLE);
    plug_online(memory, 1, blocks(40, 40), 0, MOVABLE);
    plug_online(memory, 2, blocks(48, 48), 0, NORMAL);
    for _ in 0..10 {
        hold_in(memory, Order::PAGEBLOCK, blocks(32, 32));
    }
    use_half_of_every_pageblock(memory, &[blocks(40, 40)]);
    use_all_but(memory, blocks(0, 1), 0);
    // The last pageblock of it is free as a whole, and the only one.
    use_all_but(memory, blocks(48, 48), Order::PAGEBLOCK.pages());
    let (blockers, preview) = preview_offline(memory, blocks(32, 32));
    assert_eq!((blockers.len(), preview.short_by), (0, 0));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("as foreseen");
    let places = all_places(memory);
    assert_eq!(places.len() as u64, 10 * Order::PAGEBLOCK.pages());
    assert!(places.iter().all(|(_, pfn, _)| pfn.section() == section(40)));
    assert_valid(memory);
}

#[test]
fn too_few_frames_for_tables_are_known_beforehand_to_the_page() {
    const LARGE: u64 = 100;
    let pages = LARGE * Order::PAGEBLOCK.pages();
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 33), 0, MOVABLE);
    plug_online(memory, 1, blocks(40, 43), 0, MOVABLE);
    plug_online(memory, 2, blocks(56, 56), 0, NORMAL);
    for _ in 0..LARGE {
        hold_in(memory, Order::PAGEBLOCK, blocks(32, 33));
    }
    use_half_of_every_pageblock(memory, &[blocks(40, 43)]);
    use_all_but(memory, blocks(0, 1), 0);
    // What is left for the kernel is for no tables.
    use_all_but(memory, blocks(56, 56), KERNEL_PAGES);
    let short_by = 44;
    let mut others = use_all_but(memory, blocks(40, 43), pages + LARGE - short_by);
    let before = Snapshot::of(memory);
    assert_eq!(
        preview_offline(memory, blocks(32, 33)),
        (vec![], OfflinePreview { movable: pages, short_by, reserve_short_by: 0 })
    );
    let error = memory.offline(&[blocks(32, 33)], &mut Unhurried).expect_err("too few frames for tables");
    assert_eq!((error, moved(memory)), (OfflineError::NoDestination { short_by }, 0));
    assert_eq!(Snapshot::of(memory), before);
    (0..short_by).for_each(|_| memory.free(others.pop().expect("many"), Order::PAGE));
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("exactly enough");
    assert_eq!(moved(memory), pages);
    assert_valid(memory);
}

#[test]
fn page_tables_leave_room_for_what_can_go_to_normal_zones_only() {
    const FIXED: u64 = 40;
    let memory = &*booted_with_holders();
    plug_online(memory, 0, blocks(32, 32), 0, NORMAL);
    plug_online(memory, 1, blocks(40, 40), 0, MOVABLE);
    plug_online(memory, 2, blocks(48, 48), 0, NORMAL);
    // They come first.
    let tables: Vec<_> = (0..20).map(|_| memory.allocate_within(&TABLE, blocks(32, 32)).expect("free")).collect();
    memory.machine().holders.tables.lock().unwrap().extend(tables);
    let of_kernel = Request { mobility: Mobility::Unmovable, ..movable(Order::PAGE) };
    for _ in 0..FIXED {
        let head = memory.allocate_within(&of_kernel, blocks(32, 32)).expect("free");
        memory.machine().settle_down(head, Order::PAGE);
    }
    use_all_but(memory, blocks(0, 1), 0);
    use_all_but(memory, blocks(48, 48), KERNEL_PAGES + FIXED);
    use_all_but(memory, blocks(40, 40), 20);
    let (blockers, preview) = preview_offline(memory, blocks(32, 32));
    assert_eq!((blockers.len(), preview.movable, preview.short_by), (0, FIXED + 20, 0));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("as foreseen");
    assert!(all_places(memory).iter().all(|(_, pfn, _)| pfn.section() == section(48)));
    let tables = memory.machine().holders.tables.lock().unwrap().clone();
    assert!(tables.iter().all(|pfn| pfn.section() == section(40)));
    assert_eq!(memory.memory_report().kernel_available / PAGE_SIZE, KERNEL_PAGES);
    assert_valid(memory);
}

#[test]
fn page_tables_leave_a_movable_block_for_another_when_normal_is_short() {
    let memory = &*booted_with_holders();
    use_all_but(memory, blocks(0, 1), 0);
    plug_online(memory, 0, blocks(32, 32), 0, MOVABLE);
    let tables: Vec<_> = (0..300).map(|_| memory.allocate(&TABLE).expect("free")).collect();
    memory.machine().holders.tables.lock().unwrap().extend(tables);
    plug_online(memory, 1, blocks(40, 40), 0, MOVABLE);
    let (blockers, preview) = preview_offline(memory, blocks(32, 32));
    assert_eq!((blockers.len(), preview), (0, OfflinePreview { movable: 300, ..OfflinePreview::default() }));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("as foreseen");
    let tables = memory.machine().holders.tables.lock().unwrap().clone();
    assert!(tables.iter().all(|pfn| pfn.section() == section(40)));
    assert_valid(memory);
}

#[test]
fn what_is_in_flight_is_asked_again_but_not_for_ever() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 32), 0, MOVABLE);
    plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
    let _holders: Vec<_> = (0..500).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 32))).collect();
    memory.machine().holders.in_flight_every.store(3, Ordering::Relaxed);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("sooner or later each can move");
    assert_eq!(moved(&memory), 500);
    assert_valid(&memory);
    memory.machine().holders.in_flight_every.store(1, Ordering::Relaxed);
    let before = Snapshot::of(&memory);
    let error = memory.offline(&[blocks(40, 40)], &mut Unhurried).expect_err("none ever moves");
    assert!(matches!(error, OfflineError::InFlight { pfn } if pfn.section() == section(40)), "{error}");
    assert_eq!((error.errno(), Snapshot::of(&memory)), (Errno::Busy, before));
    assert_valid(&memory);
}

/// Stops the offline of blocks 32 and 33 at each of its pauses, of a new world each time, and then lets it end; how many pauses
/// there are.
fn stop_everywhere(world: fn() -> Arc<Memory<Fake>>) -> u32 {
    for pause in 1.. {
        let memory = &*world();
        let held = || all_places(memory).iter().map(|(_, _, order)| order.pages()).sum::<u64>();
        let free =
            || memory.memory_report().free + memory.machine().holders.tables.lock().unwrap().len() as u64 * PAGE_SIZE;
        let before = (free(), held());
        let snapshot = Snapshot::of(memory);
        let stopped = memory.offline(&[blocks(32, 33)], &mut At(pause, || Err(Stop::Cancelled)));
        assert_valid(memory);
        if let Err(error) = stopped {
            assert_eq!((error.errno(), (free(), held())), (Errno::Canceled, before));
            for block in [32, 33] {
                assert_eq!(memory.section(section(block)).expect("present").state.zone(), Some(ZoneKind::Movable));
            }
            assert!(moved(memory) > 0 || Snapshot::of(memory) == snapshot, "at pause {pause}");
            memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("not stopped any more");
            assert_valid(memory);
        }
        assert!(all_places(memory).iter().all(|(_, pfn, _)| !blocks(32, 33).contains(pfn.section())));
        assert_eq!((held(), moved(memory)), (before.1, before.1), "what had moved did not move again");
        if stopped.is_ok() {
            return pause - 1;
        }
    }
    unreachable!("it ends")
}

#[test]
fn whenever_it_is_stopped_every_block_is_online_and_nothing_is_lost() {
    let stops = stop_everywhere(|| {
        let memory = booted_with_holders();
        plug_online(&memory, 0, blocks(32, 33), 0, MOVABLE);
        plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
        for n in 0..700 {
            hold_in(&memory, Order::PAGE, blocks(32 + n % 2, 33));
        }
        memory
    });
    assert!(stops > 700 / 64, "it can be stopped before, between and after batches");
}

#[test]
fn whenever_it_is_stopped_a_large_page_is_whole_or_all_of_its_parts_are_there() {
    let stops = stop_everywhere(|| {
        let memory = booted_with_holders();
        plug_online(&memory, 0, blocks(32, 33), 0, MOVABLE);
        plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
        for (block, order) in [(32, Order::PAGEBLOCK), (32, Order::PAGE), (33, Order::PAGEBLOCK)] {
            hold_in(&memory, order, blocks(block, block));
        }
        use_half_of_every_pageblock(&memory, &[blocks(0, 1), blocks(40, 40)]);
        memory
    });
    assert!(stops > 2 * 512 / 64, "it can be stopped between the parts");
}

#[test]
fn it_can_be_stopped_between_any_two_large_pages() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 32), 0, MOVABLE);
    plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
    let holders: Vec<_> = (0..20).map(|_| hold_in(&memory, Order::PAGEBLOCK, blocks(32, 32))).collect();
    let three_moved = || moved(&memory) == 3 * Order::PAGEBLOCK.pages();
    let pace = &mut when(three_moved, || Err(Stop::Deadline));
    let error = memory.offline(&[blocks(32, 32)], pace).expect_err("out of time");
    let OfflineError::Unfinished { stop: Stop::Deadline, pfn } = error else { panic!("{error}") };
    assert_eq!(moved(&memory), 3 * Order::PAGEBLOCK.pages());
    assert!(holders.iter().any(|holder| place(&memory, *holder) == pfn), "it has not moved");
    assert_valid(&memory);
}

#[test]
fn a_pin_that_comes_meanwhile_is_told_and_what_has_moved_stays_there() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 32), 0, MOVABLE);
    plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
    let holders: Vec<_> = (0..300).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 32))).collect();
    let last = *holders.iter().max_by_key(|holder| place(&memory, **holder)).expect("many");
    let pinned = place(&memory, last);
    let pin = || {
        assert!(memory.machine().page(pinned).pin());
        Ok(())
    };
    let error = memory.offline(&[blocks(32, 32)], &mut when(|| moved(&memory) > 0, pin)).expect_err("pinned by now");
    assert_eq!(error, OfflineError::Pinned { pfn: pinned, owner: Owner::Anonymous });
    assert!(moved(&memory) > 0);
    assert_valid(&memory);
    memory.machine().page(pinned).unpin();
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("all can move");
    assert_eq!(moved(&memory), 300);
    assert_valid(&memory);
}

#[test]
fn a_pin_that_comes_late_stops_all_before_it() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 35), 0, MOVABLE);
    plug_online(&memory, 1, blocks(40, 43), 0, MOVABLE);
    for id in 32..=35 {
        for _ in 0..2000 {
            hold_in(&memory, Order::PAGE, blocks(id, id));
        }
    }
    let (_, pinned, _) = all_places(&memory).into_iter().max_by_key(|(_, pfn, _)| *pfn).expect("many");
    assert_eq!(pinned.section(), section(35));
    let pin = || {
        assert!(memory.pin(pinned));
        Ok(())
    };
    let early = 2 * MOVED_TOGETHER as u64;
    let error =
        memory.offline(&[blocks(32, 35)], &mut when(|| moved(&memory) >= early, pin)).expect_err("pinned by now");
    assert_eq!(error, OfflineError::Pinned { pfn: pinned, owner: Owner::Anonymous });
    assert_eq!(moved(&memory), early, "nothing moves for what cannot succeed");
    assert_eq!(last_moved(&memory), moved(&memory));
    assert_valid(&memory);
    // One that is gone when it is looked for is none.
    memory.machine().page(pinned).unpin();
    let pin = || {
        assert!(memory.pin(pinned));
        memory.machine().page(pinned).unpin();
        Ok(())
    };
    memory.offline(&[blocks(32, 35)], &mut when(|| moved(&memory) >= 2 * early, pin)).expect("all can move");
    assert_valid(&memory);
}

#[test]
fn the_journal_tells_the_phases_of_what_failed_and_its_undoing() {
    let memory = booted();
    let request = AddRequest { range: blocks(34, 34), node: node(0), name: dimm(1) };
    let step = |point, run: &dyn Fn() -> bool, expected: &[&str]| {
        memory.failure_points().arm(point, Errno::Io, 1);
        assert!(!run(), "{point:?} is armed");
        let last = (0..).map_while(|number| memory.event_since(number)).last().expect("it was recorded");
        assert_eq!(last.phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), expected);
        assert!(last.phases.iter().all(|phase| phase.ns > 0), "{:?}", last.phases);
    };
    plug_online(&memory, 0, blocks(32, 33), 0, NORMAL);
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("empty");
    let online = |zone| memory.online(&[blocks(32, 33)], zone, &mut Unhurried).is_ok();
    let offline = || memory.offline(&[blocks(32, 33)], &mut Unhurried).is_ok();
    step(Point::AddGroup, &|| memory.add(&request, &mut Unhurried).is_ok(), &["check"]);
    step(Point::AddMap, &|| memory.add(&request, &mut Unhurried).is_ok(), &["check", "map", "undo"]);
    step(Point::OnlineBegin, &|| online(MOVABLE), &["begin"]);
    step(Point::OnlinePrepare, &|| online(MOVABLE), &["begin", "prepare", "undo"]);
    assert!(online(MOVABLE));
    hold_in(&memory, Order::PAGE, blocks(32, 32));
    step(Point::OnlineRelabel, &|| online(NORMAL), &["begin", "isolate", "check", "undo"]);
    step(Point::OfflineIsolate, &offline, &["begin", "isolate", "undo"]);
    step(Point::OfflinePrepare, &offline, &["begin", "isolate", "prepare", "undo"]);
    step(Point::OfflineEvacuate, &offline, &["begin", "isolate", "prepare", "look", "undo"]);
    step(Point::MigrateDestination, &offline, &["begin", "isolate", "prepare", "look", "move", "undo"]);
    assert!(offline());
    step(Point::RemoveBegin, &|| memory.remove(&[dimm(0)], &mut Unhurried).is_ok(), &["check"]);
}

#[test]
fn a_failure_at_any_step_leaves_every_block_online_and_everything_held() {
    for point in [
        Point::OfflineBegin,
        Point::OfflineIsolate,
        Point::OfflinePrepare,
        Point::OfflineEvacuate,
        Point::MigrateDestination,
        Point::AllocFrames,
    ] {
        let memory = booted();
        plug_online(&memory, 0, blocks(32, 33), 0, MOVABLE);
        plug_online(&memory, 1, blocks(40, 40), 0, MOVABLE);
        let holders: Vec<_> = (0..200).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 33))).collect();
        let free = memory.memory_report().free;
        memory.failure_points().arm(point, Errno::Io, 1);
        let error = memory.offline(&[blocks(32, 33)], &mut Unhurried).expect_err("injected");
        assert_eq!((error.errno(), memory.memory_report().free), (Errno::Io, free), "{point:?}");
        assert_valid(&memory);
        memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("armed once");
        assert!(holders.iter().all(|holder| place(&memory, *holder).section() == section(40)));
        assert_valid(&memory);
    }
}

#[test]
fn a_device_with_a_pinned_page_stays_as_a_whole() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 35), 0, MOVABLE);
    let holder = hold_in(&memory, Order::PAGE, blocks(35, 35));
    assert!(memory.machine().page(place(&memory, holder)).pin());
    let before = Snapshot::of(&memory);
    let error = memory.unplug(&[dimm(0)], &[blocks(32, 35)], &mut Unhurried).expect_err("pinned");
    assert!(matches!(error, UnplugError::Offline(OfflineError::Pinned { .. })), "{error}");
    assert_eq!(Snapshot::of(&memory), before);
}

/// What would be in the way of `range`, and the rest of what is foreseen.
fn preview_offline(memory: &Memory<Fake>, range: SectionRange) -> (Vec<Blocker>, OfflinePreview) {
    let mut blockers = Vec::new();
    let each = |id, foreseen| {
        if let PreviewItem::Blocker(blocker) = foreseen {
            assert_eq!(blocker.pfn.section(), id);
            blockers.push(blocker);
        }
    };
    let preview = memory.preview_offline(&[range], &mut Unhurried, each).expect("online");
    (blockers, preview)
}

#[test]
fn kernel_memory_that_moves_is_held_since_when_it_was_taken() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 32), 0, NORMAL);
    let second = 1_000_000_000;
    memory.machine().ticks.fetch_add(5 * second, Ordering::Relaxed);
    let kernel = Request { mobility: Mobility::Unmovable, ..movable(Order::PAGE) };
    let head = memory.allocate_within(&kernel, blocks(32, 32)).expect("free");
    let holder = memory.machine().settle_down(head, Order::PAGE);
    let before = memory.frame_report(head);
    assert_eq!(before.since_ns, Some(5 * second));
    memory.machine().ticks.fetch_add(5 * second, Ordering::Relaxed);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("it can move");
    let after = memory.frame_report(place(&memory, holder));
    assert_eq!((after.site, after.since_ns), (before.site, before.since_ns));
    release(&memory, holder);
}

#[test]
fn every_blocker_is_foreseen_with_its_neighbours() {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 33), 0, NORMAL);
    let take = |order, owner| {
        let order = Order::new(order).expect("kept");
        memory.allocate_within(&Request { order, ..Request::kernel(owner) }, blocks(33, 33)).expect("room")
    };
    let large = take(10, Owner::Kfill);
    let three = [take(0, Owner::Stack), take(0, Owner::Stack), take(0, Owner::Stack)];
    let table = take(0, Owner::PageTable);
    let holder = hold_in(&memory, Order::PAGE, blocks(33, 33));
    assert!(memory.machine().page(place(&memory, holder)).pin());
    let (blockers, preview) = preview_offline(&memory, blocks(32, 33));
    let mut expected = [
        (large, 1024, Hold::Kernel, Owner::Kfill),
        (three[0], 3, Hold::Kernel, Owner::Stack),
        (table, 1, Hold::PageTable, Owner::PageTable),
        (place(&memory, holder), 1, Hold::Pinned, Owner::Anonymous),
    ];
    expected.sort_unstable_by_key(|(pfn, ..)| *pfn);
    let told = blockers.iter().map(|blocker| (blocker.pfn, blocker.pages, blocker.hold, blocker.owner));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let site = |blocker: &Blocker| blocker.site.map(|site| site.to_string()).unwrap_or_default();
    for blocker in blockers.iter().filter(|blocker| blocker.hold != Hold::Pinned) {
        assert!(site(blocker).contains("moving.rs:") && blocker.since_ns.is_some(), "{blocker:?}");
    }
    assert_eq!(preview, OfflinePreview { movable: 0, short_by: 0, reserve_short_by: 0 });
    assert_eq!(
        memory.preview_offline(&[blocks(32, 34)], &mut Unhurried, |_, _| ()),
        Err(OfflineError::Absent(section(34)))
    );
}

/// What somebody took, as he was told, and whether it is in the way.
type Taken = (Pfn, Order, Option<(Hold, Owner)>);

/// Blockers of `range`, neighbours of the kernel's in one block together, and frames that would move, from what was taken alone.
fn expected(taken: &[Taken], range: SectionRange) -> (Vec<(Pfn, u64, Hold, Owner)>, u64) {
    let mut inside: Vec<_> = taken.iter().filter(|(pfn, ..)| range.contains(pfn.section())).collect();
    inside.sort_unstable_by_key(|(pfn, ..)| *pfn);
    let mut blockers: Vec<(Pfn, u64, Hold, Owner)> = Vec::new();
    let mut movable = 0;
    for (pfn, order, why) in inside {
        match (why, blockers.last_mut()) {
            (None, _) => movable += order.pages(),
            (Some(why), Some((first, pages, hold, owner)))
                if *why == (Hold::Kernel, *owner)
                    && *hold == Hold::Kernel
                    && first.add(*pages) == *pfn
                    && first.section() == pfn.section() =>
            {
                *pages += order.pages();
            }
            (Some((hold, owner)), _) => blockers.push((*pfn, order.pages(), *hold, *owner)),
        }
    }
    (blockers, movable)
}

/// Frames that are missing outside `range` for so many movable ones, if the kernel shall keep its own.
fn expected_lack(memory: &Memory<Fake>, taken: &[Taken], range: SectionRange, movable: u64) -> u64 {
    let (mut boot, mut added, mut anywhere) = (0, 0, 0);
    for (id, described) in memory.blocks().filter(|(id, _)| !range.contains(*id)) {
        let used = taken.iter().filter(|(pfn, ..)| pfn.section() == id).map(|(_, order, _)| order.pages());
        let free = u64::from(described.managed) - used.sum::<u64>();
        *match described.state.zone() {
            Some(ZoneKind::Movable) => &mut anywhere,
            _ if id < section(2) => &mut boot,
            _ => &mut added,
        } += free;
    }
    let kernel = boot - RESERVE_PAGES.min(boot) + added;
    let is_large =
        |(pfn, order, why): &&Taken| range.contains(pfn.section()) && *order == Order::PAGEBLOCK && why.is_none();
    // Where little is free, no pageblock is free as a whole.
    let tables = taken.iter().filter(is_large).count() as u64;
    (movable + tables).saturating_sub(kernel.saturating_sub(KERNEL_PAGES) + anywhere)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_offline_ends_as_was_foreseen_and_as_what_was_taken_tells(
        zone in prop_oneof![Just(MOVABLE), Just(NORMAL)],
        inside in prop::collection::vec((0u64..2, prop_oneof![4 => Just(0u8), 1 => Just(9u8)], 0u8..40), 0..300),
        anywhere in 0u64..100,
        first in 31u64..=33,
        last in 32u64..=34,
        squeeze in prop::option::of(0u64..400),
        has_other in any::<bool>(),
    ) {
        let memory = &*booted_with_holders();
        plug_online(memory, 0, blocks(31, 34), 0, zone);
        if has_other {
            plug_online(memory, 1, blocks(40, 40), 1, MOVABLE);
        }
        let mut taken: Vec<Taken> = Vec::new();
        for (block, order, fate) in inside {
            let (order, range) = (Order::new(order).expect("kept"), blocks(32 + block, 32 + block));
            let kernel = Request { order, ..Request::kernel(Owner::Kfill) };
            if fate == 0 && zone == NORMAL {
                let head = memory.allocate_within(&kernel, range).expect("there is room");
                taken.push((head, order, Some((Hold::Kernel, Owner::Kfill))));
                continue;
            }
            let head = place(memory, hold_in(memory, order, range));
            let is_pinned = fate == 1 && memory.machine().page(head).pin();
            taken.push((head, order, is_pinned.then_some((Hold::Pinned, Owner::Anonymous))));
        }
        // These leave more in a cache than was taken.
        for _ in 0..anywhere {
            let holder = hold(memory, &movable(Order::PAGE)).expect("there is room");
            taken.push((place(memory, holder), Order::PAGE, None));
        }
        let held = all_places(memory).iter().map(|(_, _, order)| order.pages()).sum::<u64>();
        let range = blocks(first.min(last), last);
        if let Some(squeeze) = squeeze {
            // All that is free elsewhere is taken, but for a little.
            let mut others = Vec::new();
            for block in (31..=34).filter(|block| !range.contains(section(*block))).chain([0, 1, 40]) {
                let request = Request { owner: Owner::Selftest, ..movable(Order::PAGE) };
                let take = || memory.allocate_within(&request, blocks(block, block)).ok();
                others.extend(std::iter::from_fn(take));
            }
            (0..squeeze).for_each(|_| memory.free(others.pop().expect("there was more"), Order::PAGE));
            taken.extend(others.into_iter().map(|pfn| (pfn, Order::PAGE, None)));
        }
        let (blockers, movable) = expected(&taken, range);
        let short_by = expected_lack(memory, &taken, range, movable);

        let before = Snapshot::of(memory);
        let (foreseen, preview) = preview_offline(memory, range);
        let foreseen: Vec<_> = foreseen.iter().map(|told| (told.pfn, told.pages, told.hold, told.owner)).collect();
        prop_assert_eq!((foreseen, preview), (blockers.clone(), OfflinePreview { movable, short_by, reserve_short_by: 0 }));
        prop_assert_eq!(&Snapshot::of(memory), &before);

        let result = memory.offline(&[range], &mut Unhurried);
        let in_the_way = blockers.first().map(|(pfn, _, hold, owner)| match hold {
            Hold::Pinned => OfflineError::Pinned { pfn: *pfn, owner: *owner },
            _ => OfflineError::Unmovable { pfn: *pfn, owner: *owner },
        });
        let reason = in_the_way.or((short_by > 0).then_some(OfflineError::NoDestination { short_by }));
        prop_assert_eq!(result, reason.map_or(Ok(()), Err));
        let places = all_places(memory);
        prop_assert_eq!(places.iter().map(|(_, _, order)| order.pages()).sum::<u64>(), held);
        if result.is_ok() {
            prop_assert_eq!(moved(memory), movable);
            prop_assert!(places.iter().all(|(_, pfn, _)| !range.contains(pfn.section())));
        } else {
            prop_assert_eq!(moved(memory), 0);
            prop_assert_eq!(&Snapshot::of(memory), &before);
        }
        assert_valid(memory);
    }
}
