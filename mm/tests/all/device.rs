//! Device memory: struct pages at once, no zone, and frames that its device alone hands out.

use crate::machine::dimms::plug;
use crate::machine::pausing::At;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::addr::{PAGES_PER_SECTION, Pfn};
use mm::frame::memmap::Memmap;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{AddError, OfflineError, OnlineError, PieceError, RemoveError};
use mm::inject::Point;
use mm::machine::mapper::DirectMap;
use mm::machine::tasks::{Stop, Unhurried};
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::record::policy::OnlineAs;
use mm::section::group::{Grant, Group, GroupId, GroupKind, GroupName, Ready, Terms};
use mm::section::kind::MemmapPlace;
use mm::{Errno, Memory};

const PMEM: GroupName = GroupName { kind: GroupKind::Probe, number: 5 };

/// Every way to have struct pages and a direct map, or none.
const KINDS: [(MemmapPlace, DirectMap); 3] = [
    (MemmapPlace::Head, DirectMap::Present),
    (MemmapPlace::System, DirectMap::Present),
    (MemmapPlace::System, DirectMap::Absent),
];

fn register(memory: &Memory<Fake>, (memmap, direct_map): (MemmapPlace, DirectMap)) -> GroupId {
    let terms = Terms { memmap, unit: 2, ready: Ready::AtAdd, grant: Grant::Whole, direct_map };
    let group = Group { name: PMEM, window: blocks(40, 55), node: node(2), terms };
    memory.register_group(&group, None, &mut Unhurried).expect("vacant")
}

fn attach(memory: &Memory<Fake>, id: GroupId, first: u64, last: u64) -> Result<(), AddError> {
    memory.attach(id, blocks(first, last), &mut Unhurried)
}

fn detach(memory: &Memory<Fake>, id: GroupId, first: u64, last: u64) -> Result<(), RemoveError> {
    memory.detach(id, blocks(first, last), &mut Unhurried)
}

fn frame(block: u64, n: u64) -> Pfn {
    section(block).pages().start().add(n)
}

#[test]
fn device_memory_has_struct_pages_at_once_and_counts_nowhere_as_ram() {
    for kind in KINDS {
        let memory = booted();
        let id = register(&memory, kind);
        let before = (Snapshot::of(&memory), memory.memory_report());
        attach(&memory, id, 42, 45).expect("vacant");
        assert_valid(&memory);
        let report = memory.memory_report();
        assert_eq!((report.total, report.offline), (before.1.total, before.1.offline));
        memory.for_each_zone(|zone| assert!(zone.span.1 < section(42) || zone.node != node(2)));
        let of = |n| memory.frame_report(frame(42, n));
        let first = of(0);
        match kind.0 {
            MemmapPlace::Head => {
                assert_eq!((first.state, of(MEMMAP_PAGES).state), (FrameState::Memmap, FrameState::Memmap))
            }
            _ => assert_eq!(first.state, FrameState::Device),
        }
        let last = of(PAGES_PER_SECTION - 1);
        assert_eq!((last.state, last.zone, last.refs, last.node), (FrameState::Device, None, 0, Some(node(2))));
        // No byte was touched of what keeps its struct pages elsewhere, and no more of the others than their heads.
        let tried = memory.machine().tried.lock().unwrap().clone();
        let inside = tried.iter().filter(|frame| blocks(42, 45).contains(frame.section()));
        assert!(inside.clone().all(|frame| frame.index_in_section() <= 1 + MEMMAP_PAGES), "{kind:?}");
        assert_eq!(inside.count() == 0, kind.0 == MemmapPlace::System);
        detach(&memory, id, 42, 45).expect("nobody has any of it");
        assert_valid(&memory);
        assert_eq!((Snapshot::of(&memory), memory.memory_report()), before);
    }
}

#[test]
fn a_frame_that_somebody_has_is_named_and_keeps_the_device() {
    for kind in KINDS {
        let memory = booted();
        let id = register(&memory, kind);
        attach(&memory, id, 42, 45).expect("vacant");
        let taken = frame(45, 20_000);
        assert!(memory.take_device_frame(taken));
        assert!(!memory.take_device_frame(taken), "it is taken");
        assert!(!memory.take_device_frame(frame(46, 1)), "nothing is there");
        if kind.0 == MemmapPlace::Head {
            assert!(!memory.take_device_frame(frame(45, 1)), "struct pages lie there");
        }
        assert_valid(&memory);
        let report = memory.frame_report(taken);
        assert_eq!((report.state, report.owner, report.refs), (FrameState::Device, Owner::Device, 1));
        let before = Snapshot::of(&memory);
        assert_eq!(detach(&memory, id, 42, 45), Err(RemoveError::InUse(taken)));
        assert_eq!(detach(&memory, id, 42, 45).map_err(RemoveError::errno), Err(Errno::Busy));
        assert_eq!(Snapshot::of(&memory), before);
        detach(&memory, id, 42, 43).expect("those are idle");
        // Somebody else refers to it for a while.
        assert!(memory.machine().page(taken).pin());
        assert!(!memory.give_device_frame(taken));
        memory.machine().page(taken).unpin();
        assert!(memory.give_device_frame(taken));
        assert_valid(&memory);
        detach(&memory, id, 44, 45).expect("given back");
        memory.remove(&[PMEM], &mut Unhurried).expect("nothing is there");
        assert_eq!(Snapshot::of(&memory), Snapshot::of(&booted()));
    }
}

