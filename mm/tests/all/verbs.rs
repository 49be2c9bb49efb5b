//! The four verbs, one claim a test.

use crate::machine::dimms::{MOVABLE, NORMAL, plug};
use crate::machine::listening::{Call, CallKind, Heard, listen};
use crate::machine::pausing::At;
use crate::machine::taking::request;
use crate::machine::{Fake, SECTIONS, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{AllocError, Place, Request, Urgency};
use mm::errno::Errno;
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{AddError, AddRequest, OfflineError, OnlineError, RemoveError, UnplugError};
use mm::inject::{Point, PointOp};
use mm::limits::RESERVE_PAGES;
use mm::machine::mapper::Mapper;
use mm::machine::tasks::{Pace, Stop, Unhurried};
use mm::observe::report::FrameState;
use mm::record::journal::{Op, Phase};
use mm::record::notifier::{Accept, Change, Direction, MemoryListener, Name};
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock};

fn single(mobility: Mobility, place: Place) -> Request {
    Request { place, ..request(Order::PAGE, mobility) }
}

fn unmovable() -> Request {
    single(Mobility::Unmovable, Place::Near(NodeId::ZERO))
}

fn movable_in(memory: &Memory<Fake>, range: SectionRange) -> Pfn {
    memory.allocate_within(&single(Mobility::Movable, Place::Near(NodeId::ZERO)), range).expect("free")
}

#[test]
fn unmovable_memory_tells_where_and_when_it_was_taken() {
    let memory = booted();
    let request = Request::kernel(Owner::Selftest);
    let line = line!() - 1;
    let pfn = memory.allocate(&request).expect("free");
    let report = memory.frame_report(pfn);
    assert_eq!(report.site.map(|site| site.to_string()), Some(format!("{}:{line}", file!())));
    assert_eq!(report.since_ns, Some(0));
    memory.free(pfn, Order::PAGE);
    assert_eq!((memory.frame_report(pfn).site, memory.frame_report(pfn).since_ns), (None, None));

    let movable = memory.allocate(&single(Mobility::Movable, Place::Near(node(0)))).expect("free");
    assert_eq!((memory.frame_report(movable).site, memory.frame_report(movable).since_ns), (None, None));
}

#[test]
fn boot_memory_is_online_and_its_holes_and_reserved_frames_are_no_ones() {
    let memory = booted();
    assert_valid(&memory);
    let report = memory.memory_report();
    assert_eq!(report.free, report.total);
    assert_eq!(report.total / PAGE_SIZE, 2 * (160 + 2840 + 20000) + 1000);
    let state = |n| memory.frame_report(Pfn::new(n)).state;
    assert_eq!(state(10), FrameState::Free);
    assert_eq!(state(200), FrameState::Absent);
    assert_eq!(state(256), FrameState::Reserved);
    assert_eq!(state(4096), FrameState::Memmap);
    assert_eq!(state(32760), FrameState::Absent);
}

#[test]
fn a_round_of_plug_and_unplug_gives_everything_back() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    for how in [MOVABLE, NORMAL, OnlineAs::ByPolicy] {
        for memmap_on_memory in [true, false] {
            memory.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
            plug(&memory, 0, blocks(32, 35), 1);
            assert_valid(&memory);
            memory.online(&[blocks(32, 35)], how, &mut Unhurried).expect("offline blocks");
            assert_valid(&memory);
            memory.offline(&[blocks(32, 35)], &mut Unhurried).expect("free blocks");
            memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
            assert_valid(&memory);
            assert_eq!(Snapshot::of(&memory), before);
        }
    }
}

#[test]
fn the_head_of_every_added_section_is_never_handed_out() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    let free_before = memory.memory_report().free;
    memory.online(&[blocks(32, 33)], MOVABLE, &mut Unhurried).expect("offline blocks");
    let tables = memory.machine().own_tables(blocks(32, 33));
    let set_aside = 2 * MEMMAP_PAGES + tables;
    let report = memory.memory_report();
    assert_eq!(report.free - free_before, (2 * 32768 - set_aside) * PAGE_SIZE);
    for (block, head) in [(32, MEMMAP_PAGES + tables), (33, MEMMAP_PAGES)] {
        let start = section(block).pages().start();
        assert_eq!(memory.frame_report(start).state, FrameState::Memmap);
        assert_eq!(memory.frame_report(start.add(head - 1)).state, FrameState::Memmap);
        assert_eq!(memory.frame_report(start.add(head)).state, FrameState::Untouched);
        assert_eq!(movable_in(&memory, blocks(block, block)), start.add(head));
        assert_eq!(memory.frame_report(start.add(head - 1)).state, FrameState::Memmap);
        assert_eq!(memory.frame_report(start.add(head)).state, FrameState::Allocated);
        assert_eq!(memory.frame_report(start.add(head + 1)).state, FrameState::Free);
    }
    assert_eq!(memory.frame_report(section(32).pages().start()).owner, Owner::PageTable);
}

