//! Blocks that come in pieces: pageblocks granted to the allocator and withheld from it, one by one.

use crate::machine::dimms::{MOVABLE, NORMAL, plug_online};
use crate::machine::holding::{booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::host::with_standby;
use crate::machine::taking::{request, take_all_in};
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, node, section};
use mm::addr::{Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionRange};
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::MEMMAP_PAGES;
use mm::hotplug::PieceError;
use mm::inject::Point;
use mm::machine::mapper::DirectMap;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::section::group::{Grant, Group, GroupKind, GroupName, Ready, Terms};
use mm::section::kind::MemmapPlace;
use mm::section::word::Section;
use mm::{Errno, Memory};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FRAMES: u64 = Order::PAGEBLOCK.pages();
const DEVICE: GroupName = GroupName { kind: GroupKind::Probe, number: 3 };

/// A device whose blocks come in pieces, with blocks 32 and 33 known.
fn plug_in_pieces(memory: &Memory<Fake>) {
    let terms = Terms {
        memmap: MemmapPlace::Head,
        unit: 1,
        ready: Ready::AtAdd,
        grant: Grant::Pieces,
        direct_map: DirectMap::Present,
    };
    let group = Group { name: DEVICE, window: blocks(32, 47), node: node(1), terms };
    let id = memory.register_group(&group, None, &mut Unhurried).expect("vacant");
    memory.add_to_group(id, blocks(32, 33), &mut Unhurried).expect("vacant");
}

/// The pageblocks of a block from the `first`th on.
fn piece(block: u64, first: u64, count: u64) -> PfnRange {
    PfnRange::new(section(block).pages().start().add(first * FRAMES), count * FRAMES)
}

fn grant(memory: &Memory<Fake>, frames: PfnRange) -> Result<(), PieceError> {
    memory.grant(frames, &mut Unhurried)
}

fn withhold(memory: &Memory<Fake>, frames: PfnRange) -> Result<(), PieceError> {
    memory.withhold(frames, &mut Unhurried)
}

fn of_block(memory: &Memory<Fake>, block: u64) -> Section {
    memory.section(section(block)).expect("known")
}

fn managed(memory: &Memory<Fake>) -> u64 {
    let mut managed = 0;
    memory.for_each_zone(|zone| managed += zone.managed);
    managed / mm::addr::PAGE_SIZE
}

#[test]
fn a_block_whose_first_pageblock_alone_is_granted_works() {
    let memory = booted();
    let before = managed(&memory);
    plug_in_pieces(&memory);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("offline");
    assert_eq!((memory.withheld(section(32)).count(), managed(&memory)), (63, before + FRAMES - MEMMAP_PAGES));
    assert_valid(&memory);
    let taken = take_all_in(&memory, &request(Order::PAGE, Mobility::Movable), blocks(32, 32));
    assert_eq!(taken.len() as u64, FRAMES - MEMMAP_PAGES);
    assert!(taken.iter().all(|frame| piece(32, 0, 1).contains(*frame)));
    assert_valid(&memory);
    // The last one is granted while all of the first is in use.
    grant(&memory, piece(32, 63, 1)).expect("withheld");
    let more = take_all_in(&memory, &request(Order::PAGE, Mobility::Movable), blocks(32, 32));
    assert_eq!(more.len() as u64, FRAMES);
    assert!(more.iter().all(|frame| piece(32, 63, 1).contains(*frame)));
    assert_valid(&memory);
    taken.into_iter().chain(more).for_each(|frame| memory.free(frame, Order::PAGE));
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
    assert_eq!(memory.withheld(section(32)).count(), 62);
    memory.remove(&[DEVICE], &mut Unhurried).expect("offline");
    assert_eq!(Snapshot::of(&memory), Snapshot::of(&booted()));
    assert_eq!(memory.memory_report().withheld, 0);
}

