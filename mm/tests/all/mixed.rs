//! Boot memory that `kernelcore=` and `movablecore=` split: one block may be in both zones.

use crate::machine::taking::{request, take_all};
use crate::machine::{CPU, CPUS, Fake, Snapshot, assert_valid, blocks, booted, booted_with, dimm, node, section};
use mm::addr::{Order, PAGES_PER_SECTION, Pfn};
use mm::frame::mobility::Mobility;
use mm::hotplug::{AddRequest, OfflineError, OnlineError};
use mm::machine::tasks::Unhurried;
use mm::observe::report::ZoneReport;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use mm::{Errno, Memory};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first Movable frame: two thirds into the second block.
const LINE: Pfn = Pfn::new(PAGES_PER_SECTION + 20 * 1024);

fn split() -> Memory<Fake> {
    booted_with([0, 0], Some(LINE))
}

fn zone(memory: &Memory<Fake>, kind: ZoneKind) -> ZoneReport {
    let mut found = None;
    memory.for_each_zone(|zone| found = if zone.kind == kind { Some(*zone) } else { found });
    found.expect("it spans something")
}

#[test]
fn the_parts_of_a_mixed_block_make_the_same_totals() {
    let (memory, whole) = (split(), booted());
    assert_valid(&memory);
    assert_eq!(memory.memory_report().total, whole.memory_report().total);
    assert_eq!(memory.memory_report().memmap_used, whole.memory_report().memmap_used);
    let [normal, movable] = ZoneKind::ALL.map(|kind| zone(&memory, kind));
    assert_eq!(normal.present + movable.present, zone(&whole, ZoneKind::Normal).present);
    assert_eq!((normal.span, movable.span), ((section(0), section(1)), (section(1), section(1))));
    // What is there of the block ends before the block does.
    assert_eq!(movable.present >> 12, 4096 + 256 + 20000 - 20 * 1024);
    assert_eq!((movable.free, movable.managed), (movable.present, movable.present));
    let state = memory.section(section(1)).expect("present").state;
    assert!(matches!(state, BlockState::Mixed(_)), "{state:?}");
    assert_eq!(memory.frame_report(LINE).zone, Some(ZoneKind::Movable));
    assert_eq!(memory.frame_report(Pfn::new(LINE.number() - 1)).zone, Some(ZoneKind::Normal));
}

#[test]
fn a_line_between_blocks_mixes_none() {
    let memory = booted_with([0, 0], Some(Pfn::new(PAGES_PER_SECTION)));
    assert_valid(&memory);
    let state = |n| memory.section(section(n)).expect("present").state;
    assert_eq!([state(0), state(1)], [ZoneKind::Normal, ZoneKind::Movable].map(BlockState::Online));
}

#[test]
fn every_frame_is_served_by_its_own_zone_and_comes_back_to_it() {
    let memory = split();
    let before = Snapshot::of(&memory);
    for order in [Order::PAGE, Order::new(4).expect("kept"), Order::PAGEBLOCK, Order::MAX] {
        let kernel = take_all(&memory, &request(order, Mobility::Unmovable));
        assert!(kernel.iter().all(|pfn| *pfn < LINE));
        let movable = take_all(&memory, &request(order, Mobility::Movable));
        assert!(movable.iter().any(|pfn| *pfn >= LINE));
        assert_valid(&memory);
        kernel.into_iter().chain(movable).for_each(|pfn| memory.free(pfn, order));
        assert_valid(&memory);
        assert_eq!(Snapshot::of(&memory), before);
    }
}

#[test]
fn a_mixed_block_stays_as_it_is() {
    let memory = split();
    let before = Snapshot::of(&memory);
    let refused = memory.offline(&[blocks(1, 1)], &mut Unhurried).expect_err("it is in both zones");
    assert_eq!((refused, refused.errno()), (OfflineError::Mixed(section(1)), Errno::Invalid));
    for how in [OnlineAs::ByPolicy, OnlineAs::Zone(ZoneKind::Normal), OnlineAs::Zone(ZoneKind::Movable)] {
        let refused = memory.online(&[blocks(1, 1)], how, &mut Unhurried).expect_err("it is online");
        assert_eq!(refused, OnlineError::NotOffline { block: section(1), state: "online" });
    }
    let described = memory.section(section(1)).expect("present");
    let zones: Vec<_> = memory.zone_chooser(described).valid_zones(blocks(1, 1), described).collect();
    assert_eq!(zones, [(blocks(1, 1), [].as_slice())]);
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
}

#[test]
fn other_blocks_come_and_go_beside_a_mixed_one() {
    let memory = split();
    let before = Snapshot::of(&memory);
    let request = AddRequest { range: blocks(32, 33), node: node(0), name: dimm(0) };
    memory.add(&request, &mut Unhurried).expect("vacant");
    for kind in ZoneKind::ALL {
        memory.online(&[blocks(32, 33)], OnlineAs::Zone(kind), &mut Unhurried).expect("offline");
        assert_eq!(zone(&memory, kind).span.1, section(33));
        memory.online(&[blocks(33, 33)], OnlineAs::Zone(kind.other()), &mut Unhurried).expect("free");
        assert_valid(&memory);
        memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("free");
        assert_eq!(zone(&memory, kind).span.1, section(1));
    }
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(Snapshot::of(&memory), before);
    assert_valid(&memory);
}

#[test]
fn cpus_take_and_give_on_both_sides_of_the_line() {
    let memory = split();
    let before = Snapshot::of(&memory);
    let done = AtomicBool::new(false);
    let take_and_give = |cpu: usize| {
        CPU.set(cpu % CPUS);
        let mut dice = fastrand::Rng::with_seed(cpu as u64);
        let mut held = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let order = Order::new([0, 0, 3, 9, 10][dice.usize(..5)]).expect("kept");
            let mobility = Mobility::ALL[dice.usize(..2)];
            match memory.allocate(&request(order, mobility)) {
                Ok(head) if held.len() < 300 => held.push((head, order)),
                Ok(head) => memory.free(head, order),
                Err(_) => held.drain(..).for_each(|(head, order)| memory.free(head, order)),
            }
        }
        held.into_iter().for_each(|(head, order)| memory.free(head, order));
    };
    std::thread::scope(|scope| {
        for cpu in 0..3 {
            let take_and_give = &take_and_give;
            scope.spawn(move || take_and_give(cpu));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        done.store(true, Ordering::Relaxed);
    });
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}