#[test]
fn the_parts_of_a_large_range_have_their_own_tables_each() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    let range = blocks(30, 50);
    let parts: Vec<_> = range.cut(Fake::PART).collect();
    assert_eq!(parts, [blocks(30, 31), blocks(32, 47), blocks(48, 50)]);
    let add = AddRequest { range, node: node(0), name: dimm(0) };
    for mapped in 0..3 {
        memory.machine().mappings_left.store(mapped, Ordering::Relaxed);
        assert_eq!(memory.add(&add, &mut Unhurried), Err(AddError::NoMemory));
        assert_eq!(Snapshot::of(&memory), before);
    }
    memory.machine().mappings_left.store(u64::MAX, Ordering::Relaxed);
    memory.add(&add, &mut Unhurried).expect("there is room");
    memory.online(&[range], MOVABLE, &mut Unhurried).expect("offline blocks");
    for part in parts {
        let tables = memory.machine().own_tables(part);
        let section = memory.section(part.first()).expect("present");
        assert_eq!((section.table_frames(), section.head_frames()), (tables, tables + MEMMAP_PAGES));
        assert_eq!(memory.frame_report(part.first().pages().start()).owner, Owner::PageTable);
        let head = part.first().pages().start().add(section.head_frames());
        assert_eq!(movable_in(&memory, SectionRange::single(part.first())), head);
        memory.free(head, Order::PAGE);
    }
    assert_valid(&memory);
    memory.offline(&[range], &mut Unhurried).expect("free blocks");
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn system_memmap_is_taken_at_add_and_leaves_the_section_whole() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let free = memory.memory_report().free;
    plug(&memory, 0, blocks(32, 33), 0);
    assert_eq!(free - memory.memory_report().free, 2 * MEMMAP_PAGES * PAGE_SIZE);
    memory.online(&[blocks(33, 33)], MOVABLE, &mut Unhurried).expect("offline block");
    assert_eq!(movable_in(&memory, blocks(33, 33)), section(33).pages().start());
}

#[test]
fn an_add_whose_memmap_does_not_fit_leaves_no_trace() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let before = Snapshot::of(&memory);
    // 46000 free frames hold the memmap of fewer than 62 sections once most of them are taken.
    while memory.memory_report().free > 4 << 20 {
        memory.allocate(&unmovable()).expect("free");
    }
    let exhausted = Snapshot::of(&memory);
    let add = AddRequest { range: blocks(2, 40), node: node(0), name: dimm(0) };
    assert_eq!(memory.add(&add, &mut Unhurried), Err(AddError::NoMemory));
    assert_eq!(Snapshot::of(&memory), exhausted);
    assert_ne!(exhausted, before);
    memory.set_policy(|policy| policy.memmap_on_memory = true);
    memory.add(&add, &mut Unhurried).expect("its own head holds it");
}

#[test]
fn bad_adds_are_refused() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    let before = Snapshot::of(&memory);
    let add = |range, on, number| {
        memory.add(&AddRequest { range, node: node(on), name: dimm(number) }, &mut Unhurried).map(drop)
    };
    assert_eq!(add(blocks(31, 32), 0, 1), Err(AddError::Exists(section(32))));
    assert_eq!(add(blocks(34, 34), 0, 0), Err(AddError::NameTaken(dimm(0))));
    assert_eq!(
        add(blocks(SECTIONS - 4, SECTIONS), 0, 1),
        Err(AddError::OutOfReach { last: section(SECTIONS), limit: SECTIONS - 1 })
    );
    assert_eq!(add(blocks(34, 34), 3, 1), Err(AddError::NoNode { node: node(3) }));
    memory.machine().mappings_left.store(0, Ordering::Relaxed);
    assert_eq!(add(blocks(34, 34), 0, 1), Err(AddError::NoMemory));
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn online_takes_all_blocks_or_none() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 35), 0);
    let before = Snapshot::of(&memory);
    let online = |ranges: &[SectionRange]| memory.online(ranges, MOVABLE, &mut Unhurried).map(drop);
    assert_eq!(online(&[]), Err(OnlineError::BadList));
    assert_eq!(online(&[blocks(33, 34), blocks(32, 33)]), Err(OnlineError::BadList));
    assert_eq!(online(&[blocks(34, 36)]), Err(OnlineError::Absent(section(36))));
    let boot = memory.online(&[blocks(0, 0)], NORMAL, &mut Unhurried);
    assert_eq!(boot, Err(OnlineError::NotOffline { block: section(0), state: "online" }));
    assert_eq!(Snapshot::of(&memory), before);
    assert_eq!(online(&[blocks(32, 32), blocks(34, 35)]), Ok(()));
    assert_valid(&memory);
    let error = OnlineError::NotOffline { block: section(34), state: "online" };
    assert_eq!(online(&[blocks(33, 34)]), Err(error));
    assert_eq!(error.errno(), Errno::Invalid);
    assert_eq!(memory.section(section(33)).map(|section| section.state), Some(BlockState::Offline));
}

