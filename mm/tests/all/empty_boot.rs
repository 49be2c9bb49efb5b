//! Boot sections in which nothing was in use: untouched like added ones, and boot memory all the same.

use crate::machine::dimms::plug_online;
use crate::machine::taking::{request, take_all, take_all_in};
use crate::machine::{Fake, Snapshot, assert_valid, blocks, boot_empty, booted, node, section};
use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{OfflineError, OnlineError, PieceError, RelabelError};
use mm::inject::Point;
use mm::limits::RESERVE_PAGES;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::record::policy::OnlineAs;
use mm::section::group::{GroupKind, GroupName};
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use mm::{Errno, Memory};
use std::sync::atomic::Ordering;

const UNMOVABLE: Mobility = Mobility::Unmovable;
const NORMAL: OnlineAs = OnlineAs::Zone(ZoneKind::Normal);
const MOVABLE: OnlineAs = OnlineAs::Zone(ZoneKind::Movable);

/// Struct pages that are mapped of the sections in which something is in use.
const OPEN_MEMMAP_PAGES: usize = 2 * MEMMAP_PAGES as usize;

/// With empty boot sections behind those two in which something is.
fn booted_empty(last: u64) -> Memory<Fake> {
    let memory = booted();
    boot_empty(&memory, blocks(2, last), 0, ZoneKind::Normal);
    memory
}

fn urgent() -> Request {
    Request { urgency: Urgency::Hotplug, ..request(Order::PAGE, UNMOVABLE) }
}

fn opened(memory: &Memory<Fake>) -> Vec<u32> {
    memory
        .blocks()
        .filter(|(id, section)| *id >= crate::machine::section(2) && section.is_open())
        .map(|(id, _)| id.number())
        .collect()
}

#[test]
fn an_empty_boot_section_is_online_and_nothing_of_it_is_written() {
    let memory = booted_empty(17);
    assert_eq!(memory.machine().mapped_memmap_pages(), OPEN_MEMMAP_PAGES);
    let tables = 8;
    // One table is made with the range, in this machine.
    assert_eq!(memory.machine().tried.lock().unwrap().len(), 1);
    let report = memory.memory_report();
    assert_eq!(report.untouched, (16 * (32768 - MEMMAP_PAGES) - tables) * PAGE_SIZE);
    assert_eq!((report.memmap_used, report.memmap_reserved), (2 * 256 * PAGE_SIZE, 18 * 256 * PAGE_SIZE));
    let frame = |block, index| {
        let report = memory.frame_report(section(block).pages().start().add(index));
        (report.state, report.owner, report.zone)
    };
    let normal = Some(ZoneKind::Normal);
    assert_eq!(frame(2, 7), (FrameState::Memmap, Owner::PageTable, normal));
    assert_eq!(frame(2, 8), (FrameState::Memmap, Owner::Memmap, normal));
    assert_eq!(frame(3, 0), (FrameState::Memmap, Owner::Memmap, normal));
    assert_eq!(frame(3, 256), (FrameState::Untouched, Owner::None, normal));
    assert_valid(&memory);
}

#[test]
fn boot_sections_of_one_node_that_touch_are_one_group() {
    let memory = booted();
    boot_empty(&memory, blocks(2, 3), 0, ZoneKind::Normal);
    boot_empty(&memory, blocks(4, 5), 0, ZoneKind::Movable);
    boot_empty(&memory, blocks(6, 7), 1, ZoneKind::Normal);
    let window = |number| memory.find_group(GroupName { kind: GroupKind::Boot, number }).map(|(_, group)| group.window);
    assert_eq!([0, 1, 2].map(window), [Some(blocks(0, 5)), Some(blocks(6, 7)), None]);
    assert_eq!(memory.section(section(5)).map(|section| section.state), Some(BlockState::Online(ZoneKind::Movable)));
    assert_valid(&memory);
}

