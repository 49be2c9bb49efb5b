//! Sections that are online and that nobody has used: when they are opened, and when they are closed again.

use crate::machine::dimms::{plug, plug_online};
use crate::machine::taking::{request, take_all};
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::MEMMAP_PAGES;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::record::policy::OnlineAs;
use mm::section::kind::Origin;
use mm::section::kind::ZoneKind;
use std::sync::atomic::Ordering;

const BOOT_MEMMAP_PAGES: usize = 2 * MEMMAP_PAGES as usize;

fn plugged(range: SectionRange, zone: ZoneKind) -> Memory<Fake> {
    let memory = booted();
    plug_online(&memory, 0, range, 1, OnlineAs::Zone(zone));
    memory
}

/// A request near the node of the added blocks.
fn near(order: Order, mobility: Mobility) -> Request {
    Request { place: Place::Near(node(1)), ..request(order, mobility) }
}

fn opened(memory: &Memory<Fake>) -> Vec<u32> {
    let added = memory.blocks().filter(|(_, section)| section.origin == Origin::Added && section.is_open());
    added.map(|(id, _)| id.number()).collect()
}

#[test]
fn online_neither_maps_nor_writes_a_struct_page() {
    let memory = plugged(blocks(32, 47), ZoneKind::Movable);
    assert_eq!(memory.machine().mapped_memmap_pages(), BOOT_MEMMAP_PAGES);
    let report = memory.memory_report();
    assert!(report.untouched > 15 << 27);
    assert_eq!(report.memmap_used, 2 * MEMMAP_PAGES * PAGE_SIZE);
    assert_eq!(memory.frame_report(section(40).pages().start().add(5000)).state, FrameState::Untouched);
    assert_valid(&memory);
    memory.offline(&[blocks(32, 47)], &mut Unhurried).expect("nobody uses it");
    assert_eq!(memory.memory_report().untouched, 0);
    assert_valid(&memory);
}

#[test]
fn the_lowest_section_is_opened_first_and_only_when_it_is_needed() {
    let memory = plugged(blocks(32, 35), ZoneKind::Movable);
    let movable = near(Order::MAX, Mobility::Movable);
    let first = memory.allocate(&movable).expect("free");
    assert_eq!((first.section(), opened(&memory)), (section(32), vec![32]));
    let mut held = vec![first];
    while opened(&memory).len() == 1 {
        held.push(memory.allocate(&movable).expect("free"));
    }
    assert_eq!(opened(&memory), [32, 33]);
    let in_first = held.iter().filter(|head| head.section() == section(32)).count() as u64;
    assert_eq!(in_first, (32768 - MEMMAP_PAGES - 2) / Order::MAX.pages(), "the first one is used up before");
    assert_valid(&memory);
}