#[test]
fn any_order_of_blocks_and_zones_works() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 37), 0);
    for (block, how) in [(35, MOVABLE), (33, NORMAL), (32, MOVABLE), (37, NORMAL), (36, MOVABLE), (34, MOVABLE)] {
        memory.online(&[blocks(block, block)], how, &mut Unhurried).expect("offline block");
        assert_valid(&memory);
    }
    for block in [33, 36, 32, 34, 37, 35] {
        memory.offline(&[blocks(block, block)], &mut Unhurried).expect("free block");
        assert_valid(&memory);
    }
}

#[test]
fn the_zone_shown_before_is_the_zone_obtained() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 36), 1);
    for block in [34, 33, 35, 32, 36] {
        let id = section(block);
        let known = memory.section(id).expect("added");
        let (_, zones) =
            memory.zone_chooser(known).valid_zones(SectionRange::single(id), known).next().expect("a block");
        assert_eq!(zones.len(), 2);
        memory.online(&[SectionRange::single(id)], OnlineAs::ByPolicy, &mut Unhurried).expect("offline block");
        assert_eq!(memory.section(id).expect("added").state, BlockState::Online(zones[0]));
        if block == 34 {
            memory.offline(&[SectionRange::single(id)], &mut Unhurried).expect("free");
            memory.online(&[SectionRange::single(id)], MOVABLE, &mut Unhurried).expect("offline block");
        }
    }
}

#[test]
fn offline_names_what_is_in_the_way_and_changes_nothing() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 34), 0);
    memory.online(&[blocks(32, 34)], MOVABLE, &mut Unhurried).expect("offline blocks");
    let pfn = movable_in(&memory, blocks(33, 33));
    let before = Snapshot::of(&memory);
    let error = OfflineError::Unmovable { pfn, owner: Owner::Selftest };
    assert_eq!(memory.offline(&[blocks(32, 34)], &mut Unhurried), Err(error));
    assert_eq!(error.errno(), Errno::Busy);
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
    memory.free(pfn, Order::PAGE);
    assert_eq!(memory.offline(&[blocks(32, 34)], &mut Unhurried), Ok(()));
}

#[test]
fn a_boot_block_comes_back_as_it_was() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    memory.offline(&[blocks(1, 1)], &mut Unhurried).expect("nothing reserved in it");
    assert_valid(&memory);
    let offline = memory.frame_report(section(1).pages().start());
    assert_eq!(offline.state, FrameState::Offline);
    memory.online(&[blocks(1, 1)], NORMAL, &mut Unhurried).expect("offline");
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
    let kernel = OfflineError::Unmovable { pfn: Pfn::new(256), owner: Owner::KernelImage };
    assert_eq!(memory.offline(&[blocks(0, 0)], &mut Unhurried), Err(kernel));
}