#[test]
fn the_kernel_opens_the_lowest_when_nothing_open_is_left_and_before_added_memory() {
    let memory = booted_empty(4);
    plug_online(&memory, 0, blocks(32, 33), 1, NORMAL);
    let near_added = Request { place: Place::Near(node(1)), ..request(Order::PAGE, UNMOVABLE) };
    let mut seen = Vec::new();
    for frame in take_all(&memory, &near_added) {
        let block = frame.section().number();
        if !seen.contains(&block) {
            seen.push(block);
        }
    }
    // Which of the open ones comes first is left open.
    assert_eq!(seen[2..], [2, 3, 4, 32, 33]);
    assert_valid(&memory);
}

#[test]
fn all_of_it_but_the_reserve_is_for_everybody() {
    let memory = booted_empty(4);
    let total = memory.memory_report().total / PAGE_SIZE;
    assert_eq!(memory.memory_report().available / PAGE_SIZE, total - RESERVE_PAGES);
    let held = take_all(&memory, &request(Order::PAGE, UNMOVABLE));
    assert_eq!(held.len() as u64, total - RESERVE_PAGES);
    assert_eq!(take_all(&memory, &urgent()).len() as u64, RESERVE_PAGES);
    assert_valid(&memory);
}

#[test]
fn bulk_users_count_on_what_is_untouched() {
    let memory = booted_empty(4);
    let total = memory.memory_report().total / PAGE_SIZE;
    let bulk = Request { urgency: Urgency::Bulk, ..request(Order::PAGE, UNMOVABLE) };
    let held = take_all(&memory, &bulk).len() as u64;
    assert!(memory.is_kernel_short());
    assert_eq!(held, total - RESERVE_PAGES - mm::limits::KERNEL_PAGES);
    assert_valid(&memory);
}

#[test]
fn a_run_of_pageblocks_is_found_in_what_is_untouched() {
    let memory = booted_empty(4);
    let run = memory.allocate_run(63, &request(Order::PAGEBLOCK, UNMOVABLE)).expect("the head takes one of 64");
    assert_eq!((run.start().section(), opened(&memory)), (section(2), vec![2]));
    assert_valid(&memory);
}

#[test]
fn hotplug_finds_the_reserve_open_while_boot_memory_is_untouched() {
    let memory = booted_empty(4);
    while opened(&memory).is_empty() {
        memory.allocate(&request(Order::PAGE, UNMOVABLE)).expect("free");
    }
    let calls = memory.machine().keeper_calls.load(Ordering::Relaxed);
    assert!(take_all(&memory, &urgent()).len() as u64 >= RESERVE_PAGES);
    assert_eq!(opened(&memory), [2], "it opens nothing itself");
    assert!(memory.machine().keeper_calls.load(Ordering::Relaxed) > calls, "but asks for it");
    memory.housekeep();
    assert_eq!(opened(&memory), [2, 3]);
    assert_valid(&memory);
}

#[test]
fn the_heap_has_sections_opened_until_it_has_what_it_wants_or_none_would_do() {
    let memory = booted_empty(4);
    plug_online(&memory, 0, blocks(32, 33), 1, NORMAL);
    take_all(&memory, &urgent());
    assert_eq!(opened(&memory), []);
    let free = memory.memory_report().free / PAGE_SIZE;
    assert!(!memory.open_ahead(free + 1), "all of it would not do");
    for seen in [&[2][..], &[2, 3], &[2, 3, 4], &[2, 3, 4, 32], &[2, 3, 4, 32, 33]] {
        assert!(memory.open_ahead(1));
        assert_eq!(opened(&memory), seen);
        assert!(memory.allocate(&urgent()).is_ok());
    }
    assert!(!memory.open_ahead(1), "all of it is open");
    assert_valid(&memory);
}

#[test]
fn an_untouched_boot_block_goes_offline_and_comes_back_untouched() {
    let memory = booted_empty(5);
    let before = Snapshot::of(&memory);
    memory.offline(&[blocks(3, 4)], &mut Unhurried).expect("nobody uses it");
    assert_eq!(memory.memory_report().offline, 2 << 27);
    assert_valid(&memory);
    memory.online(&[blocks(3, 4)], NORMAL, &mut Unhurried).expect("offline");
    assert_eq!((Snapshot::of(&memory), opened(&memory)), (before, vec![]));
    assert_valid(&memory);
}

