//! The allocator, seen from those who take and give: caches, mobility, runs, and a node of its own.

use crate::machine::dimms::{plug, plug_online};
use crate::machine::taking::{request, take_all};
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{AllocError, Place, Request};
use mm::alloc::run::RUN_LIMIT;
use mm::errno::Errno;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::inject::Point;
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use std::collections::BTreeSet;

/// A node that had no memory at boot, so that nothing but the test uses it.
const PRIVATE: u32 = 2;

fn with_private_node(range: SectionRange, zone: ZoneKind, memmap_on_memory: bool) -> Memory<Fake> {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
    plug_online(&memory, 0, range, PRIVATE, OnlineAs::Zone(zone));
    memory
}

fn private(order: Order, mobility: Mobility) -> Request {
    Request { place: Place::On(node(PRIVATE)), ..request(order, mobility) }
}

fn free_on_private(memory: &Memory<Fake>) -> u64 {
    let mut free = 0;
    memory.for_each_zone(|zone| {
        if zone.node == node(PRIVATE) {
            free += zone.free / PAGE_SIZE;
        }
    });
    free
}

#[test]
fn a_private_node_serves_every_order_to_the_last_frame() {
    for zone in ZoneKind::ALL {
        for order in Order::all() {
            let memory = with_private_node(blocks(32, 33), zone, true);
            let before = Snapshot::of(&memory);
            let mobility = if zone == ZoneKind::Normal { Mobility::Unmovable } else { Mobility::Movable };
            let free = free_on_private(&memory);
            let held = take_all(&memory, &private(order, mobility));
            assert!(held.iter().all(|head| head.align_down(order) == *head && head.section() >= section(32)));
            let left = free - held.len() as u64 * order.pages();
            assert_eq!(free_on_private(&memory), left);
            assert!(left < 2 * order.pages(), "{left} frames are left at order {order:?}");
            assert_valid(&memory);
            held.into_iter().rev().for_each(|head| memory.free(head, order));
            assert_eq!(Snapshot::of(&memory), before);
            memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("all free");
            assert_valid(&memory);
        }
    }
}

#[test]
fn a_single_frame_is_had_as_long_as_one_is_free_in_whichever_cache() {
    let memory = with_private_node(blocks(32, 32), ZoneKind::Normal, true);
    let free = free_on_private(&memory);
    let unmovable = private(Order::PAGE, Mobility::Unmovable);
    let held = take_all(&memory, &unmovable);
    assert_eq!(held.len() as u64, free);
    // Two hundred frames go to the caches of other CPUs.
    std::thread::scope(|scope| {
        for part in held[..200].chunks(50) {
            let memory = &memory;
            scope.spawn(move || part.iter().for_each(|frame| memory.free(*frame, Order::PAGE)));
        }
    });
    let again = take_all(&memory, &private(Order::PAGE, Mobility::Movable));
    assert_eq!(again.len(), 200, "whoever frees, and whatever for");
    assert_eq!(again.iter().collect::<BTreeSet<_>>(), held[..200].iter().collect());
    assert_valid(&memory);
}

#[test]
fn frames_in_caches_are_counted_as_free_and_leave_with_their_block() {
    let memory = with_private_node(blocks(32, 33), ZoneKind::Movable, true);
    let movable = private(Order::PAGE, Mobility::Movable);
    let before = free_on_private(&memory);
    let frame = memory.allocate(&movable).expect("free");
    assert_eq!(free_on_private(&memory), before - 1);
    memory.free(frame, Order::PAGE);
    let mut cached = 0;
    memory.for_each_zone(|zone| cached += zone.cached);
    assert!(cached >= PAGE_SIZE);
    assert_eq!(free_on_private(&memory), before);
    assert_valid(&memory);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("nothing is held");
    assert_valid(&memory);
    assert_eq!(memory.allocate(&movable).expect("free").section(), section(33));
}

#[test]
fn a_busy_block_that_stays_gives_its_memory_again() {
    let memory = with_private_node(blocks(32, 32), ZoneKind::Movable, true);
    let movable = private(Order::PAGE, Mobility::Movable);
    let held: Vec<Pfn> = (0..1000).map(|_| memory.allocate(&movable).expect("free")).collect();
    held.iter().step_by(2).for_each(|frame| memory.free(*frame, Order::PAGE));
    let before = Snapshot::of(&memory);
    let error = memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("half of it is held");
    assert_eq!(error.errno(), Errno::Busy);
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
    assert!(memory.allocate(&private(Order::MAX, Mobility::Movable)).is_ok());
}

#[test]
fn mobilities_are_mixed_only_when_no_section_is_left_to_open() {
    let memory = with_private_node(blocks(32, 33), ZoneKind::Normal, true);
    let [movable, unmovable] = Mobility::ALL.map(|mobility| private(Order::PAGE, mobility.other()));
    let pageblock = |frame: &Pfn| frame.align_down(Order::PAGEBLOCK);
    let frame = memory.allocate(&movable).expect("free");
    let others = take_all(&memory, &unmovable);
    let first_mixed = others.iter().position(|other| pageblock(other) == pageblock(&frame)).expect("all is taken");
    assert_eq!(others.len() - first_mixed, 511, "its pageblock is the last to be used");
    assert_eq!(free_on_private(&memory), 0);
}