#[test]
fn only_offline_added_groups_are_removed_all_of_them_or_none() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    plug(&memory, 1, blocks(40, 40), 0);
    memory.online(&[blocks(33, 33)], MOVABLE, &mut Unhurried).expect("offline block");
    let before = Snapshot::of(&memory);
    assert_eq!(memory.remove(&[dimm(1), dimm(0)], &mut Unhurried), Err(RemoveError::NotOffline(section(33))));
    let boot = memory.group(memory.section(section(0)).expect("boot").group).expect("exists").name;
    assert_eq!(memory.remove(&[dimm(1), boot], &mut Unhurried), Err(RemoveError::Boot(boot)));
    assert_eq!(memory.remove(&[dimm(1), dimm(7)], &mut Unhurried), Err(RemoveError::Absent));
    assert_eq!(Snapshot::of(&memory), before);
    memory.offline(&[blocks(33, 33)], &mut Unhurried).expect("free");
    memory.remove(&[dimm(0), dimm(1), dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(memory.remove(&[dimm(0)], &mut Unhurried), Err(RemoveError::Absent));
    assert_valid(&memory);
}

#[test]
fn a_device_of_several_groups_goes_as_a_whole_or_stays_as_it_was() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 0);
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    plug(&memory, 1, blocks(33, 33), 0);
    memory.online(&[blocks(32, 33)], MOVABLE, &mut Unhurried).expect("offline blocks");
    let both = [dimm(0), dimm(1)];
    let before = Snapshot::of(&memory);
    memory.failure_points().arm(Point::RemoveBegin, Errno::Io, 1);
    let refused = memory.unplug(&both, &[blocks(32, 33)], &mut Unhurried);
    assert_eq!(refused.map_err(UnplugError::errno), Err(Errno::Io));
    // Blocks of others, which may have come to its place meanwhile, stay.
    let stranger = memory.unplug(&[dimm(0)], &[blocks(32, 33)], &mut Unhurried);
    assert_eq!(stranger, Err(UnplugError::Remove(RemoveError::NoBlock(section(33)))));
    let pfn = movable_in(&memory, blocks(33, 33));
    memory.unplug(&both, &[blocks(32, 33)], &mut Unhurried).expect_err("in use");
    memory.free(pfn, Order::PAGE);
    assert_eq!(Snapshot::of(&memory), before);
    memory.unplug(&both, &[blocks(32, 33)], &mut Unhurried).expect("free");
    assert_eq!(Snapshot::of(&memory), Snapshot::of(&booted()));
}

#[test]
fn every_failure_point_leaves_no_trace_and_the_same_call_succeeds_afterwards() {
    let mut fired = 0;
    // What is relabelled is online already.
    let is_of_verb = |point: &&Point| {
        matches!(point.op(), PointOp::Add | PointOp::Online | PointOp::Offline | PointOp::Remove)
            && **point != Point::OnlineRelabel
    };
    for point in Point::ALL.iter().filter(is_of_verb) {
        for memmap_on_memory in [true, false] {
            let memory = booted();
            memory.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
            let verb = |op: PointOp| match op {
                PointOp::Add => memory
                    .add(&AddRequest { range: blocks(32, 34), node: node(1), name: dimm(0) }, &mut Unhurried)
                    .map(drop)
                    .map_err(AddError::errno),
                PointOp::Online => {
                    memory.online(&[blocks(32, 34)], MOVABLE, &mut Unhurried).map(drop).map_err(OnlineError::errno)
                }
                PointOp::Offline => memory.offline(&[blocks(32, 34)], &mut Unhurried).map_err(OfflineError::errno),
                PointOp::Remove => memory.remove(&[dimm(0)], &mut Unhurried).map_err(RemoveError::errno),
                _ => Ok(()),
            };
            for op in [PointOp::Add, PointOp::Online, PointOp::Offline, PointOp::Remove] {
                if op == point.op() {
                    let before = Snapshot::of(&memory);
                    memory.failure_points().arm(*point, Errno::Again, 1);
                    let unused = *point == Point::AddMemmap && memmap_on_memory;
                    if unused {
                        break;
                    }
                    assert_eq!(verb(op), Err(Errno::Again), "{point:?}");
                    assert_eq!(Snapshot::of(&memory), before, "{point:?}");
                    assert_valid(&memory);
                    fired += 1;
                }
                assert_eq!(verb(op), Ok(()), "{point:?} {op:?}");
            }
        }
    }
    assert_eq!(fired, 2 * Point::ALL.iter().filter(is_of_verb).count() - 1);
}

#[test]
fn memmap_frames_taken_before_a_failure_are_given_back() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let before = Snapshot::of(&memory);
    let add = AddRequest { range: blocks(32, 35), node: node(0), name: dimm(0) };
    let stops = stop_everywhere(|pace| {
        let added = memory.add(&add, pace).map(drop);
        assert!(added.is_ok() || Snapshot::of(&memory) == before);
        added
    });
    assert_eq!(stops.last(), Some(&AddError::Stopped(Stop::Cancelled)));
    assert!(stops.len() >= 4, "it can be stopped before the frames of each section");
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    memory.failure_points().arm(Point::AllocFrames, Errno::Io, 1);
    assert_eq!(memory.add(&add, &mut Unhurried).map_err(AddError::errno), Err(Errno::Io));
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
}

/// Cancels an operation at its first pause, then at the second, until it comes to its end; how it ended before.
fn stop_everywhere<E>(mut operation: impl FnMut(&mut dyn Pace) -> Result<(), E>) -> Vec<E> {
    (1..).map_while(|pause| operation(&mut At(pause, || Err(Stop::Cancelled))).err()).collect()
}

