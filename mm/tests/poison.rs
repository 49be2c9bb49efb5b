//! Poisoned frames: nobody gets them any more, whatever becomes of their block.

#[path = "machine/holding.rs"]
mod holding;
mod machine;

use holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange, SectionRange};
use mm::alloc::Request;
use mm::errno::Errno;
use mm::hotplug::AddRequest;
use mm::inject::Point;
use mm::machine::{MEMMAP_PAGES, Memmap, Unhurried};
use mm::notifier::{Accept, Change, MemoryListener, Name};
use mm::page::Owner;
use mm::poison::{POISON_LIMIT, PoisonError};
use mm::policy::OnlineAs;
use mm::report::FrameState;
use mm::section::ZoneKind;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

const MOVABLE: OnlineAs = OnlineAs::Zone(ZoneKind::Movable);
const NORMAL: OnlineAs = OnlineAs::Zone(ZoneKind::Normal);

fn plug(memory: &Memory<Fake>, number: u16, range: SectionRange) {
    memory.add(&AddRequest { range, node: node(1), name: dimm(number) }, &mut Unhurried).expect("vacant");
}

fn online(memory: &Memory<Fake>, range: SectionRange, how: OnlineAs) {
    memory.online(&[range], how, &mut Unhurried).expect("offline");
}

fn offline(memory: &Memory<Fake>, range: SectionRange) {
    memory.offline(&[range], &mut Unhurried).expect("all of it is free or can move");
}

fn poison(memory: &Memory<Fake>, pfn: Pfn) -> Result<(), PoisonError> {
    memory.poison(pfn, &mut Unhurried)
}

fn frame(block: u64, n: u64) -> Pfn {
    section(block).pages().start().add(n)
}

/// Takes all that `range` has, of ever smaller orders, and says whether `pfn` was part of it.
fn is_handed_out(memory: &Memory<Fake>, range: SectionRange, pfn: Pfn) -> bool {
    let mut taken = Vec::new();
    for order in Order::all().rev() {
        let request = Request { owner: Owner::Selftest, ..movable(order) };
        taken.extend(std::iter::from_fn(|| memory.allocate_within(&request, range).ok()).map(|head| (head, order)));
    }
    let is_in = taken.iter().any(|(head, order)| PfnRange::new(*head, order.pages()).contains(pfn));
    taken.into_iter().for_each(|(head, order)| memory.free(head, order));
    is_in
}

#[track_caller]
fn assert_gone(memory: &Memory<Fake>, pfn: Pfn) {
    assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned);
    assert!(!is_handed_out(memory, SectionRange::single(pfn.section()), pfn));
    assert_valid(memory);
}

#[test]
fn a_poisoned_frame_survives_every_way_its_block_can_go() {
    let memory = booted();
    let before = memory.memory_report();
    plug(&memory, 0, blocks(32, 33));
    let pfn = frame(32, 700);
    poison(&memory, pfn).expect("its block is offline");
    assert_eq!(memory.memory_report().poisoned, PAGE_SIZE);
    assert_eq!(memory.memory_report().total, before.total);
    for how in [MOVABLE, NORMAL, MOVABLE] {
        assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned);
        online(&memory, blocks(32, 33), how);
        let managed = 2 * (section(32).pages().len() - MEMMAP_PAGES) - 1 - 1;
        assert_eq!(memory.memory_report().total - before.total, managed * PAGE_SIZE, "one table, one poisoned frame");
        assert_gone(&memory, pfn);
        offline(&memory, blocks(32, 33));
        assert_valid(&memory);
    }
    assert_eq!(memory.memory_report().poisoned, PAGE_SIZE);
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_eq!(memory.memory_report(), before);

    // What comes to the same place next is other hardware.
    plug(&memory, 0, blocks(32, 33));
    online(&memory, blocks(32, 33), MOVABLE);
    assert_eq!(memory.frame_report(pfn).state, FrameState::Untouched);
    assert!(is_handed_out(&memory, blocks(32, 32), pfn));
}