/// Has block 32 offline, untouched or open, and does something with it.
fn in_every_state(mut work: impl FnMut(&Memory<Fake>)) {
    for state in 0..3 {
        let memory = booted();
        plug_in_pieces(&memory);
        if state > 0 {
            memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
        }
        if state > 1 {
            let frame = memory.allocate_within(&request(Order::PAGE, Mobility::Movable), blocks(32, 32)).expect("free");
            memory.free(frame, Order::PAGE);
            assert!(of_block(&memory, 32).is_open());
        }
        work(&memory);
        assert_valid(&memory);
    }
}

#[test]
fn pieces_are_granted_and_withheld_whatever_becomes_of_the_block() {
    in_every_state(|memory| {
        let before = (Snapshot::of(memory), memory.memory_report().withheld);
        grant(memory, piece(32, 1, 10)).expect("withheld");
        assert_eq!(u64::from(of_block(memory, 32).managed), 11 * FRAMES - MEMMAP_PAGES);
        assert_valid(memory);
        withhold(memory, piece(32, 3, 2)).expect("granted");
        assert_eq!(memory.withheld(section(32)).iter().take(3).collect::<Vec<_>>(), [3, 4, 11]);
        assert_valid(memory);
        let at = |n: u64| memory.frame_report(piece(32, n, 1).start()).state;
        assert_eq!((at(3), at(60)), (FrameState::Withheld, FrameState::Withheld));
        assert!(![FrameState::Withheld, FrameState::Absent].contains(&at(2)));
        assert_eq!(
            memory.poison(piece(32, 3, 1).start(), &mut Unhurried),
            Err(PoisonError::Withheld(piece(32, 3, 1).start()))
        );
        for (first, count) in [(1, 2), (5, 6)] {
            withhold(memory, piece(32, first, count)).expect("granted");
        }
        assert_eq!((Snapshot::of(memory), memory.memory_report().withheld), before);
    });
}

#[test]
fn a_piece_that_cannot_be_is_refused() {
    in_every_state(|memory| {
        let before = Snapshot::of(memory);
        let half = PfnRange::new(section(32).pages().start().add(FRAMES / 2), FRAMES);
        let block = section(32);
        assert_eq!(
            (grant(memory, half), withhold(memory, half)),
            (Err(PieceError::NotWhole), Err(PieceError::NotWhole))
        );
        assert_eq!(grant(memory, piece(32, 60, 5)), Err(PieceError::NotWhole), "it reaches into the next block");
        assert_eq!(grant(memory, piece(32, 4, 0)), Err(PieceError::NotWhole));
        assert_eq!(
            (grant(memory, piece(32, 0, 1)), withhold(memory, piece(32, 0, 1))),
            (Err(PieceError::Head(block)), Err(PieceError::Head(block)))
        );
        assert_eq!(grant(memory, piece(40, 1, 1)), Err(PieceError::Absent(section(40))));
        assert_eq!(
            grant(memory, PfnRange::new(Pfn::new(u64::MAX / 4096 / FRAMES * FRAMES), FRAMES)),
            Err(PieceError::NotWhole)
        );
        assert_eq!(withhold(memory, piece(1, 60, 1)), Err(PieceError::NotInPieces(section(1))));
        assert_eq!(withhold(memory, piece(32, 4, 3)), Err(PieceError::Already { block, count: 3, state: "withheld" }));
        grant(memory, piece(32, 4, 1)).expect("withheld");
        assert_eq!(grant(memory, piece(32, 3, 3)), Err(PieceError::Already { block, count: 1, state: "granted" }));
        assert_eq!(withhold(memory, piece(32, 3, 3)), Err(PieceError::Already { block, count: 2, state: "withheld" }));
        withhold(memory, piece(32, 4, 1)).expect("granted");
        assert_eq!(Snapshot::of(memory), before);
    });
    let (standby, _, _) = with_standby(1, MemmapPlace::Head);
    assert_eq!(withhold(&standby, piece(64, 1, 1)), Err(PieceError::Absent(section(64))));
}