#[test]
fn a_cancelled_operation_leaves_no_trace() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    plug(&memory, 0, blocks(32, 35), 0);
    let before = Snapshot::of(&memory);
    let stops = stop_everywhere(|pace| {
        let result = memory.online(&[blocks(32, 35)], MOVABLE, pace).map(drop);
        assert!(result.is_ok() || Snapshot::of(&memory) == before);
        result
    });
    assert!(!stops.is_empty() && stops.iter().all(|stop| *stop == OnlineError::Stopped(Stop::Cancelled)));
    for block in [32, 33, 35] {
        memory.free(movable_in(&memory, blocks(block, block)), Order::PAGE);
    }
    let before = Snapshot::of(&memory);
    let stops = stop_everywhere(|pace| {
        let result = memory.offline(&[blocks(32, 35)], pace);
        assert!(result.is_ok() || Snapshot::of(&memory) == before);
        assert_valid(&memory);
        result
    });
    assert!(stops.len() >= 3 + 3, "between four blocks of different kinds, and after each look into one that is open");
    assert!(stops.iter().all(|stop| *stop == OfflineError::Stopped(Stop::Cancelled)));
}

#[test]
fn a_veto_names_the_listener_and_only_those_asked_before_hear_of_it() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    let heard = Heard::default();
    let low = heard.listen(&memory, "low", 1);
    heard.listen(&memory, "high", 9);
    low.refuse(|change| change.direction == Direction::Online);
    let error = memory.online(&[blocks(32, 33)], MOVABLE, &mut Unhurried).expect_err("vetoed");
    assert_eq!(error.to_string(), "vetoed by listener low");
    assert_eq!(error.errno(), Errno::Busy);
    let calls: Vec<_> = heard.take().into_iter().map(|call| (call.listener, call.kind, call.change.range)).collect();
    let range = blocks(32, 33);
    let expected = [
        ("high", CallKind::Prepare(Accept::Yes), range),
        ("low", CallKind::Prepare(Accept::No), range),
        ("high", CallKind::Cancelled, range),
    ];
    assert_eq!(calls, expected);
    low.refuse(|_| false);
    memory.online(&[blocks(32, 33)], MOVABLE, &mut Unhurried).expect("allowed");
    memory.unregister_listener(Name::new("low").expect("valid")).expect("it is there");
    heard.take();
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("free");
    assert!(heard.take().iter().all(|call| call.listener == "high"), "who has left hears nothing");
}

#[test]
fn a_veto_against_later_blocks_is_heard_about_the_earlier_ones_last_first() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    plug(&memory, 1, blocks(40, 40), 0);
    let heard = Heard::default();
    heard.listen(&memory, "high", 9);
    heard.listen(&memory, "picky", 5).refuse(|change| change.range.contains(section(40)));
    heard.listen(&memory, "low", 1);
    memory.online(&[blocks(32, 33), blocks(40, 40)], MOVABLE, &mut Unhurried).expect_err("vetoed");
    let calls: Vec<_> =
        heard.take().iter().map(|call| (call.listener, call.kind, call.change.range.first().number())).collect();
    let yes = CallKind::Prepare(Accept::Yes);
    let expected = [
        ("high", yes, 32),
        ("picky", yes, 32),
        ("low", yes, 32),
        ("high", yes, 40),
        ("picky", CallKind::Prepare(Accept::No), 40),
        ("high", CallKind::Cancelled, 40),
        ("low", CallKind::Cancelled, 32),
        ("picky", CallKind::Cancelled, 32),
        ("high", CallKind::Cancelled, 32),
    ];
    assert_eq!(calls, expected);
    assert_valid(&memory);
}

#[test]
fn a_listener_is_told_of_each_group_by_itself() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    plug(&memory, 1, blocks(34, 34), 0);
    let heard = Heard::default();
    let listener = heard.listen(&memory, "listener", 0);
    let told = || -> Vec<_> {
        let name = |call: &Call| memory.group(call.change.group).expect("it is there").name;
        heard.take().iter().map(|call| (call.kind, call.change.range, name(call))).collect()
    };
    let both = |kind| [(kind, blocks(32, 33), dimm(0)), (kind, blocks(34, 34), dimm(1))];
    let asked = both(CallKind::Prepare(Accept::Yes));
    memory.online(&[blocks(32, 34)], MOVABLE, &mut Unhurried).expect("offline");
    assert_eq!(told(), [asked, both(CallKind::Committed)].concat());
    listener.refuse(|change| change.range.contains(section(34)));
    memory.offline(&[blocks(32, 34)], &mut Unhurried).expect_err("vetoed");
    let refused = (CallKind::Prepare(Accept::No), blocks(34, 34), dimm(1));
    assert_eq!(told(), [asked[0], refused, (CallKind::Cancelled, blocks(32, 33), dimm(0))]);
    listener.refuse(|_| false);
    memory.offline(&[blocks(32, 34)], &mut Unhurried).expect("free");
    assert_eq!(told(), [asked, both(CallKind::Committed)].concat());
}