#[test]
fn free_frames_are_set_aside_wherever_they_lie() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 33));
    online(&memory, blocks(32, 33), MOVABLE);
    let untouched = frame(32, 512);
    poison(&memory, untouched).expect("free");
    assert!(memory.section(section(32)).expect("present").is_untouched(), "there was no need to open it");
    assert_gone(&memory, untouched);

    // The block is open now: as a part of a whole pageblock, in a cache, alone in its pageblock.
    let request = Request { owner: Owner::Selftest, ..movable(Order::PAGE) };
    let cached = memory.allocate_within(&request, blocks(32, 32)).expect("free");
    memory.free(cached, Order::PAGE);
    for pfn in [frame(32, 20_000), frame(32, 20_511), cached, frame(32, 32_767), frame(0, 0), frame(1, 159)] {
        poison(&memory, pfn).expect("free");
        assert_gone(&memory, pfn);
    }
    assert_eq!(memory.memory_report().poisoned, 7 * PAGE_SIZE);
    // In a pageblock whose other frames are all taken, and in one of which nothing is left.
    let all: Vec<_> = std::iter::from_fn(|| memory.allocate_within(&request, blocks(33, 33)).ok()).collect();
    for pfn in section(33).pages().iter().skip(512).take(100) {
        memory.free(pfn, Order::PAGE);
        memory.drain_caches();
        poison(&memory, pfn).expect("free");
    }
    assert_valid(&memory);
    all.into_iter()
        .filter(|pfn| !(512..612).contains(&pfn.index_in_section()))
        .for_each(|pfn| memory.free(pfn, Order::PAGE));
    assert_valid(&memory);
    offline(&memory, blocks(32, 33));
    assert_eq!(memory.memory_report().poisoned, 107 * PAGE_SIZE);
}

#[test]
fn a_block_with_poisoned_frames_can_be_closed_and_opened() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 47));
    online(&memory, blocks(32, 47), MOVABLE);
    let pfn = frame(40, 30_000);
    poison(&memory, pfn).expect("free");
    for id in 32..=47 {
        let request = Request { owner: Owner::Selftest, ..movable(Order::PAGEBLOCK) };
        let head = memory.allocate_within(&request, blocks(id, id)).expect("free");
        memory.free(head, Order::PAGEBLOCK);
        memory.drain_caches();
    }
    memory.keep();
    let closed = memory.blocks().filter(|(_, section)| section.is_untouched()).count();
    assert!(closed >= 12, "{closed} are closed");
    assert_gone(&memory, pfn);
}

#[test]
fn boot_blocks_keep_their_poisoned_frames() {
    let memory = booted();
    let (early, late) = (frame(1, 20), frame(1, 21));
    poison(&memory, early).expect("free");
    offline(&memory, blocks(1, 1));
    poison(&memory, late).expect("offline");
    for pfn in [early, late] {
        assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned);
        assert_eq!(poison(&memory, pfn), Err(PoisonError::Already(pfn)));
    }
    let refused = [poison(&memory, frame(1, 200)), poison(&memory, frame(1, 4096))];
    let memmap = PoisonError::Held { pfn: frame(1, 4096), owner: Owner::Memmap };
    assert_eq!(refused, [Err(PoisonError::Absent(frame(1, 200))), Err(memmap)]);
    online(&memory, blocks(1, 1), NORMAL);
    assert_gone(&memory, early);
    assert_gone(&memory, late);
}

