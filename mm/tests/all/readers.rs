//! Struct pages are looked at without a lock while their sections come and go.

use crate::machine::dimms::{MOVABLE, plug_online};
use crate::machine::taking::request;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, Pfn, SectionId, SectionRange};
use mm::alloc::request::Request;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::hotplug::AddRequest;
use mm::machine::Machine;
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const REQUEST: Request = request(Order::MAX, Mobility::Movable);

/// A machine with blocks in Movable, each of which has been used and is free.
fn used(range: SectionRange, memmap_on_memory: bool) -> Memory<Fake> {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
    plug_online(&memory, 0, range, 0, MOVABLE);
    use_all(&memory, range);
    memory
}

/// Opens every block of a range, and leaves it free.
fn use_all(memory: &Memory<Fake>, range: SectionRange) {
    let taken: Vec<Pfn> =
        range.iter().filter_map(|id| memory.allocate_within(&REQUEST, SectionRange::single(id)).ok()).collect();
    taken.into_iter().for_each(|head| memory.free(head, REQUEST.order));
    memory.drain_caches();
}

/// Does `change` while somebody looks at struct pages, and expects it to wait before it takes any away; the blocks that are
/// closed then.
fn closed_while_looked_at(memory: &Memory<Fake>, change: impl FnOnce() + Send) -> Vec<SectionId> {
    let machine = memory.machine();
    let waits = || machine.waits_for_readers.load(Ordering::Relaxed);
    let is_open = |id: &SectionId| memory.section(*id).is_some_and(|section| section.is_open());
    let before = waits();
    let reading = machine.reading();
    let open: Vec<_> = memory.blocks().map(|(id, _)| id).filter(is_open).collect();
    std::thread::scope(|scope| {
        let changing = scope.spawn(change);
        while waits() == before {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(!changing.is_finished());
        // Faults if there are none.
        open.iter().for_each(|id| assert!(machine.page(id.pages().start()).refs() < 2));
        let closed: Vec<_> = open.into_iter().filter(|id| !is_open(id)).collect();
        drop(reading);
        changing.join().expect("it goes on");
        assert!(waits() - before < closed.len() as u64, "it does not wait for each block anew");
        closed
    })
}

#[test]
fn offline_waits_for_those_who_look_at_struct_pages() {
    let memory = used(blocks(32, 35), true);
    let offline = || memory.offline(&[blocks(32, 35)], &mut Unhurried).expect("free");
    assert_eq!(closed_while_looked_at(&memory, offline).len(), 4);
    assert_valid(&memory);
}

#[test]
fn offline_waits_for_nobody_where_there_are_no_struct_pages() {
    let memory = used(blocks(32, 35), true);
    memory.offline(&[blocks(32, 35)], &mut Unhurried).expect("free");
    memory.online(&[blocks(32, 35)], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
    let _reading = memory.machine().reading();
    memory.offline(&[blocks(32, 35)], &mut Unhurried).expect("free");
}

#[test]
fn unplug_waits_for_those_who_look_at_struct_pages_in_system_memory() {
    let memory = used(blocks(32, 33), false);
    let unplug = || memory.unplug(&[dimm(0)], &[blocks(32, 33)], &mut Unhurried).expect("free");
    assert_eq!(closed_while_looked_at(&memory, unplug), [section(32), section(33)]);
    assert_valid(&memory);
}

#[test]
fn the_keeper_waits_for_those_who_look_at_struct_pages() {
    let memory = used(blocks(32, 39), true);
    assert_eq!(closed_while_looked_at(&memory, || memory.housekeep()).len(), 6);
    assert_valid(&memory);
}

#[test]
fn frames_are_reported_while_their_memory_comes_and_goes() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=2 {
            let (memory, done) = (&memory, &done);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !done.load(Ordering::Relaxed) {
                    let range = blocks(32, 35).pages();
                    let pfn = range.start().add(random.u64(..range.len()));
                    assert_eq!(memory.frame_report(pfn).pfn, pfn);
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                memory.housekeep();
            }
        });
        for round in 0..40 {
            memory.set_policy(|policy| policy.memmap_on_memory = round % 2 == 0);
            let (range, name) = (blocks(32, 35), dimm(0));
            memory.add(&AddRequest { range, node: node(0), name }, &mut Unhurried).expect("vacant");
            for _ in 0..3 {
                memory.online(&[range], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
                use_all(&memory, range);
                memory.offline(&[range], &mut Unhurried).expect("free");
            }
            memory.remove(&[name], &mut Unhurried).expect("offline");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}