#[test]
fn a_section_that_comes_online_below_is_opened_before_those_above() {
    let memory = plugged(blocks(32, 35), ZoneKind::Movable);
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("untouched");
    let movable = near(Order::PAGE, Mobility::Movable);
    memory.allocate(&movable).expect("free");
    assert_eq!(opened(&memory), [34]);
    memory.online(&[blocks(33, 33)], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
    while opened(&memory).len() == 1 {
        memory.allocate(&movable).expect("free");
    }
    assert_eq!(opened(&memory), [33, 34]);
    assert_valid(&memory);
}

#[test]
fn a_frame_wanted_inside_a_block_opens_that_block() {
    let memory = plugged(blocks(32, 35), ZoneKind::Movable);
    let frame = memory.allocate_within(&near(Order::PAGE, Mobility::Movable), blocks(34, 34)).expect("free");
    assert_eq!((frame.section(), opened(&memory)), (section(34), vec![34]));
    memory.free(frame, Order::PAGE);
    assert_valid(&memory);
}

#[test]
fn every_frame_of_an_untouched_zone_can_be_had_and_comes_back_as_whole_pageblocks() {
    let memory = plugged(blocks(32, 47), ZoneKind::Movable);
    let before = Snapshot::of(&memory);
    let node_1 = Request { place: Place::On(node(1)), ..near(Order::PAGE, Mobility::Movable) };
    let whole = |memory: &Memory<Fake>| {
        let open = (32..=47).filter_map(|n| memory.free_groups(section(n)));
        open.map(|groups| groups.whole[9] + 2 * groups.whole[10]).sum::<u64>()
    };
    let free = memory.memory_report().untouched / PAGE_SIZE;
    let mut held = take_all(&memory, &node_1);
    assert_eq!(held.len() as u64, free);
    assert_eq!((opened(&memory).len(), whole(&memory)), (16, 0));
    let mut state = 1u64;
    for last in (1..held.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        held.swap(last, (state >> 33) as usize % (last + 1));
    }
    held.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
    memory.drain_caches();
    // All but the first pageblock of each section, which its struct pages are in.
    assert_eq!(whole(&memory), 16 * 63);
    assert_valid(&memory);
    memory.housekeep();
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn empty_sections_are_closed_when_there_are_many_and_a_few_stay_open() {
    let memory = plugged(blocks(32, 47), ZoneKind::Movable);
    let movable = Request { place: Place::On(node(1)), ..near(Order::MAX, Mobility::Movable) };
    let held = take_all(&memory, &movable);
    assert_eq!(opened(&memory).len(), 16);
    let calls = memory.machine().keeper_calls.load(Ordering::Relaxed);
    held.into_iter().for_each(|head| memory.free(head, Order::MAX));
    assert!(memory.machine().keeper_calls.load(Ordering::Relaxed) > calls, "somebody is asked to close them");
    memory.drain_caches();
    memory.housekeep();
    assert_eq!(opened(&memory).len(), 2);
    assert_eq!(memory.machine().mapped_memmap_pages(), BOOT_MEMMAP_PAGES + 2 * MEMMAP_PAGES as usize);
    assert_valid(&memory);
    // Memory that comes and goes does not open and close one each time.
    for _ in 0..4 {
        let head = memory.allocate(&movable).expect("free");
        memory.free(head, Order::MAX);
        memory.housekeep();
        assert_eq!(opened(&memory).len(), 2);
    }
    let held = take_all(&memory, &movable);
    assert_eq!(opened(&memory).len(), 16, "what was closed is opened again");
    held.into_iter().for_each(|head| memory.free(head, Order::MAX));
    memory.offline(&[blocks(32, 47)], &mut Unhurried).expect("all free");
    assert_valid(&memory);
}

#[test]
fn struct_pages_from_the_system_stay_mapped_when_their_section_closes() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let range = blocks(32, 40);
    plug(&memory, 0, range, 1);
    memory.online(&[range], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
    let mapped = memory.machine().mapped_memmap_pages();
    let movable = Request { place: Place::On(node(1)), ..near(Order::MAX, Mobility::Movable) };
    let held = take_all(&memory, &movable);
    assert_eq!(held.len() as u64, 9 * 32768 / Order::MAX.pages(), "the sections are whole");
    held.into_iter().for_each(|head| memory.free(head, Order::MAX));
    memory.drain_caches();
    memory.housekeep();
    assert_eq!((opened(&memory).len(), memory.machine().mapped_memmap_pages()), (2, mapped));
    assert_valid(&memory);
}

#[test]
fn requests_made_under_the_lock_of_the_page_tables_open_nothing_but_ask_for_it() {
    let memory = plugged(blocks(32, 33), ZoneKind::Normal);
    let urgent = Request { urgency: Urgency::Hotplug, ..near(Order::PAGE, Mobility::Unmovable) };
    let held = take_all(&memory, &urgent);
    assert_eq!(opened(&memory), []);
    assert!(held.iter().all(|frame| frame.section() < section(2)));
    assert!(memory.machine().keeper_calls.load(Ordering::Relaxed) > 0);
    memory.housekeep();
    assert_eq!(opened(&memory), [32]);
    assert_eq!(memory.allocate(&urgent).expect("the keeper opened one").section(), section(32));
    assert_valid(&memory);
}

#[test]
fn two_takers_at_once_open_what_they_need_and_lose_nothing() {
    let memory = plugged(blocks(32, 47), ZoneKind::Movable);
    let before = Snapshot::of(&memory);
    let node_1 = Request { place: Place::On(node(1)), ..near(Order::PAGEBLOCK, Mobility::Movable) };
    let total: usize = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| take_all(&memory, &node_1))).collect();
        let held: Vec<Pfn> = takers.into_iter().flat_map(|taker| taker.join().expect("ends")).collect();
        let distinct: std::collections::BTreeSet<Pfn> = held.iter().copied().collect();
        assert_eq!(distinct.len(), held.len(), "nothing is handed out twice");
        held.iter().for_each(|head| memory.free(*head, Order::PAGEBLOCK));
        held.len()
    });
    assert_eq!(total, 16 * 63);
    memory.housekeep();
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn the_kernel_s_reserve_is_not_hidden_in_a_cache() {
    let memory = booted();
    let ordinary = request(Order::PAGE, Mobility::Unmovable);
    take_all(&memory, &ordinary);
    let report = memory.memory_report();
    assert_eq!((report.available, report.free), (0, mm::limits::RESERVE_PAGES * PAGE_SIZE));
    let urgent = Request { urgency: Urgency::Hotplug, ..ordinary };
    assert_eq!(take_all(&memory, &urgent).len() as u64, mm::limits::RESERVE_PAGES);
}