#[test]
fn what_a_frame_holds_moves_first() {
    for with_split in [false, true] {
        let memory = if with_split { booted_with_holders() } else { std::sync::Arc::new(booted()) };
        plug(&memory, 0, blocks(32, 33));
        online(&memory, blocks(32, 33), MOVABLE);
        for order in [Order::PAGE, Order::new(3).expect("in range"), Order::PAGEBLOCK, Order::MAX] {
            let holder = hold_in(&memory, order, blocks(32, 32));
            let (head, _) = place_of(&memory, holder).expect("held");
            let bad = head.add(order.pages() - 1);
            poison(&memory, bad).expect("it can move");
            assert_eq!(memory.frame_report(bad).state, FrameState::Poisoned);
            assert_valid(&memory);
            let held: u64 = all_places(&memory).iter().map(|(_, _, order)| order.pages()).sum();
            assert_eq!(held, order.pages(), "nothing is lost");
            if with_split && order == Order::PAGEBLOCK {
                let stayed = all_places(&memory)
                    .iter()
                    .filter(|(_, pfn, _)| (head.number()..bad.number()).contains(&pfn.number()))
                    .count();
                assert_eq!(stayed as u64, order.pages() - 1, "one frame of the large page moves");
            }
            all_places(&memory).into_iter().for_each(|(holder, _, _)| release(&memory, holder));
            assert_gone(&memory, bad);
        }
        offline(&memory, blocks(32, 33));
        assert_valid(&memory);
    }
}

#[test]
fn a_refusal_changes_nothing() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32));
    online(&memory, blocks(32, 32), NORMAL);
    let unlucky = hold_in(&memory, Order::PAGE, blocks(32, 32));
    let (unlucky, _) = place_of(&memory, unlucky).expect("held");
    poison(&memory, frame(32, 9000)).expect("free");
    let before = Snapshot::of(&memory);
    let held = |pfn, owner| PoisonError::Held { pfn, owner };
    for (pfn, error, errno) in [
        (frame(0, 256), held(frame(0, 256), Owner::KernelImage), Errno::Busy),
        (frame(0, 4096), held(frame(0, 4096), Owner::Memmap), Errno::Busy),
        (frame(32, 1), held(frame(32, 1), Owner::Memmap), Errno::Busy),
        (frame(0, 200), PoisonError::Absent(frame(0, 200)), Errno::NoDevice),
        (frame(20, 0), PoisonError::Absent(frame(20, 0)), Errno::NoDevice),
        (frame(600, 0), PoisonError::Absent(frame(600, 0)), Errno::NoDevice),
        (frame(32, 9000), PoisonError::Already(frame(32, 9000)), Errno::Exists),
    ] {
        assert_eq!(poison(&memory, pfn), Err(error));
        assert_eq!(error.errno(), errno, "{error}");
        assert_eq!(Snapshot::of(&memory), before);
    }
    memory.arm(Point::MigrateDestination, Errno::NoMemory, 1);
    assert_eq!(poison(&memory, unlucky).map_err(PoisonError::errno), Err(Errno::NoMemory));
    memory.machine().holders.in_flight_every.store(1, Ordering::Relaxed);
    assert_eq!(poison(&memory, unlucky), Err(PoisonError::InFlight(unlucky)));
    assert_eq!(Snapshot::of(&memory), before);
    memory.machine().holders.in_flight_every.store(2, Ordering::Relaxed);
    poison(&memory, unlucky).expect("the second time it can move");
    assert_valid(&memory);
}

/// A block of kernel memory in block 32.
fn kernel_block(memory: &Memory<Fake>, order: Order) -> Pfn {
    let request = Request { order, ..Request::kernel(Owner::Kfill) };
    memory.allocate_within(&request, blocks(32, 32)).expect("free")
}

#[track_caller]
fn assert_bad(memory: &Memory<Fake>, poisoned: u64, faulty: u64) {
    let report = memory.memory_report();
    assert_eq!((report.poisoned, report.faulty), (poisoned * PAGE_SIZE, faulty * PAGE_SIZE));
    assert_valid(memory);
}