#[test]
fn cancelled_is_heard_when_everything_is_as_it_was() {
    static MEMORY: OnceLock<Memory<Fake>> = OnceLock::new();
    static HEARD: Mutex<Vec<(u64, BlockState)>> = Mutex::new(Vec::new());
    struct Watcher;
    impl MemoryListener for Watcher {
        fn prepare(&self, _: &Change) -> Accept {
            Accept::Yes
        }
        fn committed(&self, _: &Change) {}
        fn cancelled(&self, change: &Change) {
            let memory = MEMORY.get().expect("set");
            let state = memory.section(change.range.first()).expect("present").state;
            HEARD.lock().expect("nobody panics with it").push((memory.memory_report().free, state));
        }
    }
    let memory = MEMORY.get_or_init(booted);
    plug(memory, 0, blocks(32, 32), 0);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    movable_in(memory, blocks(32, 32));
    let free = memory.memory_report().free;
    listen(memory, "watcher", 9, Watcher);
    let online = BlockState::Online(ZoneKind::Movable);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("in use");
    Heard::default().listen(memory, "naysayer", 0).refuse(|_| true);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("vetoed");
    plug(memory, 1, blocks(33, 33), 0);
    memory.online(&[blocks(33, 33)], MOVABLE, &mut Unhurried).expect_err("vetoed");
    let heard = HEARD.lock().expect("nobody panics with it").clone();
    assert_eq!(heard, [(free, online), (free, online), (free, BlockState::Offline)]);
}

#[test]
fn a_listener_may_take_memory_from_the_block_that_came_online() {
    static MEMORY: OnceLock<Memory<Fake>> = OnceLock::new();
    static TAKEN: OnceLock<Pfn> = OnceLock::new();
    struct Taker;
    impl MemoryListener for Taker {
        fn prepare(&self, _: &Change) -> Accept {
            Accept::Yes
        }
        fn committed(&self, change: &Change) {
            TAKEN.set(movable_in(MEMORY.get().expect("set"), change.range)).expect("heard once");
        }
        fn cancelled(&self, _: &Change) {}
    }
    let memory = MEMORY.get_or_init(booted);
    listen(memory, "taker", 0, Taker);
    plug(memory, 0, blocks(33, 33), 0);
    memory.online(&[blocks(33, 33)], MOVABLE, &mut Unhurried).expect("offline");
    assert_eq!(TAKEN.get().expect("taken").section(), section(33));
    assert_valid(memory);
}

#[test]
fn a_listener_may_use_memory_in_every_call() {
    static MEMORY: OnceLock<Memory<Fake>> = OnceLock::new();
    struct User;
    impl User {
        /// Memory of any kind can be taken elsewhere and given back, and blocks looked at.
        fn use_memory(&self, change: &Change) {
            let memory = MEMORY.get().expect("set");
            for mobility in [Mobility::Movable, Mobility::Unmovable] {
                let pfn = memory.allocate(&single(mobility, Place::Near(change.node))).expect("free");
                assert_eq!(memory.frame_report(pfn).state, FrameState::Allocated);
                memory.free(pfn, Order::PAGE);
            }
            assert_eq!(memory.blocks().filter(|(id, _)| change.range.contains(*id)).count(), 1);
            assert!(memory.memory_report().free > 0);
        }
    }
    impl MemoryListener for User {
        fn prepare(&self, change: &Change) -> Accept {
            self.use_memory(change);
            Accept::Yes
        }
        fn committed(&self, change: &Change) {
            self.use_memory(change);
        }
        fn cancelled(&self, change: &Change) {
            self.use_memory(change);
        }
    }
    let memory = MEMORY.get_or_init(booted);
    plug(memory, 0, blocks(32, 32), 0);
    let heard = Heard::default();
    listen(memory, "user", 9, User);
    heard.listen(memory, "first", 10);
    let last = heard.listen(memory, "last", 0);
    last.refuse(|_| true);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect_err("vetoed");
    last.refuse(|_| false);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    last.refuse(|_| true);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("vetoed");
    last.refuse(|_| false);
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
    let calls = heard.take();
    let of_first = |kind| calls.iter().filter(|call| call.listener == "first" && call.kind == kind).count();
    assert_eq!([CallKind::Prepare(Accept::Yes), CallKind::Committed, CallKind::Cancelled].map(of_first), [4, 2, 2]);
    assert_valid(memory);
}