#[test]
fn no_verb_of_ram_works_on_device_memory() {
    let memory = booted();
    let id = register(&memory, KINDS[0]);
    attach(&memory, id, 42, 43).expect("vacant");
    let before = Snapshot::of(&memory);
    let range = [blocks(42, 42)];
    assert_eq!(memory.online(&range, OnlineAs::ByPolicy, &mut Unhurried), Err(OnlineError::Device(section(42))));
    assert_eq!(memory.offline(&range, &mut Unhurried).map_err(OfflineError::errno), Err(Errno::Invalid));
    assert_eq!(memory.remove(&[PMEM], &mut Unhurried), Err(RemoveError::NotOffline(section(42))));
    assert_eq!(memory.remove_from_group(id, blocks(42, 43), &mut Unhurried), Err(RemoveError::NotOffline(section(42))));
    assert_eq!(memory.withhold(section(42).pages(), &mut Unhurried), Err(PieceError::NotInPieces(section(42))));
    let pfn = frame(42, 9000);
    assert_eq!(memory.poison(pfn, &mut Unhurried), Err(PoisonError::Held { pfn, owner: Owner::Device }));
    // It can be RAM, on other terms, and device memory again.
    plug(&memory, 0, blocks(32, 33), 1);
    assert_eq!(detach(&memory, id, 32, 33), Err(RemoveError::NoBlock(section(32))));
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(Snapshot::of(&memory), before);
    detach(&memory, id, 42, 43).expect("idle");
    memory.add_to_group(id, blocks(42, 43), &mut Unhurried).expect("vacant");
    assert_eq!(detach(&memory, id, 42, 43), Err(RemoveError::NotOffline(section(42))));
    memory.online(&[blocks(42, 43)], OnlineAs::ByPolicy, &mut Unhurried).expect("offline");
    memory.offline(&[blocks(42, 43)], &mut Unhurried).expect("free");
    memory.remove_from_group(id, blocks(42, 43), &mut Unhurried).expect("offline");
    attach(&memory, id, 42, 43).expect("vacant");
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
}

#[test]
fn a_range_that_does_not_fit_is_refused() {
    let memory = booted();
    let id = register(&memory, KINDS[1]);
    attach(&memory, id, 42, 43).expect("vacant");
    let before = Snapshot::of(&memory);
    assert_eq!(attach(&memory, id, 43, 44), Err(AddError::BadUnit { unit: 2 }));
    assert_eq!(attach(&memory, id, 38, 41), Err(AddError::OutsideWindow(PMEM)));
    assert_eq!(attach(&memory, id, 42, 45), Err(AddError::Exists(section(42))));
    assert_eq!(detach(&memory, id, 43, 44), Err(RemoveError::BadUnit { unit: 2 }));
    assert_eq!(detach(&memory, id, 42, 45), Err(RemoveError::NoBlock(section(44))));
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn every_failure_and_every_stop_leaves_no_trace() {
    for kind in KINDS {
        let memory = booted();
        let id = register(&memory, kind);
        let before = Snapshot::of(&memory);
        for point in [Point::AddMap, Point::AddTrial, Point::AddMemmap, Point::DeviceMemmap] {
            let is_passed = match point {
                // Of a device whose struct pages lie elsewhere, nothing is written.
                Point::AddTrial => kind.0 == MemmapPlace::Head,
                Point::AddMemmap => kind.0 == MemmapPlace::System,
                _ => true,
            };
            for _ in 0..2 {
                memory.failure_points().arm(point, Errno::Io, 1);
                let outcome = attach(&memory, id, 42, 45).map_err(AddError::errno);
                memory.failure_points().disarm_all();
                assert_eq!(outcome, if is_passed { Err(Errno::Io) } else { Ok(()) }, "{point:?} {kind:?}");
                if outcome.is_ok() {
                    detach(&memory, id, 42, 45).expect("idle");
                }
                assert_eq!(Snapshot::of(&memory), before, "{point:?} {kind:?}");
                assert_valid(&memory);
            }
        }
        let mut stops = 0;
        for pause in 1.. {
            let stopped = memory.attach(id, blocks(42, 43), &mut At(pause, || Err(Stop::Cancelled)));
            if stopped.is_ok() {
                break;
            }
            assert_eq!((stopped, Snapshot::of(&memory)), (Err(AddError::Stopped(Stop::Cancelled)), before.clone()));
            stops += 1;
        }
        assert!(stops >= 16, "struct pages are made in bounded steps: {stops}");
        let attached = Snapshot::of(&memory);
        memory.failure_points().arm(Point::RemoveBegin, Errno::Again, 1);
        assert_eq!(detach(&memory, id, 42, 43).map_err(RemoveError::errno), Err(Errno::Again));
        let stopped = memory.detach(id, blocks(42, 43), &mut At(3, || Err(Stop::Cancelled)));
        assert_eq!((stopped, Snapshot::of(&memory)), (Err(RemoveError::Stopped(Stop::Cancelled)), attached));
        detach(&memory, id, 42, 43).expect("idle");
        assert_eq!(Snapshot::of(&memory), before);
    }
}

#[test]
fn struct_pages_are_not_put_where_they_would_be_lost() {
    let memory = booted();
    let id = register(&memory, KINDS[0]);
    let before = Snapshot::of(&memory);
    // Among the struct pages of its second block.
    memory.machine().bad.lock().unwrap().insert(frame(43, MEMMAP_PAGES / 2));
    assert_eq!(attach(&memory, id, 42, 45).map_err(AddError::errno), Err(Errno::Io));
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
}