#[test]
fn what_the_kernel_holds_goes_out_of_use_when_it_is_given_back() {
    for order in [Order::PAGE, Order::new(3).expect("in range"), Order::PAGEBLOCK, Order::MAX] {
        let memory = booted();
        plug(&memory, 0, blocks(32, 32));
        online(&memory, blocks(32, 32), NORMAL);
        let head = kernel_block(&memory, order);
        let bad = BTreeSet::from([head, head.add(order.pages() - 1)]);
        let before = Snapshot::of(&memory);
        let recorded = |pfn: Pfn| (memory.frame_report(pfn).site, memory.frame_report(pfn).since_ns);
        let (site, since) = recorded(head);
        assert!(site.is_some() && since.is_some());
        for pfn in bad.iter().chain(&bad) {
            let used = PoisonError::Used { pfn: *pfn, owner: Owner::Kfill };
            assert_eq!((poison(&memory, *pfn), used.errno()), (Err(used), Errno::Busy));
            assert_eq!(memory.frame_report(*pfn).state, FrameState::Allocated);
            assert_eq!(recorded(*pfn), (site, since));
        }
        assert_eq!(Snapshot::of(&memory), before, "it is held as before");
        let count = bad.len() as u64;
        assert_bad(&memory, 0, count);
        memory.offline(&[blocks(32, 32)], &mut Unhurried).expect_err("the kernel holds it");
        memory.keep();
        assert_bad(&memory, 0, count);

        let calls = memory.machine().keeper_calls.load(Ordering::Relaxed);
        memory.free(head, order);
        assert!(memory.machine().keeper_calls.load(Ordering::Relaxed) > calls, "somebody has to take it");
        for pfn in &bad {
            assert!(!is_handed_out(&memory, blocks(32, 32), *pfn));
        }
        memory.keep();
        assert_bad(&memory, count, 0);
        bad.iter().for_each(|pfn| assert_gone(&memory, *pfn));
        offline(&memory, blocks(32, 32));
        online(&memory, blocks(32, 32), MOVABLE);
        bad.iter().for_each(|pfn| assert_gone(&memory, *pfn));
    }
}

#[test]
fn a_block_goes_offline_although_nobody_has_looked_after_what_was_given_back() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32));
    online(&memory, blocks(32, 32), NORMAL);
    let bad = kernel_block(&memory, Order::PAGE);
    poison(&memory, bad).expect_err("the kernel holds it");
    memory.free(bad, Order::PAGE);
    offline(&memory, blocks(32, 32));
    assert_bad(&memory, 1, 0);
    memory.remove(&[dimm(0)], &mut Unhurried).expect("offline");
    assert_bad(&memory, 0, 0);
}

#[test]
fn what_is_pinned_goes_out_of_use_when_that_ends() {
    type End = fn(&Memory<Fake>, Pfn);
    let ends: [End; 4] = [
        |memory, _| memory.keep(),
        |memory, _| offline(memory, blocks(32, 32)),
        |memory, _| online(memory, blocks(32, 32), NORMAL),
        |memory, pfn| poison(memory, pfn).expect("it can move"),
    ];
    for (end, order) in ends.into_iter().flat_map(|end| [Order::PAGE, Order::PAGEBLOCK].map(|order| (end, order))) {
        let memory = booted_with_holders();
        plug(&memory, 0, blocks(32, 32));
        online(&memory, blocks(32, 32), MOVABLE);
        hold_in(&memory, order, blocks(32, 32));
        let (_, head, _) = all_places(&memory)[0];
        let bad = head.add(order.pages() - 1);
        assert!(memory.machine().page(head).pin());
        assert_eq!(poison(&memory, bad), Err(PoisonError::Pinned(bad)));
        memory.keep();
        assert_bad(&memory, 0, 1);
        memory.machine().page(head).unpin();
        end(&memory, bad);
        assert_bad(&memory, 1, 0);
        assert_eq!(memory.frame_report(bad).state, FrameState::Poisoned);
        let held: u64 = all_places(&memory).iter().map(|(_, _, order)| order.pages()).sum();
        assert_eq!(held, order.pages(), "nothing is lost");
    }
}

#[test]
fn what_has_an_error_is_not_simply_moved_away() {
    let memory = booted_with_holders();
    plug(&memory, 0, blocks(32, 33));
    online(&memory, blocks(32, 33), MOVABLE);
    hold_in(&memory, Order::PAGE, blocks(32, 32));
    let (_, bad, _) = all_places(&memory)[0];
    assert!(memory.machine().page(bad).pin());
    assert_eq!(poison(&memory, bad), Err(PoisonError::Pinned(bad)));
    memory.machine().page(bad).unpin();
    // Before its block is isolated, and the first time after that, the offline cannot poison it.
    memory.arm(Point::MigrateDestination, Errno::NoMemory, 2);
    offline(&memory, blocks(32, 32));
    assert_bad(&memory, 1, 0);
    online(&memory, blocks(32, 32), NORMAL);
    assert_gone(&memory, bad);
}

