//! Memory that does not keep what is written to it: it is found out before anything is kept there, and nobody gets it.

use crate::machine::dimms::{MOVABLE, NORMAL, add, offline, online, plug};
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::poisoning::{assert_gone, frame, is_handed_out, poison};
use crate::machine::taking::take_all;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::errno::Errno;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{AddError, OfflineError};
use mm::inject::{Injected, Point};
use mm::machine::tasks::Unhurried;
use mm::machine::trial::{BadMemory, Distrust};
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

/// Eight sections, whose own tables are four: the last of them is written at once.
const RANGE: (u64, u64) = (32, 39);

fn range() -> SectionRange {
    blocks(RANGE.0, RANGE.1)
}

fn spoil(memory: &Memory<Fake>, pfn: Pfn) {
    memory.machine().bad.lock().unwrap().insert(pfn);
}

fn mend(memory: &Memory<Fake>) {
    memory.machine().bad.lock().unwrap().clear();
}

/// Where the struct pages of a block of that range begin.
fn memmap_start(block: u64) -> Pfn {
    frame(block, if block == RANGE.0 { 4 } else { 0 })
}

/// The blocks that were said to be withheld, and the frame that was to blame.
fn told(memory: &Memory<Fake>) -> Vec<(u32, Pfn)> {
    let withheld = memory.machine().withheld.lock().unwrap();
    let frame_of = |why: &Distrust| match why {
        Distrust::BadMemory(BadMemory(pfn)) => *pfn,
        Distrust::Injected(injected) => panic!("{injected}"),
    };
    withheld.iter().map(|(id, why)| (id.number(), frame_of(why))).collect()
}

fn is_withheld(memory: &Memory<Fake>, block: u64) -> bool {
    memory.section(section(block)).expect("present").is_withheld()
}

/// Takes every frame of node 1 that there is, and gives all of them back; in which blocks they were.
fn blocks_to_be_had(memory: &Memory<Fake>) -> Vec<u32> {
    let order = Order::MAX;
    let request = Request { owner: Owner::Selftest, place: Place::On(node(1)), ..movable(order) };
    let held = take_all(memory, &request);
    let mut blocks: Vec<u32> = held.iter().map(|head| head.section().number()).collect();
    blocks.dedup();
    held.into_iter().for_each(|head| memory.free(head, order));
    memory.drain_caches();
    blocks
}

#[test]
fn memory_that_keeps_nothing_is_refused_and_leaves_no_trace() {
    // The first frame behind the tables, the first of all where they lie elsewhere, and a table that is written at once.
    for (bad, memmap_on_memory) in [(frame(32, 4), true), (frame(32, 0), false), (frame(32, 3), true)] {
        let memory = booted();
        memory.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
        let before = Snapshot::of(&memory);
        spoil(&memory, bad);
        let refused = add(&memory, 0, range(), 1).expect_err("bad memory");
        assert_eq!((refused, refused.errno()), (AddError::BadMemory(BadMemory(bad)), Errno::Io));
        assert_eq!(refused.to_string(), format!("the memory at {bad} does not keep what is written to it"));
        assert_eq!(Snapshot::of(&memory), before);
        assert_valid(&memory);
        mend(&memory);
        add(&memory, 0, range(), 1).expect("good memory");
        assert_valid(&memory);
    }
}

#[test]
fn a_range_of_several_parts_is_tried_in_each_of_them() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    let bad = frame(48, 4);
    spoil(&memory, bad);
    assert_eq!(add(&memory, 0, blocks(24, 55), 1), Err(AddError::BadMemory(BadMemory(bad))));
    assert_eq!(Snapshot::of(&memory), before);
    assert_eq!(add(&memory, 0, blocks(24, 47), 1), Ok(()));
}

#[test]
fn what_is_not_trusted_with_anything_yet_is_not_touched() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    let tried = || memory.machine().tried.lock().unwrap().iter().copied().collect::<Vec<_>>();
    assert_eq!(tried(), [frame(32, 3), frame(32, 4)], "the one table that is written, and the first frame behind them");
    online(&memory, range(), MOVABLE);
    offline(&memory, range());
    online(&memory, range(), NORMAL);
    assert_eq!(tried().len(), 2);
    memory.allocate_within(&movable(Order::PAGE), blocks(35, 35)).expect("free");
    let memmap = memmap_start(35).number()..memmap_start(35).number() + MEMMAP_PAGES;
    let table = frame(32, 1);
    let expected = [table, frame(32, 3), frame(32, 4)].into_iter().chain(memmap.map(Pfn::new));
    assert_eq!(tried(), expected.collect::<Vec<_>>(), "all that holds struct pages of the block, and their table");
}