#[test]
fn kernel_memory_comes_from_boot_memory_of_any_node_first_and_never_from_movable() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 1);
    plug(&memory, 1, blocks(40, 40), 1);
    memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
    memory.online(&[blocks(40, 40)], MOVABLE, &mut Unhurried).expect("offline");
    let near = |mobility| single(mobility, Place::Near(node(1)));
    let mut sections = Vec::new();
    while let Ok(pfn) = memory.allocate(&near(Mobility::Unmovable)) {
        if sections.last() != Some(&pfn.section().number()) {
            sections.push(pfn.section().number());
        }
    }
    assert_eq!(sections.last(), Some(&32));
    assert!(sections[..sections.len() - 1].iter().all(|section| *section < 2), "{sections:?}");
    assert_eq!(memory.allocate(&near(Mobility::Movable)).expect("free").section(), section(40));
    let on_node_2 = single(Mobility::Movable, Place::On(node(2)));
    assert_eq!(memory.allocate(&on_node_2), Err(AllocError::OutOfMemory));
    assert_valid(&memory);
}

#[test]
fn hotplug_may_use_the_reserve_that_others_leave() {
    let memory = booted();
    while memory.allocate(&unmovable()).is_ok() {}
    let report = memory.memory_report();
    assert_eq!(report.free / PAGE_SIZE, RESERVE_PAGES);
    assert_eq!(report.available, 0);
    let urgent = Request { urgency: Urgency::Hotplug, ..unmovable() };
    for _ in 0..RESERVE_PAGES {
        memory.allocate(&urgent).expect("the reserve is there for it");
    }
    assert_eq!(memory.allocate(&urgent), Err(AllocError::OutOfMemory));
    plug(&memory, 0, blocks(32, 33), 0);
    memory.online(&[blocks(32, 33)], NORMAL, &mut Unhurried).expect("offline");
    memory.allocate(&unmovable()).expect("added memory serves");
}

#[test]
fn a_request_for_one_node_is_served_there_or_not_at_all() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 2);
    memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
    let on = |n| memory.allocate(&single(Mobility::Unmovable, Place::On(node(n))));
    assert_eq!(on(2).expect("free").section(), section(32));
    assert!(on(0).expect("free").section() < section(2));
    for n in [1, 3, 127] {
        assert_eq!(on(n), Err(AllocError::OutOfMemory), "node {n}");
    }
}

#[test]
fn a_request_within_blocks_obeys_zone_state_and_reserve() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 34), 0);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    memory.online(&[blocks(33, 33)], NORMAL, &mut Unhurried).expect("offline");
    let within = |mobility, first, last| {
        let request = single(mobility, Place::Near(NodeId::ZERO));
        memory.allocate_within(&request, blocks(first, last)).map(Pfn::section)
    };
    let nothing = Err(AllocError::OutOfMemory);
    assert_eq!(within(Mobility::Unmovable, 32, 32), nothing);
    assert_eq!(within(Mobility::Movable, 32, 32), Ok(section(32)));
    assert_eq!(within(Mobility::Unmovable, 33, 33), Ok(section(33)));
    assert_eq!(within(Mobility::Movable, 33, 33), Ok(section(33)));
    assert_eq!(within(Mobility::Movable, 34, 40), nothing);
    assert_eq!(within(Mobility::Unmovable, 32, 34), Ok(section(33)));
    assert_eq!(within(Mobility::Unmovable, 1, 1), Ok(section(1)));
    for order in Order::all().rev() {
        let request = Request { order, ..unmovable() };
        while memory.allocate_within(&request, blocks(0, 1)).is_ok() {}
    }
    let mut boot_free = 0;
    memory.for_each_zone(|zone| boot_free += zone.free_boot / PAGE_SIZE);
    assert_eq!(boot_free, RESERVE_PAGES);
    assert_eq!(within(Mobility::Unmovable, 0, 33), Ok(section(33)));
    assert_valid(&memory);
}

#[test]
fn the_heap_is_spared_injected_failures() {
    let memory = booted();
    memory.failure_points().arm(Point::AllocFrames, Errno::NoMemory, 1);
    memory.allocate(&Request { owner: Owner::Heap, ..unmovable() }).expect("free");
    memory.allocate(&unmovable()).expect_err("armed");
    memory.allocate(&unmovable()).expect("armed once");
}