/// Gives memory back when it is asked whether a block may go.
struct Giver {
    memory: &'static Memory<Fake>,
    held: (Pfn, Order),
    answer: Accept,
}

impl MemoryListener for Giver {
    fn prepare(&self, _: &Change) -> Accept {
        self.memory.free(self.held.0, self.held.1);
        self.answer
    }

    fn committed(&self, _: &Change) {}

    fn cancelled(&self, _: &Change) {}
}

#[test]
fn what_is_given_back_while_its_block_goes_is_poisoned_too() {
    for order in [Order::PAGE, Order::PAGEBLOCK, Order::MAX] {
        for (answer, fails_later) in [(Accept::Yes, false), (Accept::Yes, true), (Accept::No, false)] {
            let memory: &'static _ = Box::leak(Box::new(booted()));
            plug(memory, 0, blocks(32, 32));
            online(memory, blocks(32, 32), MOVABLE);
            let request = Request { owner: Owner::Selftest, ..movable(order) };
            let head = memory.allocate_within(&request, blocks(32, 32)).expect("free");
            hold_in(memory, Order::PAGE, blocks(32, 32));
            let bad = BTreeSet::from([head, head.add(order.pages() - 1)]);
            for pfn in &bad {
                assert_eq!(poison(memory, *pfn), Err(PoisonError::Used { pfn: *pfn, owner: Owner::Selftest }));
            }
            if fails_later {
                memory.arm(Point::MigrateDestination, Errno::NoMemory, 1);
            }
            let giver: &'static _ = Box::leak(Box::new(Giver { memory, held: (head, order), answer }));
            memory.register_listener(Name::new("giver").expect("valid"), 0, giver).expect("room");
            let result = memory.offline(&[blocks(32, 32)], &mut Unhurried);
            assert_eq!(result.is_ok(), answer == Accept::Yes && !fails_later, "{result:?}");
            if answer == Accept::No {
                memory.keep();
            }
            assert_bad(memory, bad.len() as u64, 0);
            assert!(bad.iter().all(|pfn| memory.frame_report(*pfn).state == FrameState::Poisoned));
        }
    }
}

#[test]
fn the_parts_of_a_large_page_with_an_error_are_told_apart() {
    let memory = booted_with_holders();
    plug(&memory, 0, blocks(32, 32));
    online(&memory, blocks(32, 32), MOVABLE);
    let head = memory.allocate_within(&movable(Order::PAGEBLOCK), blocks(32, 32)).expect("free");
    let bad = head.add(77);
    assert!(memory.machine().page(head).pin());
    assert_eq!(poison(&memory, bad), Err(PoisonError::Pinned(bad)));
    memory.split_block(head);
    assert_bad(&memory, 0, 1);
    for pfn in PfnRange::new(head, Order::PAGEBLOCK.pages()).iter() {
        memory.free(pfn, Order::PAGE);
    }
    memory.keep();
    assert_bad(&memory, 1, 0);
    assert_gone(&memory, bad);
}

#[test]
fn whoever_is_just_giving_memory_back_gives_back_no_error() {
    const WANTED: usize = 100;
    let memory = booted();
    plug(&memory, 0, blocks(32, 32));
    online(&memory, blocks(32, 32), NORMAL);
    let request = Request::kernel(Owner::Kfill);
    let mut bad = BTreeSet::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let take = |_| memory.allocate_within(&request, blocks(32, 32)).expect("there is room");
            while !is_over.load(Ordering::Relaxed) {
                let taken: Vec<_> = (0..8).map(take).collect();
                taken.into_iter().for_each(|pfn| memory.free(pfn, Order::PAGE));
            }
        });
        let mut next = frame(32, 0);
        while bad.len() < WANTED {
            // Where the others are just now: the lowest frames that are in use or in a cache.
            next = if next.index_in_section() > 6000 { frame(32, 4096) } else { next.add(1) };
            let error = poison(&memory, next).err();
            if matches!(error, None | Some(PoisonError::Used { .. })) {
                bad.insert(next);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    memory.keep();
    assert_bad(&memory, bad.len() as u64, 0);
    bad.into_iter().for_each(|pfn| assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned));
}