#[test]
fn every_failure_point_of_pieces_leaves_no_trace() {
    in_every_state(|memory| {
        grant(memory, piece(32, 8, 4)).expect("withheld");
        let before = Snapshot::of(memory);
        let is_open = of_block(memory, 32).is_open();
        for (point, is_passed) in
            [(Point::PieceGrant, true), (Point::PieceWithhold, true), (Point::OfflineEvacuate, is_open)]
        {
            memory.failure_points().arm(point, Errno::Io, 1);
            let change = |memory: &Memory<Fake>| match point {
                Point::PieceGrant => grant(memory, piece(32, 20, 3)),
                _ => withhold(memory, piece(32, 9, 2)),
            };
            if is_passed {
                assert_eq!(change(memory).map_err(PieceError::errno), Err(Errno::Io), "{point:?}");
                assert_eq!(Snapshot::of(memory), before, "{point:?}");
                assert_valid(memory);
            }
            memory.failure_points().disarm_all();
            change(memory).expect("the cause is gone");
            let back = match point {
                Point::PieceGrant => withhold(memory, piece(32, 20, 3)),
                _ => grant(memory, piece(32, 9, 2)),
            };
            back.expect("it can go either way");
            assert_eq!(Snapshot::of(memory), before, "{point:?}");
        }
    });
}

#[test]
fn a_piece_is_unused_while_nothing_lies_in_it() {
    in_every_state(|memory| {
        grant(memory, piece(32, 1, 3)).expect("withheld");
        memory.drain_caches();
        let unused = || [0, 1, 2, 3, 9].map(|n| memory.is_unused(piece(32, n, 1)));
        assert_eq!(unused(), [true; 5]);
        assert!(memory.is_unused(piece(32, 0, 64)));
        let half = PfnRange::new(section(32).pages().start().add(FRAMES / 2), FRAMES);
        assert!(!memory.is_unused(half) && !memory.is_unused(piece(40, 0, 1)), "there is no such piece");
        if of_block(memory, 32).state.is_in_zone() {
            let large = request(Order::PAGEBLOCK, Mobility::Movable);
            let head = memory.allocate_within(&large, blocks(32, 32)).expect("free");
            assert_eq!(unused().iter().filter(|unused| !**unused).count(), 1);
            assert!(!memory.is_unused(PfnRange::new(head, FRAMES)) && !memory.is_unused(piece(32, 0, 64)));
            memory.free(head, Order::PAGEBLOCK);
            memory.drain_caches();
            assert_eq!(unused(), [true; 5]);
        }
    });
}

#[test]
fn what_lies_in_a_piece_moves_and_the_rest_stays_in_use() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 33), 1, MOVABLE);
    let holders: Vec<_> = (0..600).map(|_| hold_in(&memory, Order::PAGE, blocks(32, 32))).collect();
    let (frame, _) = place_of(&memory, holders[599]).expect("held");
    let gone = piece(32, frame.index_in_section() / FRAMES, 2);
    let inside = |holder| gone.contains(place_of(&memory, holder).expect("held").0);
    assert!(holders.iter().any(|holder| inside(*holder)) && holders.iter().any(|holder| !inside(*holder)));
    let before: Vec<_> = holders.iter().map(|holder| place_of(&memory, *holder)).collect();
    withhold(&memory, gone).expect("all of it can move");
    assert_valid(&memory);
    for (holder, before) in holders.iter().zip(&before) {
        let was_inside = gone.contains(before.expect("held").0);
        assert_eq!(place_of(&memory, *holder) == *before, !was_inside);
        assert!(!inside(*holder));
    }
    // Nothing of it can be had, wherever one looks.
    let taken = take_all_in(&memory, &request(Order::PAGE, Mobility::Movable), blocks(32, 32));
    assert!(!taken.iter().any(|frame| gone.contains(*frame)));
    taken.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
    memory.drain_caches();
    grant(&memory, gone).expect("withheld");
    assert_valid(&memory);
    holders.into_iter().for_each(|holder| release(&memory, holder));
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("free");
    assert_valid(&memory);
}