#[test]
fn struct_pages_of_an_opened_boot_block_go_when_it_goes_offline() {
    let memory = booted_empty(5);
    let held = take_all_in(&memory, &request(Order::MAX, UNMOVABLE), blocks(2, 5));
    assert_eq!(opened(&memory), [2, 3, 4, 5]);
    held.into_iter().for_each(|head| memory.free(head, Order::MAX));
    memory.offline(&[blocks(2, 5)], &mut Unhurried).expect("all free");
    assert_eq!(memory.machine().mapped_memmap_pages(), OPEN_MEMMAP_PAGES);
    assert_valid(&memory);
    memory.online(&[blocks(2, 5)], MOVABLE, &mut Unhurried).expect("offline");
    let movable = request(Order::PAGE, Mobility::Movable);
    assert_eq!(memory.allocate(&movable).expect("free").section(), section(2));
    assert_valid(&memory);
}

#[test]
fn the_last_boot_memory_that_could_hold_the_reserve_stays() {
    let memory = booted_empty(4);
    plug_online(&memory, 0, blocks(32, 33), 1, NORMAL);
    let held = take_all_in(&memory, &urgent(), blocks(0, 1));
    memory.offline(&[blocks(3, 4)], &mut Unhurried).expect("there is another block");
    let refused = Err(OfflineError::ReserveShort { short_by: RESERVE_PAGES });
    assert_eq!(memory.offline(&[blocks(2, 2)], &mut Unhurried), refused);
    let preview = memory.preview_offline(&[blocks(2, 2)], &mut Unhurried, |_, _| ()).expect("online");
    assert_eq!(preview.reserve_short_by, RESERVE_PAGES);
    let refused = RelabelError::ReserveShort { short_by: RESERVE_PAGES };
    let result = memory.online(&[blocks(2, 2)], MOVABLE, &mut Unhurried);
    assert!(matches!(result, Err(OnlineError::Relabel(error)) if error == refused), "{result:?}");
    held.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
    memory.offline(&[blocks(2, 2)], &mut Unhurried).expect("the reserve has its place");
    assert_valid(&memory);
}

#[test]
fn the_reserve_is_open_when_open_boot_memory_has_gone() {
    let leave: [fn(&Memory<Fake>); 2] = [
        |memory| memory.offline(&[blocks(2, 3)], &mut Unhurried).expect("there is another block"),
        |memory| assert_eq!(memory.online(&[blocks(2, 3)], MOVABLE, &mut Unhurried), Ok(None)),
    ];
    for leave in leave {
        let memory = booted_empty(5);
        take_all_in(&memory, &urgent(), blocks(0, 1));
        let held = memory.allocate(&request(Order::PAGE, UNMOVABLE)).expect("free");
        assert_eq!((held.section(), opened(&memory)), (section(2), vec![2]));
        memory.free(held, Order::PAGE);
        leave(&memory);
        let in_normal = |id: u32| memory.zone_of(section(id.into()).pages().start()) == Some(ZoneKind::Normal);
        assert_eq!(opened(&memory).into_iter().filter(|id| in_normal(*id)).collect::<Vec<_>>(), [4]);
        assert!(take_all(&memory, &urgent()).len() as u64 >= RESERVE_PAGES);
        assert_valid(&memory);
    }
}

#[test]
fn nothing_is_opened_for_the_reserve_while_it_has_its_place() {
    let memory = booted_empty(5);
    memory.offline(&[blocks(2, 3)], &mut Unhurried).expect("nobody uses it");
    assert_eq!(opened(&memory), []);
    assert_valid(&memory);
}