#[test]
fn there_is_an_end_to_what_can_be_remembered() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32));
    for n in 0..POISON_LIMIT as u64 {
        poison(&memory, frame(32, 1000 + n)).expect("there is room");
    }
    assert_eq!(poison(&memory, frame(32, 5000)), Err(PoisonError::Full));
    online(&memory, blocks(32, 32), MOVABLE);
    assert_gone(&memory, frame(32, 1000));
    assert_eq!(memory.memory_report().poisoned, POISON_LIMIT as u64 * PAGE_SIZE);
}

#[test]
fn what_is_still_held_has_its_place_among_what_is_remembered() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32));
    online(&memory, blocks(32, 32), NORMAL);
    let (first, second) = (kernel_block(&memory, Order::PAGE), kernel_block(&memory, Order::PAGE));
    poison(&memory, first).expect_err("the kernel holds it");
    for n in 1..POISON_LIMIT as u64 {
        poison(&memory, frame(32, 10_000 + n)).expect("there is room");
    }
    assert_eq!(poison(&memory, frame(32, 9000)), Err(PoisonError::Full));
    assert_eq!(poison(&memory, second), Err(PoisonError::Full));
    assert_eq!(poison(&memory, first).map_err(PoisonError::errno), Err(Errno::Busy));
    memory.free(first, Order::PAGE);
    memory.free(second, Order::PAGE);
    memory.keep();
    assert_bad(&memory, POISON_LIMIT as u64, 0);
    assert!(is_handed_out(&memory, blocks(32, 32), second));
}

/// One step of a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hold(u8),
    Release(usize),
    Poison(u64, u64),
    /// Where somebody is.
    PoisonHeld(usize, u64),
    /// Where somebody is who cannot go.
    PoisonPinned(usize, u64),
    Take(u8),
    Give(usize),
    PoisonTaken(usize, u64),
    Online(u64, OnlineAs),
    Offline(u64),
    Replace,
    Keep,
}