#[test]
fn what_stays_is_named_and_all_is_as_it_was() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 33), 1, NORMAL);
    let kernel = memory.allocate_within(&request(Order::PAGE, Mobility::Unmovable), blocks(32, 32)).expect("free");
    let pinned = hold_in(&memory, Order::PAGE, blocks(33, 33));
    let (page, _) = place_of(&memory, pinned).expect("held");
    assert!(memory.machine().page(page).pin());
    let before = Snapshot::of(&memory);
    for (frame, owner) in [(kernel, "unmovable"), (page, "pinned")] {
        let at = frame.index_in_section() / FRAMES;
        let error = withhold(&memory, piece(frame.section().number().into(), at.max(1), 3)).err();
        if at > 0 {
            let Some(PieceError::Stays(why)) = error else { panic!("{owner}: {error:?}") };
            assert_eq!(why.errno(), Errno::Busy, "{owner}");
            assert!(why.to_string().contains(&format!("{frame}")), "{why}");
        } else {
            // It lies beside the struct pages, in what cannot be withheld at all.
            assert_eq!(error, None, "{owner}");
            grant(&memory, piece(frame.section().number().into(), 1, 3)).expect("withheld");
        }
        assert_eq!(Snapshot::of(&memory), before, "{owner}");
        assert_valid(&memory);
    }
    memory.machine().page(page).unpin();
    release(&memory, pinned);
    memory.free(kernel, Order::PAGE);
    assert_valid(&memory);
}

#[test]
fn a_pair_of_pageblocks_that_reaches_out_of_the_piece_moves_as_a_whole() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 33), 1, MOVABLE);
    for which in [0, 1] {
        for is_cached in [false, true] {
            let holder = hold_in(&memory, Order::MAX, blocks(32, 32));
            let (head, _) = place_of(&memory, holder).expect("held");
            let first = head.index_in_section() / FRAMES;
            if is_cached {
                release(&memory, holder);
            }
            let gone = piece(32, first + which, 1);
            withhold(&memory, gone).expect("it moves");
            assert_valid(&memory);
            assert_eq!(memory.withheld(section(32)).count(), 1);
            if !is_cached {
                let (now, order) = place_of(&memory, holder).expect("held");
                assert!(order == Order::MAX && !PfnRange::new(now, order.pages()).contains(gone.start()));
                release(&memory, holder);
            }
            grant(&memory, gone).expect("withheld");
            assert_valid(&memory);
        }
    }
}

#[test]
fn poisoned_frames_stay_until_their_memory_is_removed() {
    in_every_state(|memory| {
        grant(memory, piece(32, 5, 2)).expect("withheld");
        memory.poison(piece(32, 6, 1).start().add(7), &mut Unhurried).expect("free");
        assert_valid(memory);
        let before = Snapshot::of(memory);
        assert_eq!(withhold(memory, piece(32, 5, 2)), Err(PieceError::Poisoned(section(32))));
        assert_eq!(Snapshot::of(memory), before);
        withhold(memory, piece(32, 5, 1)).expect("free");
        assert_valid(memory);
    });
}

#[test]
fn what_is_withheld_of_a_closed_block_with_errors_stays_so_when_it_is_opened() {
    in_every_state(|memory| {
        let block = [blocks(32, 32)];
        grant(memory, piece(32, 5, 6)).expect("withheld");
        memory.poison(piece(32, 5, 1).start().add(7), &mut Unhurried).expect("free");
        if of_block(memory, 32).state.is_in_zone() {
            memory.offline(&block, &mut Unhurried).expect("free");
        }
        // Its struct pages are kept, and tell what is to come back.
        withhold(memory, piece(32, 10, 1)).expect("free");
        grant(memory, piece(32, 20, 1)).expect("withheld");
        memory.online(&block, NORMAL, &mut Unhurried).expect("offline");
        withhold(memory, piece(32, 9, 1)).expect("free");
        grant(memory, piece(32, 21, 1)).expect("withheld");
        assert_valid(memory);
        let taken = take_all_in(memory, &request(Order::PAGE, Mobility::Movable), blocks(32, 32));
        let granted = [0, 5, 6, 7, 8, 20, 21].map(|n| piece(32, n, 1));
        assert!(taken.iter().all(|frame| granted.iter().any(|piece| piece.contains(*frame))));
        assert_eq!(taken.len() as u64, 7 * FRAMES - MEMMAP_PAGES - 1);
        assert_valid(memory);
        taken.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
        withhold(memory, piece(32, 20, 2)).expect("free");
        assert_valid(memory);
    });
}