#[test]
fn an_untouched_boot_block_goes_to_the_other_zone_and_back() {
    let memory = booted_empty(5);
    let before = Snapshot::of(&memory);
    memory.online(&[blocks(4, 5)], MOVABLE, &mut Unhurried).expect("it is online in Normal");
    assert_eq!(opened(&memory), []);
    let movable = request(Order::PAGE, Mobility::Movable);
    let frame = memory.allocate(&movable).expect("free");
    assert_eq!(frame.section(), section(4));
    assert_valid(&memory);
    memory.free(frame, Order::PAGE);
    memory.online(&[blocks(4, 5)], NORMAL, &mut Unhurried).expect("it is online in Movable");
    memory.drain_caches();
    assert_eq!(opened(&memory), [4]);
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn empty_boot_sections_are_closed_when_there_are_many_and_those_that_held_something_never() {
    let memory = booted_empty(11);
    let held = take_all(&memory, &request(Order::MAX, UNMOVABLE));
    assert_eq!(opened(&memory).len(), 10);
    held.into_iter().for_each(|head| memory.free(head, Order::MAX));
    memory.drain_caches();
    memory.housekeep();
    assert_eq!(opened(&memory).len(), 2);
    assert_eq!(memory.machine().mapped_memmap_pages(), OPEN_MEMMAP_PAGES + 2 * MEMMAP_PAGES as usize);
    assert!([0, 1].iter().all(|block| memory.section(section(*block)).expect("present").is_open()));
    assert_valid(&memory);
}

#[test]
fn a_boot_block_that_cannot_keep_its_struct_pages_is_withheld() {
    let memory = booted_empty(4);
    memory.machine().bad.lock().unwrap().insert(section(3).pages().start().add(9));
    let held: Vec<Pfn> = take_all(&memory, &request(Order::PAGE, UNMOVABLE));
    assert!(held.iter().all(|frame| frame.section() != section(3)));
    assert!(held.iter().any(|frame| frame.section() == section(4)));
    assert!(memory.section(section(3)).expect("present").is_withheld());
    assert_valid(&memory);
}

#[test]
fn a_withheld_boot_block_is_tried_again_when_it_has_been_offline() {
    let memory = booted_empty(4);
    let total = memory.memory_report().total;
    let is_withheld = || memory.section(section(3)).expect("present").is_withheld();
    let open_all = || {
        let held = take_all_in(&memory, &request(Order::MAX, UNMOVABLE), blocks(3, 3));
        held.iter().for_each(|head| memory.free(*head, Order::MAX));
        held.len()
    };
    memory.failure_points().arm(Point::AllocOpen, Errno::Io, 2);
    for _ in 0..2 {
        assert_eq!((open_all(), is_withheld()), (0, true));
        memory.failure_points().arm(Point::OnlinePrepare, Errno::Io, 1);
        memory.offline(&[blocks(3, 3)], &mut Unhurried).expect("it holds nothing");
        memory.online(&[blocks(3, 3)], NORMAL, &mut Unhurried).expect_err("armed");
        assert!(is_withheld(), "a failure changes nothing");
        assert_valid(&memory);
        memory.online(&[blocks(3, 3)], NORMAL, &mut Unhurried).expect("offline");
        assert_eq!((is_withheld(), memory.memory_report().total), (false, total));
        assert_valid(&memory);
    }
    assert_eq!((open_all(), is_withheld()), (31, false));
    assert_valid(&memory);
}

#[test]
fn boot_memory_does_not_come_in_pieces() {
    let memory = booted_empty(4);
    let piece = PfnRange::new(section(3).pages().start().add(512), 512);
    assert!(matches!(memory.withhold(piece, &mut Unhurried), Err(PieceError::NotInPieces(id)) if id == section(3)));
}

#[test]
fn errors_of_an_untouched_boot_block_are_remembered() {
    let memory = booted_empty(4);
    let bad = section(3).pages().start().add(5000);
    memory.poison(bad, &mut Unhurried).expect("nobody uses it");
    assert_eq!(memory.memory_report().poisoned, PAGE_SIZE);
    memory.offline(&[blocks(3, 3)], &mut Unhurried).expect("the error stays behind");
    memory.online(&[blocks(3, 3)], NORMAL, &mut Unhurried).expect("offline");
    assert_valid(&memory);
    let held = take_all(&memory, &request(Order::PAGE, UNMOVABLE));
    assert!(!held.contains(&bad));
    assert_valid(&memory);
}