#[test]
fn a_section_whose_struct_pages_have_no_good_memory_is_withheld_and_memory_comes_from_the_next() {
    for bad in [memmap_start(33), memmap_start(33).add(MEMMAP_PAGES - 1)] {
        let memory = booted();
        let boot = memory.memory_report();
        plug(&memory, 0, range(), 1);
        online(&memory, range(), MOVABLE);
        let total = memory.memory_report().total;
        spoil(&memory, bad);
        assert_eq!(blocks_to_be_had(&memory), [32, 34, 35, 36, 37, 38, 39]);
        assert_eq!(told(&memory), [(33, bad)]);
        assert_valid(&memory);
        let report = memory.memory_report();
        let lost = (section(33).pages().len() - MEMMAP_PAGES) * PAGE_SIZE;
        assert_eq!((report.withheld, report.total), (lost, total - lost));
        assert_eq!(report.free - boot.free, report.total - boot.total, "the rest is free");
        assert_eq!(memory.frame_report(frame(33, 9000)).state, FrameState::Withheld);
        assert_eq!(memory.frame_report(frame(33, 9)).state, FrameState::Memmap);
        assert_eq!(poison(&memory, frame(33, 9000)), Err(PoisonError::Withheld(frame(33, 9000))));
    }
}

#[test]
fn a_withheld_section_stays_withheld_until_it_is_removed() {
    let memory = booted();
    let before = memory.memory_report();
    plug(&memory, 0, range(), 1);
    online(&memory, range(), MOVABLE);
    spoil(&memory, memmap_start(33));
    assert!(!is_handed_out(&memory, blocks(33, 33), frame(33, 9000)));
    // Whatever it would say now.
    mend(&memory);
    for how in [NORMAL, MOVABLE] {
        // From zone to zone, and by way of being offline.
        online(&memory, range(), how);
        assert!(!is_handed_out(&memory, range(), frame(33, 9000)) && is_withheld(&memory, 33));
        assert_valid(&memory);
        memory.failure_points().arm(Point::OfflineEvacuate, Errno::Io, 1);
        memory.offline(&[range()], &mut Unhurried).expect_err("armed");
        assert_valid(&memory);
        offline(&memory, range());
        assert_eq!(poison(&memory, frame(33, 9000)), Err(PoisonError::Withheld(frame(33, 9000))));
        assert_valid(&memory);
        memory.failure_points().arm(Point::OnlinePrepare, Errno::Io, 1);
        memory.online(&[range()], how, &mut Unhurried).expect_err("armed");
        online(&memory, range(), how);
        assert!(!is_handed_out(&memory, range(), frame(33, 9000)) && is_withheld(&memory, 33));
        assert_valid(&memory);
    }
    assert_eq!(told(&memory).len(), 1, "it is told once");
    memory.unplug(&[dimm(0)], &[range()], &mut Unhurried).expect("free");
    assert_eq!(memory.memory_report(), before);

    // What comes to the same place next is other hardware.
    plug(&memory, 0, range(), 1);
    online(&memory, range(), MOVABLE);
    assert!(is_handed_out(&memory, blocks(33, 33), frame(33, 9000)));
}

#[test]
fn sections_whose_page_table_has_no_good_memory_are_withheld_together() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    online(&memory, range(), MOVABLE);
    let table = frame(32, 1);
    spoil(&memory, table);
    assert_eq!(blocks_to_be_had(&memory), [32, 33, 36, 37, 38, 39]);
    assert_eq!(told(&memory), [(34, table), (35, table)]);
    assert_valid(&memory);
    offline(&memory, range());
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(Snapshot::of(&memory), Snapshot::of(&booted()));
}

#[test]
fn the_kernel_opens_another_section_when_one_is_withheld_ahead_of_need() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    online(&memory, range(), NORMAL);
    [32, 33].into_iter().for_each(|block| spoil(&memory, memmap_start(block)));
    let request = Request { urgency: Urgency::Hotplug, ..Request::kernel(Owner::Selftest) };
    while memory.allocate(&request).is_ok() {}
    for _ in 0..3 {
        memory.housekeep();
    }
    assert_eq!(told(&memory), [(32, memmap_start(32)), (33, memmap_start(33))]);
    assert_eq!(memory.allocate(&request).expect("the keeper opened one").section(), section(34));
    assert_valid(&memory);
}

#[test]
fn a_run_is_taken_from_the_next_section_when_one_is_withheld() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    online(&memory, range(), MOVABLE);
    [32, 33].into_iter().for_each(|block| spoil(&memory, memmap_start(block)));
    let request = Request { place: Place::On(node(1)), ..movable(Order::PAGEBLOCK) };
    let run = memory.allocate_run(60, &request).expect("there are others in a row");
    assert_eq!(run.start().section(), section(34));
    assert_eq!(told(&memory).len(), 2);
    memory.free_run(run);
    assert_valid(&memory);
}