#[test]
fn a_request_that_fails_leaves_every_pageblock_to_its_mobility() {
    let memory = with_private_node(blocks(32, 32), ZoneKind::Normal, true);
    let held = take_all(&memory, &private(Order::PAGE, Mobility::Movable));
    held.iter().filter(|frame| frame.number() % 2 == 0).for_each(|frame| memory.free(*frame, Order::PAGE));
    memory.drain_caches();
    let before = memory.free_groups(section(32)).expect("it is open");
    // The pageblock that can never be free as a whole is the kernel's.
    assert_eq!((before.movable[0], before.unmovable[0]), (held.len() as u64 / 2 - 128, 128));
    for order in [1, 3, 8].map(|order| Order::new(order).expect("kept")) {
        let unmovable = private(order, Mobility::Unmovable);
        assert_eq!(memory.allocate(&unmovable), Err(AllocError::OutOfMemory));
        assert_eq!(memory.allocate_within(&unmovable, blocks(32, 32)), Err(AllocError::OutOfMemory));
    }
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("half of it is held");
    assert!(memory.allocate(&private(Order::MAX, Mobility::Unmovable)).is_err());
    assert_eq!(memory.free_groups(section(32)), Some(before));
    assert_valid(&memory);
}

#[test]
fn a_damaged_cache_is_reported_and_not_followed() {
    let memory = with_private_node(blocks(32, 33), ZoneKind::Movable, true);
    let frame = memory.allocate(&private(Order::PAGE, Mobility::Movable)).expect("free");
    memory.free(frame, Order::PAGE);
    // Into a section whose struct pages are not mapped.
    memory.machine().page(frame).set_private(section(33).pages().start().number());
    let mut problems = 0;
    memory.validate(|_| problems += 1);
    assert!(problems > 0);
}

#[test]
fn runs_reach_across_sections_whose_struct_pages_lie_elsewhere() {
    let memory = with_private_node(blocks(32, 47), ZoneKind::Movable, false);
    let before = Snapshot::of(&memory);
    let request = private(Order::PAGE, Mobility::Movable);
    let gibibyte = memory.allocate_run(RUN_LIMIT, &request).expect("free");
    assert_eq!(gibibyte.len() * PAGE_SIZE, 1 << 30);
    assert!(gibibyte.start().address().is_multiple_of(1 << 30));
    assert_valid(&memory);
    // Another one does not fit: what is left is 8 sections, one of which loses a frame.
    let frame = memory.allocate(&request).expect("free");
    assert_eq!(memory.allocate_run(RUN_LIMIT, &request), Err(AllocError::OutOfMemory));
    memory.free(frame, Order::PAGE);
    let second = memory.allocate_run(RUN_LIMIT, &request).expect("the frame in the cache is part of it");
    memory.free_run(gibibyte);
    memory.free_run(second);
    memory.housekeep();
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
}

#[test]
fn a_section_gives_a_run_of_all_but_its_head() {
    let memory = with_private_node(blocks(33, 34), ZoneKind::Movable, true);
    let request = private(Order::PAGE, Mobility::Movable);
    let run = memory.allocate_run(63, &request).expect("free");
    assert_eq!(run.end(), section(33).pages().end());
    assert_eq!(memory.allocate_run(64, &request), Err(AllocError::OutOfMemory));
    memory.failure_points().arm(Point::AllocFrames, Errno::NoMemory, 1);
    assert_eq!(memory.allocate_run(1, &request).expect_err("armed").errno(), Errno::NoMemory);
    assert_eq!(memory.allocate_run(63, &request).expect("free").start().section(), section(34));
    assert_valid(&memory);
}

#[test]
fn unmovable_runs_leave_the_reserve_alone() {
    let memory = booted();
    let request = Request { place: Place::Near(node(0)), ..private(Order::PAGE, Mobility::Unmovable) };
    let runs: Vec<_> = std::iter::from_fn(|| memory.allocate_run(2, &request).ok()).collect();
    assert!(!runs.is_empty());
    assert!(memory.memory_report().free / PAGE_SIZE >= mm::limits::RESERVE_PAGES);
    runs.into_iter().for_each(|run| memory.free_run(run));
    assert_valid(&memory);
}

#[test]
fn a_preferred_node_falls_back_by_distance_and_leaves_the_kernel_enough_as_long_as_it_can() {
    let memory = booted();
    let range = blocks(32, 33);
    plug(&memory, 0, range, 1);
    memory.online(&[range], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
    let nodes_of = |place| {
        let held = take_all(&memory, &Request { place, ..private(Order::PAGE, Mobility::Movable) });
        let node_of = |head: &Pfn| memory.section(head.section()).expect("present").node.number();
        let mut nodes: Vec<u8> = held.iter().map(node_of).collect();
        nodes.dedup();
        held.into_iter().for_each(|head| memory.free(head, Order::PAGE));
        nodes
    };
    // From node 2, which is empty, node 0 is nearer than node 1; what is there is Normal.
    assert_eq!(nodes_of(Place::Prefer(node(2))), [0, 1, 0]);
    assert_eq!(nodes_of(Place::Near(node(2))), [1, 0]);
    assert_eq!(nodes_of(Place::Prefer(node(1))), [1, 0]);
    // One that is no node at all is equally far from all.
    assert_eq!(nodes_of(Place::Prefer(node(100))), [0, 1, 0]);
    assert_valid(&memory);
}