fn step() -> impl Strategy<Value = Step> {
    let block = prop_oneof![0u64..2, 32u64..34];
    prop_oneof![
        6 => prop_oneof![3 => Just(0u8), 1 => 1u8..=10].prop_map(Step::Hold),
        4 => any::<usize>().prop_map(Step::Release),
        2 => (block.clone(), 0u64..32_768).prop_map(|(block, n)| Step::Poison(block, n)),
        3 => (any::<usize>(), 0u64..1024).prop_map(|(who, n)| Step::PoisonHeld(who, n)),
        2 => (any::<usize>(), 0u64..1024).prop_map(|(who, n)| Step::PoisonPinned(who, n)),
        2 => (0u8..=10).prop_map(Step::Take),
        2 => any::<usize>().prop_map(Step::Give),
        2 => (any::<usize>(), 0u64..1024).prop_map(|(who, n)| Step::PoisonTaken(who, n)),
        2 => (block.clone(), prop_oneof![Just(MOVABLE), Just(NORMAL)]).prop_map(|(block, how)| Step::Online(block, how)),
        2 => block.prop_map(Step::Offline),
        1 => Just(Step::Replace),
        1 => Just(Step::Keep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_ever_gets_a_frame_with_an_error(steps in prop::collection::vec(step(), 1..60)) {
        let memory = &*booted_with_holders();
        plug(memory, 0, blocks(32, 33));
        let mut bad = BTreeSet::new();
        // Those of them that somebody held then.
        let mut faulty = BTreeSet::new();
        let mut taken: Vec<(Pfn, Order)> = Vec::new();
        for step in steps {
            match step {
                Step::Hold(order) => {
                    let held = hold(memory, &movable(Order::new(order).expect("in range")));
                    if let Some((head, order)) = held.ok().and_then(|holder| place_of(memory, holder)) {
                        prop_assert_eq!(bad.range(head..head.add(order.pages())).next(), None);
                    }
                }
                Step::Take(order) => {
                    let order = Order::new(order).expect("in range");
                    if let Ok(head) = memory.allocate(&Request { order, ..Request::kernel(Owner::Kfill) }) {
                        prop_assert_eq!(bad.range(head..head.add(order.pages())).next(), None);
                        taken.push((head, order));
                    }
                }
                Step::Give(n) => {
                    if !taken.is_empty() {
                        let (head, order) = taken.swap_remove(n % taken.len());
                        memory.free(head, order);
                    }
                }
                Step::PoisonTaken(n, part) => {
                    if !taken.is_empty() {
                        let (head, order) = taken[n % taken.len()];
                        let pfn = head.add(part % order.pages());
                        match poison(memory, pfn) {
                            Err(PoisonError::Used { owner: Owner::Kfill, .. }) => { bad.insert(pfn); faulty.insert(pfn); }
                            other => prop_assert_eq!(other, Err(PoisonError::Full)),
                        }
                    }
                }
                Step::PoisonPinned(who, n) => {
                    let places = all_places(memory);
                    if !places.is_empty() {
                        let (_, head, order) = places[who % places.len()];
                        let pfn = head.add(n % order.pages());
                        prop_assert!(memory.machine().page(head).pin());
                        prop_assert_eq!(poison(memory, pfn), Err(PoisonError::Pinned(pfn)));
                        memory.machine().page(head).unpin();
                        bad.insert(pfn);
                        faulty.insert(pfn);
                    }
                }
                Step::Release(n) => {
                    let places = all_places(memory);
                    if !places.is_empty() {
                        release(memory, places[n % places.len()].0);
                    }
                }
                Step::Poison(block, n) => {
                    match poison(memory, frame(block, n)) {
                        Ok(()) => { bad.insert(frame(block, n)); }
                        Err(PoisonError::Used { pfn, .. }) => { bad.insert(pfn); faulty.insert(pfn); }
                        Err(_) => {}
                    }
                }
                Step::PoisonHeld(who, n) => {
                    let places = all_places(memory);
                    if !places.is_empty() {
                        let (_, head, order) = places[who % places.len()];
                        let pfn = head.add(n % order.pages());
                        if poison(memory, pfn).is_ok() {
                            bad.insert(pfn);
                        }
                    }
                }
                Step::Online(block, how) => {
                    let _ = memory.online(&[blocks(block, block)], how, &mut Unhurried);
                }
                Step::Offline(block) => {
                    let _ = memory.offline(&[blocks(block, block)], &mut Unhurried);
                }
                Step::Replace => {
                    if memory.remove(&[dimm(0)], &mut Unhurried).is_ok() {
                        bad.retain(|pfn: &Pfn| pfn.section() < section(32));
                        faulty.retain(|pfn: &Pfn| pfn.section() < section(32));
                        plug(memory, 0, blocks(32, 33));
                    }
                }
                Step::Keep => memory.keep(),
            }
            for (_, head, order) in all_places(memory) {
                prop_assert!(bad.range(head..head.add(order.pages())).all(|pfn| faulty.contains(pfn)));
            }
            let report = memory.memory_report();
            prop_assert_eq!(report.poisoned + report.faulty, bad.len() as u64 * PAGE_SIZE);
            assert_valid(memory);
        }
        taken.into_iter().for_each(|(head, order)| memory.free(head, order));
        all_places(memory).into_iter().for_each(|(holder, _, _)| release(memory, holder));
        memory.keep();
        prop_assert_eq!(memory.memory_report().faulty, 0);
        prop_assert!(bad.iter().all(|pfn| memory.frame_report(*pfn).state == FrameState::Poisoned));
        assert_valid(memory);
    }
}