#[test]
fn a_large_request_opens_no_block_that_cannot_serve_it() {
    let memory = booted();
    plug_in_pieces(&memory);
    memory.online(&[blocks(32, 33)], MOVABLE, &mut Unhurried).expect("offline");
    let large = mm::alloc::request::Request {
        place: mm::alloc::request::Place::On(node(1)),
        ..request(Order::PAGEBLOCK, Mobility::Movable)
    };
    memory.allocate(&large).expect_err("only heads are granted");
    assert!((32..34).all(|block| of_block(&memory, block).is_untouched()));
    grant(&memory, piece(33, 7, 1)).expect("withheld");
    let head = memory.allocate(&large).expect("granted");
    assert_eq!(head, piece(33, 7, 1).start());
    assert!(of_block(&memory, 32).is_untouched(), "it is still the lowest to be opened");
    let small = mm::alloc::request::Request { order: Order::PAGE, ..large };
    let frames: Vec<_> = std::iter::from_fn(|| memory.allocate(&small).ok()).collect();
    assert!(frames.iter().any(|frame| frame.section() == section(32)));
    assert_valid(&memory);
    frames.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
    memory.free(head, Order::PAGEBLOCK);
    assert_valid(&memory);
}

#[test]
fn pieces_come_and_go_while_others_take_and_give() {
    let memory = booted_with_holders();
    plug_online(&memory, 0, blocks(32, 33), 1, MOVABLE);
    let is_over = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..2)
        .map(|seed| {
            let (memory, is_over) = (Arc::clone(&memory), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut held = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let order = random.choice([Order::PAGE, Order::PAGE, Order::PAGEBLOCK]).expect("some");
                    match hold(&memory, &movable(order)) {
                        Ok(holder) if held.len() < 120 => held.push(holder),
                        Ok(holder) => release(&memory, holder),
                        Err(_) => {}
                    }
                    if held.len() > 90 {
                        release(&memory, held.swap_remove(random.usize(..held.len())));
                    }
                }
                held.into_iter().for_each(|holder| release(&memory, holder));
            })
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(9);
    let mut gone = 0;
    for _ in 0..60 {
        let first = random.u64(1..60);
        let frames = piece(random.u64(32..34), first, random.u64(1..=4));
        match withhold(&memory, frames) {
            Ok(()) => {
                gone += 1;
                assert!(memory.frame_report(frames.start()).state == FrameState::Withheld);
                grant(&memory, frames).expect("withheld");
            }
            // Whoever takes and gives all the time may keep it in flight.
            Err(PieceError::Stays(why)) => assert_eq!(why.errno(), Errno::Busy),
            Err(error) => panic!("{error}"),
        }
    }
    is_over.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().expect("it ended well"));
    assert!(gone > 0);
    memory.drain_caches();
    assert_valid(&memory);
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("free");
    assert_valid(&memory);
}

/// What must be true of two blocks that come in pieces.
#[derive(Default)]
struct Model {
    online: [bool; 2],
    granted: [u64; 2],
    held: BTreeMap<Pfn, Order>,
}

impl Model {
    fn bits(first: u64, count: u64) -> u64 {
        ((1_u128 << count) - 1) as u64 * (1 << first)
    }