#[test]
fn frames_that_hotplug_gives_back_fill_the_reserve_up() {
    let memory = booted();
    let ordinary = request(Order::PAGE, Mobility::Unmovable);
    take_all(&memory, &ordinary);
    let urgent = Request { urgency: Urgency::Hotplug, ..ordinary };
    for _ in 0..10 {
        let held: Vec<Pfn> = (0..64).map_while(|_| memory.allocate(&urgent).ok()).collect();
        held.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
        assert_eq!(take_all(&memory, &ordinary), []);
    }
    assert_eq!(take_all(&memory, &urgent).len() as u64, mm::limits::RESERVE_PAGES);
}

#[test]
fn the_kernel_is_helped_out_whenever_open_memory_runs_short() {
    let memory = plugged(blocks(32, 40), ZoneKind::Normal);
    let urgent = Request { urgency: Urgency::Hotplug, ..near(Order::PAGE, Mobility::Unmovable) };
    let mut taken = take_all(&memory, &urgent).len();
    for block in 32..=40 {
        let calls = memory.machine().keeper_calls.load(Ordering::Relaxed);
        memory.housekeep();
        assert!(memory.section(section(block)).expect("present").is_open(), "block {block}");
        taken += take_all(&memory, &urgent).len();
        assert!(memory.machine().keeper_calls.load(Ordering::Relaxed) > calls, "it asks for more");
    }
    assert_eq!(taken as u64 * PAGE_SIZE, memory.memory_report().total);
    assert_valid(&memory);
}

#[test]
fn a_boot_block_that_became_movable_is_used_up_by_movable_memory_first() {
    let memory = booted();
    memory.offline(&[blocks(1, 1)], &mut Unhurried).expect("nobody uses it");
    memory.online(&[blocks(1, 1)], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
    let managed = u64::from(memory.section(section(1)).expect("present").managed);
    let movable = request(Order::PAGE, Mobility::Movable);
    let held: Vec<Pfn> = (0..=managed).map(|_| memory.allocate(&movable).expect("free")).collect();
    let elsewhere = held.iter().position(|frame| frame.section() != section(1));
    assert_eq!(elsewhere, Some(managed as usize));
    assert_valid(&memory);
}