#[test]
fn an_offline_whose_destination_turns_out_bad_leaves_everything_where_it_was() {
    let memory = booted_with_holders();
    plug(&memory, 0, blocks(32, 33), 1);
    online(&memory, blocks(32, 33), MOVABLE);
    let mut holders: Vec<_> = (0..60).map(|_| hold_in(&memory, Order::PAGEBLOCK, blocks(32, 32))).collect();
    // There is place in block 33 alone.
    while memory.allocate(&Request::kernel(Owner::Selftest)).is_ok() {}
    let before = all_places(&memory);
    spoil(&memory, memmap_start(33).add(1));
    let refused = memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("there is no place");
    assert!(matches!(refused, OfflineError::NoDestination { .. }), "{refused:?}");
    assert_eq!(all_places(&memory), before);
    assert_eq!(memory.section(section(32)).expect("present").state, BlockState::Online(ZoneKind::Movable));
    assert!(is_withheld(&memory, 33));
    assert_valid(&memory);
    let last = hold(&memory, &movable(Order::PAGE)).expect("block 32 is in use as before");
    assert_eq!(place_of(&memory, last).expect("held").0.section(), section(32));
    holders.push(last);
    holders.into_iter().for_each(|holder| release(&memory, holder));
    offline(&memory, blocks(32, 33));
    assert_valid(&memory);
}

#[test]
fn a_section_that_cannot_keep_an_error_in_its_struct_pages_is_withheld() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    spoil(&memory, memmap_start(33));
    spoil(&memory, memmap_start(34));
    online(&memory, blocks(33, 33), MOVABLE);
    for block in [33, 34] {
        let bad = frame(block, 9000);
        assert_eq!(memory.poison(bad, &mut Unhurried), Err(PoisonError::Withheld(bad)));
        assert!(is_withheld(&memory, block));
        assert_valid(&memory);
    }
    let report = memory.memory_report();
    let usable = section(33).pages().len() - MEMMAP_PAGES;
    assert_eq!((report.poisoned, report.withheld), (0, 2 * usable * PAGE_SIZE));
    offline(&memory, blocks(33, 33));
    online(&memory, range(), NORMAL);
    assert!(is_withheld(&memory, 33) && is_withheld(&memory, 34));
    assert_valid(&memory);
}

#[test]
fn an_error_is_remembered_though_the_memory_that_remembers_it_goes_bad() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    online(&memory, range(), MOVABLE);
    let bad = frame(33, 9000);
    poison(&memory, bad).expect("untouched");
    spoil(&memory, memmap_start(33));
    assert_gone(&memory, bad);
    offline(&memory, range());
    online(&memory, range(), NORMAL);
    assert!(!is_withheld(&memory, 33));
    assert_gone(&memory, bad);
    assert_valid(&memory);
}

#[test]
fn takers_at_once_go_round_what_is_withheld() {
    let memory = booted();
    plug(&memory, 0, range(), 1);
    online(&memory, range(), MOVABLE);
    [33, 35, 36].into_iter().for_each(|block| spoil(&memory, memmap_start(block)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let request = Request { owner: Owner::Selftest, ..movable(Order::PAGEBLOCK) };
                let held = take_all(&memory, &request);
                held.into_iter().for_each(|head| memory.free(head, Order::PAGEBLOCK));
            });
        }
    });
    let mut blocks: Vec<u32> = told(&memory).into_iter().map(|(block, _)| block).collect();
    blocks.sort_unstable();
    assert_eq!(blocks, [33, 35, 36]);
    assert_valid(&memory);
}

#[test]
fn an_opening_that_is_made_to_fail_withholds_the_section_wherever_its_struct_pages_lie() {
    for memmap_on_memory in [true, false] {
        let memory = booted();
        memory.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
        plug(&memory, 0, blocks(32, 33), 1);
        online(&memory, blocks(32, 33), MOVABLE);
        memory.failure_points().arm(Point::AllocOpen, Errno::Io, 1);
        assert_eq!(blocks_to_be_had(&memory), [33]);
        let why = Distrust::Injected(Injected { point: Point::AllocOpen, errno: Errno::Io });
        assert_eq!(*memory.machine().withheld.lock().unwrap(), [(section(32), why)]);
        assert_valid(&memory);
        offline(&memory, blocks(32, 33));
        memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
        assert_eq!(Snapshot::of(&memory), Snapshot::of(&booted()));
    }
}