    fn step(&mut self, memory: &Memory<Fake>, random: &mut fastrand::Rng, succeeded: &mut [u32; 6]) {
        let which = random.usize(0..2);
        let block = 32 + which as u64;
        let (first, count) = (random.u64(1..64), random.u64(1..=6));
        let count = count.min(64 - first);
        let bits = Self::bits(first, count);
        let is_in_piece = |(head, order): (&Pfn, &Order)| {
            !PfnRange::new(*head, order.pages()).intersection(piece(block, first, count)).is_empty()
        };
        let is_used = self.held.iter().any(is_in_piece);
        let is_in_use = self.held.keys().any(|head| head.section() == section(block));
        let mut check = |n: usize, outcome: Result<(), String>, is_right: bool| {
            assert_eq!(outcome.is_ok(), is_right, "step {n}: {outcome:?}");
            succeeded[n] += u32::from(is_right);
            is_right
        };
        match random.u8(0..12) {
            0..4 => {
                let outcome = grant(memory, piece(block, first, count)).map_err(|error| error.to_string());
                if check(0, outcome, self.granted[which] & bits == 0) {
                    self.granted[which] |= bits;
                }
            }
            4..7 => {
                let outcome = withhold(memory, piece(block, first, count)).map_err(|error| error.to_string());
                if check(1, outcome, self.granted[which] & bits == bits && !is_used) {
                    self.granted[which] &= !bits;
                }
            }
            7 => {
                let outcome = memory.online(&[blocks(block, block)], NORMAL, &mut Unhurried);
                if check(2, outcome.map(drop).map_err(|error| error.to_string()), !self.online[which]) {
                    self.online[which] = true;
                }
            }
            8 => {
                let outcome =
                    memory.offline(&[blocks(block, block)], &mut Unhurried).map_err(|error| error.to_string());
                if check(3, outcome, self.online[which] && !is_in_use) {
                    self.online[which] = false;
                }
            }
            9..11 => {
                let order = random.choice([Order::PAGE, Order::PAGEBLOCK, Order::MAX]).expect("some");
                if let Ok(head) = memory.allocate_within(&request(order, Mobility::Unmovable), blocks(block, block)) {
                    let at = head.index_in_section() / FRAMES;
                    let of_pair = if order == Order::MAX { 2 } else { 1 };
                    assert_eq!((self.granted[which] | 1) >> at & Self::bits(0, of_pair), Self::bits(0, of_pair));
                    self.held.insert(head, order);
                    check(4, Ok(()), self.online[which]);
                }
            }
            _ => {
                for (head, order) in std::mem::take(&mut self.held) {
                    memory.free(head, order);
                    check(5, Ok(()), true);
                }
            }
        }
        for (block, granted) in (32..).zip(self.granted) {
            let set = memory.withheld(section(block));
            assert_eq!(!set.bits(), granted | 1);
            let managed = PAGES_PER_SECTION - set.frames() - MEMMAP_PAGES;
            assert_eq!(u64::from(of_block(memory, block).managed), managed);
        }
    }
}

#[test]
fn no_sequence_of_pieces_breaks_the_books() {
    for seed in 0..6 {
        let memory = booted();
        plug_in_pieces(&memory);
        let before = Snapshot::of(&memory);
        let (mut model, mut succeeded) = (Model::default(), [0; 6]);
        let mut random = fastrand::Rng::with_seed(seed);
        for n in 0..300 {
            model.step(&memory, &mut random, &mut succeeded);
            if n % 10 == 0 {
                assert_valid(&memory);
                memory.housekeep();
            }
        }
        assert!(succeeded.iter().all(|count| *count > 0), "{succeeded:?}");
        model.held.iter().for_each(|(head, order)| memory.free(*head, *order));
        for which in 0..2 {
            let id = SectionRange::single(section(32 + which as u64));
            if model.online[which] {
                memory.offline(&[id], &mut Unhurried).expect("free");
            }
            for n in (0..64).filter(|n| model.granted[which] >> n & 1 != 0) {
                withhold(&memory, piece(32 + which as u64, n, 1)).expect("granted");
            }
        }
        assert_eq!(Snapshot::of(&memory), before);
        assert_valid(&memory);
    }
}