#[test]
fn boot_memory_that_became_movable_does_not_count_for_the_reserve() {
    let memory = booted();
    memory.offline(&[blocks(1, 1)], &mut Unhurried).expect("free");
    memory.online(&[blocks(1, 1)], MOVABLE, &mut Unhurried).expect("offline");
    while memory.allocate(&unmovable()).is_ok() {}
    let mut normal_free = 0;
    memory.for_each_zone(|zone| normal_free += if zone.kind == ZoneKind::Normal { zone.free } else { 0 });
    assert_eq!(normal_free / PAGE_SIZE, RESERVE_PAGES);
    assert_valid(&memory);
}

#[test]
fn an_offline_block_still_says_what_its_frames_are() {
    let memory = booted();
    memory.offline(&[blocks(1, 1)], &mut Unhurried).expect("free");
    plug(&memory, 0, blocks(32, 33), 0);
    let what = |block, frame| {
        let report = memory.frame_report(section(block).pages().start().add(frame));
        (report.state, report.owner)
    };
    assert_eq!(what(1, 0), (FrameState::Offline, Owner::None));
    assert_eq!(what(1, 200), (FrameState::Absent, Owner::None));
    assert_eq!(what(1, 4096), (FrameState::Memmap, Owner::Memmap));
    assert_eq!(what(32, 0), (FrameState::Memmap, Owner::PageTable));
    assert_eq!(what(32, 1), (FrameState::Memmap, Owner::Memmap));
    assert_eq!(what(32, MEMMAP_PAGES + 1), (FrameState::Offline, Owner::None));
}

#[test]
fn memory_falls_back_by_distance() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 1);
    plug(&memory, 1, blocks(40, 40), 2);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    memory.online(&[blocks(40, 40)], MOVABLE, &mut Unhurried).expect("offline");
    // From node 0, node 2 is at 20 and node 1 at 40.
    let comes_from = |request| {
        let pfn = memory.allocate(&request).expect("free");
        memory.free(pfn, Order::PAGE);
        pfn.section()
    };
    let from_0 = single(Mobility::Movable, Place::Near(node(0)));
    assert_eq!(comes_from(from_0), section(40));
    let from_1 = single(Mobility::Movable, Place::Near(node(1)));
    assert_eq!(comes_from(from_1), section(32));
    // From node 1, whose only block goes, node 2 is at 30 and node 0 at 40.
    plug(&memory, 2, blocks(48, 48), 0);
    memory.online(&[blocks(48, 48)], MOVABLE, &mut Unhurried).expect("offline");
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
    assert_eq!(comes_from(from_1), section(40));
    let only_1 = single(Mobility::Movable, Place::On(node(1)));
    assert_eq!(memory.allocate(&only_1), Err(AllocError::OutOfMemory));
    memory.offline(&[blocks(40, 40)], &mut Unhurried).expect("free");
    assert_eq!(comes_from(from_1), section(48));
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    assert_eq!(comes_from(from_1), section(32));
    assert_valid(&memory);
}

#[test]
fn the_journal_tells_every_operation_and_how_it_ended() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33), 0);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    memory.online(&[blocks(32, 33)], MOVABLE, &mut Unhurried).expect_err("one is online");
    let events: Vec<_> = (0..).map_while(|number| memory.event_since(number)).collect();
    let told: Vec<_> = events.iter().map(|event| (event.op, event.range, event.result)).collect();
    let expected = [
        (Op::Add, blocks(32, 33), Ok(())),
        (Op::Online, blocks(32, 32), Ok(())),
        (Op::Online, blocks(32, 33), Err(Errno::Invalid)),
    ];
    assert_eq!(told, expected);
    assert!(events[1].phases.iter().any(|phase| phase.name == "populate"));
    assert!(events[1].phases.iter().all(|phase| phase.name != "undo"));
    assert!(matches!(&*events[2].phases, [Phase { name: "begin", ns: 1.. }]), "{:?}", events[2].phases);
}

#[test]
fn a_wiped_struct_page_is_told_by_validate() {
    let memory = booted();
    let pfn = memory.allocate(&unmovable()).expect("free");
    assert_valid(&memory);
    // A frame whose struct page is wiped belongs to nobody: the recount must see it.
    mm::frame::memmap::Memmap::page(memory.machine(), pfn).clear();
    let mut problems = Vec::new();
    memory.validate(|problem| problems.push(problem.to_string()));
    assert!(problems.iter().any(|problem| problem.contains("belongs to no block")), "{problems:?}");
}
