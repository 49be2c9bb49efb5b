//! Standby memory: known from the start, accessible only while a block of its unit is online.

use crate::machine::dimms::{MOVABLE, NORMAL};
use crate::machine::host::{Host, STANDBY, WINDOW, standby_terms, with_standby};
use crate::machine::pausing::At;
use crate::machine::taking::request;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, node, section};
use mm::addr::{Order, Pfn, SectionId, SectionRange};
use mm::frame::mobility::Mobility;
use mm::hotplug::{AddError, AddRequest, OnlineError, RemoveError};
use mm::inject::Point;
use mm::machine::backing::BackingError;
use mm::machine::mapper::Mapper;
use mm::machine::tasks::{Stop, Unhurried};
use mm::record::notifier::{Accept, Change, MemoryListener, Name};
use mm::section::group::{Group, GroupKind, GroupName};
use mm::section::kind::MemmapPlace;
use mm::section::state::BlockState;
use mm::{Errno, Memory};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

const PLACES: [MemmapPlace; 2] = [MemmapPlace::Head, MemmapPlace::System];
const UNITS: [u64; 3] = [1, 2, 8];

fn sections_of(ranges: &[SectionRange]) -> Vec<SectionId> {
    ranges.iter().flat_map(|range| range.iter()).collect()
}

/// Takes frames in a block and touches them.
fn use_some(memory: &Memory<Fake>, range: SectionRange, mobility: Mobility) -> Option<Pfn> {
    let head = memory.allocate_within(&request(Order::PAGE, mobility), range).ok()?;
    memory.machine().touch(head.section());
    Some(head)
}

#[test]
fn known_blocks_cost_nothing_and_nobody_touches_them() {
    for (unit, memmap) in UNITS.into_iter().flat_map(|unit| PLACES.map(|memmap| (unit, memmap))) {
        let before = Snapshot::of(&booted());
        let (memory, host, id) = with_standby(unit, memmap);
        assert_valid(&memory);
        assert_eq!((host.backed(), memory.machine().mapped_ranges()), (vec![], booted().machine().mapped_ranges()));
        assert_eq!(memory.machine().table_frames(), booted().machine().table_frames());
        assert!(memory.blocks().filter(|(_, section)| section.group == id).all(|(_, section)| !section.ready));
        memory.remove(&[STANDBY], &mut Unhurried).expect("offline");
        assert_eq!(Snapshot::of(&memory), before);
    }
}

#[test]
fn online_backs_whole_units_and_offline_of_the_last_block_gives_them_back() {
    for memmap in PLACES {
        let (memory, host, _) = with_standby(8, memmap);
        let before = Snapshot::of(&memory);
        memory.online(&[blocks(74, 75)], MOVABLE, &mut Unhurried).expect("backed");
        assert_eq!(host.backed(), sections_of(&[blocks(72, 79)]));
        assert_valid(&memory);
        // A neighbour in the same unit, and one in the next.
        memory.online(&[blocks(79, 80)], NORMAL, &mut Unhurried).expect("backed");
        assert_eq!(host.backed(), sections_of(&[blocks(72, 87)]));
        for id in [74, 79, 80] {
            let only = blocks(id, id);
            let head = use_some(&memory, only, Mobility::Movable).expect("free");
            memory.free(head, Order::PAGE);
        }
        memory.offline(&[blocks(74, 75)], &mut Unhurried).expect("free");
        assert_eq!(host.backed(), sections_of(&[blocks(72, 87)]), "block 79 is online");
        memory.offline(&[blocks(79, 80)], &mut Unhurried).expect("free");
        assert_eq!(host.backed(), []);
        assert_valid(&memory);
        assert_eq!(Snapshot::of(&memory), before);
    }
}

#[test]
fn a_refusal_at_any_unit_of_a_range_changes_nothing() {
    for (unit, memmap) in UNITS.into_iter().flat_map(|unit| PLACES.map(|memmap| (unit, memmap))) {
        let (memory, host, _) = with_standby(unit, memmap);
        memory.online(&[blocks(64, 64)], NORMAL, &mut Unhurried).expect("backed");
        let (before, backed) = (Snapshot::of(&memory), host.backed());
        let range = blocks(64 + unit, 95);
        for (units, why) in (0..range.count() / unit)
            .zip([BackingError::Refused, BackingError::Busy, BackingError::Failed].into_iter().cycle())
        {
            host.refuse_after(units, why);
            assert_eq!(memory.online(&[range], MOVABLE, &mut Unhurried), Err(OnlineError::Backing(why)));
            assert_eq!((Snapshot::of(&memory), host.backed()), (before.clone(), backed.clone()));
            assert_valid(&memory);
        }
        host.refuse_no_more();
        memory.online(&[range], MOVABLE, &mut Unhurried).expect("backed");
        assert_valid(&memory);
    }
}

#[test]
fn a_slow_host_can_be_given_up_at_every_pause() {
    let (memory, host, _) = with_standby(2, MemmapPlace::Head);
    host.pauses.store(3, Ordering::Relaxed);
    let before = Snapshot::of(&memory);
    let mut stopped = 0;
    for pause in 1.. {
        let mut pace = At(pause, || Err(Stop::Cancelled));
        match memory.online(&[blocks(65, 68)], MOVABLE, &mut pace) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.errno(), Errno::Canceled),
        }
        assert_eq!((Snapshot::of(&memory), host.backed()), (before.clone(), vec![]));
        assert_valid(&memory);
        stopped += 1;
    }
    // Once at first, thrice and once more for each of three units.
    assert_eq!(stopped, 1 + 3 * 4);
}

#[test]
fn every_failure_point_of_standby_memory_leaves_no_trace() {
    for memmap in PLACES {
        let (memory, host, _) = with_standby(2, memmap);
        let before = Snapshot::of(&memory);
        let points = [
            Point::OnlineBegin,
            Point::StandbyBack,
            Point::StandbyMap,
            Point::StandbyTrial,
            Point::StandbyMemmap,
            Point::OnlinePrepare,
        ];
        for point in points {
            let is_passed = point != Point::StandbyMemmap || memmap == MemmapPlace::System;
            memory.failure_points().arm(point, Errno::Io, 1);
            let outcome = memory.online(&[blocks(64, 69)], MOVABLE, &mut Unhurried).map_err(OnlineError::errno);
            assert_eq!(outcome.is_err(), is_passed, "{point:?}");
            memory.failure_points().disarm_all();
            if is_passed {
                assert_eq!(outcome, Err(Errno::Io));
                assert_eq!((Snapshot::of(&memory), host.backed()), (before.clone(), vec![]), "{point:?}");
                assert_valid(&memory);
                memory.online(&[blocks(64, 69)], MOVABLE, &mut Unhurried).expect("the cause is gone");
            }
            memory.offline(&[blocks(64, 69)], &mut Unhurried).expect("free");
            assert_eq!((Snapshot::of(&memory), host.backed()), (before.clone(), vec![]), "{point:?}");
        }
    }
}

#[test]
fn who_vetoes_hears_that_it_is_off_when_nothing_is_backed_any_more() {
    static SEEN: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    struct First(&'static Host);
    impl MemoryListener for First {
        fn prepare(&self, _: &Change) -> Accept {
            SEEN.lock().unwrap().push(self.0.backed().len());
            Accept::Yes
        }
        fn committed(&self, _: &Change) {}
        fn cancelled(&self, _: &Change) {
            SEEN.lock().unwrap().push(self.0.backed().len());
        }
    }
    struct Second;
    impl MemoryListener for Second {
        fn prepare(&self, _: &Change) -> Accept {
            Accept::No
        }
        fn committed(&self, _: &Change) {}
        fn cancelled(&self, _: &Change) {}
    }
    let (memory, host, _) = with_standby(2, MemmapPlace::Head);
    let before = Snapshot::of(&memory);
    let name = |text| Name::new(text).expect("short");
    memory.register_listener(name("first"), 1, Box::leak(Box::new(First(host)))).expect("free");
    memory.register_listener(name("second"), 0, &Second).expect("free");
    memory.online(&[blocks(64, 65)], NORMAL, &mut Unhurried).expect_err("vetoed");
    assert_eq!((&*SEEN.lock().unwrap(), Snapshot::of(&memory)), (&vec![2, 0], before));
    assert_valid(&memory);
}

#[test]
fn a_host_that_takes_less_back_than_offered_finds_it_there_the_next_time() {
    let (memory, host, _) = with_standby(2, MemmapPlace::Head);
    *host.sticky.lock().unwrap() = BTreeSet::from([section(65)]);
    for _ in 0..3 {
        memory.online(&[blocks(64, 65)], NORMAL, &mut Unhurried).expect("backed");
        memory.offline(&[blocks(64, 65)], &mut Unhurried).expect("free");
        assert_eq!((host.backed(), host.asked().len()), (vec![section(65)], 0));
        assert_valid(&memory);
    }
}

#[test]
fn standby_memory_is_removed_when_all_of_it_is_offline() {
    let (memory, host, id) = with_standby(2, MemmapPlace::Head);
    memory.online(&[blocks(66, 66)], NORMAL, &mut Unhurried).expect("backed");
    assert_eq!(memory.remove(&[STANDBY], &mut Unhurried), Err(RemoveError::NotOffline(section(66))));
    assert_eq!(memory.remove_from_group(id, blocks(66, 67), &mut Unhurried), Err(RemoveError::NotOffline(section(66))));
    assert_eq!(memory.remove_from_group(id, blocks(67, 68), &mut Unhurried), Err(RemoveError::BadUnit { unit: 2 }));
    memory.remove_from_group(id, blocks(64, 65), &mut Unhurried).expect("offline");
    assert_eq!(memory.remove_from_group(id, blocks(64, 65), &mut Unhurried), Err(RemoveError::NoBlock(section(64))));
    assert_valid(&memory);
    memory.add_to_group(id, blocks(64, 65), &mut Unhurried).expect("vacant again");
    assert_eq!(memory.add_to_group(id, blocks(64, 65), &mut Unhurried), Err(AddError::Exists(section(64))));
    memory.unplug(&[STANDBY], &[blocks(66, 66)], &mut Unhurried).expect("free");
    assert_eq!(host.backed(), []);
    assert_eq!(Snapshot::of(&memory), Snapshot::of(&booted()));
}

#[test]
fn windows_and_units_that_do_not_fit_are_refused() {
    let (memory, _, id) = with_standby(8, MemmapPlace::Head);
    memory.remove_from_group(id, blocks(64, 127), &mut Unhurried).expect("offline");
    let before = Snapshot::of(&memory);
    let dimm = |first, last, name| {
        let request = AddRequest { range: blocks(first, last), node: node(0), name };
        memory.add(&request, &mut Unhurried).map(drop)
    };
    let other = GroupName { kind: GroupKind::Dimm, number: 1 };
    // Nothing is there, but something may come.
    assert_eq!(dimm(63, 64, other), Err(AddError::Claimed(STANDBY)));
    assert_eq!(dimm(40, 41, STANDBY), Err(AddError::NameTaken(STANDBY)));
    let to_group = |first, last| memory.add_to_group(id, blocks(first, last), &mut Unhurried);
    assert_eq!(to_group(68, 75), Err(AddError::BadUnit { unit: 8 }));
    assert_eq!(to_group(64, 68), Err(AddError::BadUnit { unit: 8 }));
    assert_eq!(to_group(56, 71), Err(AddError::OutsideWindow(STANDBY)));
    let terms = standby_terms(8, MemmapPlace::Head);
    let half = Group { name: other, window: blocks(36, 51), node: node(0), terms };
    let host: &'static Host = Box::leak(Box::default());
    assert_eq!(memory.register_group(&half, Some(host), &mut Unhurried), Err(AddError::BadUnit { unit: 8 }));
    assert_eq!(Snapshot::of(&memory), before);
    to_group(64, 71).expect("vacant");
    assert_valid(&memory);
}

#[test]
fn errors_of_standby_memory_go_when_it_is_given_back() {
    let (memory, host, _) = with_standby(2, MemmapPlace::Head);
    let pfn = section(65).pages().start().add(5000);
    assert_eq!(memory.poison(pfn, &mut Unhurried).map_err(mm::poison::PoisonError::errno), Err(Errno::NoDevice));
    let before = Snapshot::of(&memory);
    memory.online(&[blocks(64, 65)], NORMAL, &mut Unhurried).expect("backed");
    memory.poison(pfn, &mut Unhurried).expect("free");
    assert_valid(&memory);
    memory.offline(&[blocks(65, 65)], &mut Unhurried).expect("free");
    assert_valid(&memory);
    assert!(memory.section(section(65)).is_some_and(|section| section.poisoned), "its unit is in use");
    memory.offline(&[blocks(64, 64)], &mut Unhurried).expect("free");
    assert_eq!((Snapshot::of(&memory), host.backed()), (before, vec![]));
}

/// What must be true of a machine with standby memory.
struct Model {
    unit: u64,
    online: BTreeSet<SectionId>,
    used: BTreeMap<SectionId, Vec<Pfn>>,
}

impl Model {
    fn backed(&self) -> BTreeSet<SectionId> {
        let unit = |id: &SectionId| u64::from(id.number()) / self.unit;
        self.online.iter().flat_map(|id| (unit(id) * self.unit..).take(self.unit as usize)).map(section).collect()
    }

    fn pick(&self, random: &mut fastrand::Rng) -> SectionRange {
        let first = random.u64(WINDOW.0..=WINDOW.1);
        blocks(first, random.u64(first..=WINDOW.1.min(first + 12)))
    }

    fn step(&mut self, memory: &Memory<Fake>, host: &Host, random: &mut fastrand::Rng, succeeded: &mut [u32; 4]) {
        let range = self.pick(random);
        let ids: Vec<_> = range.iter().collect();
        match random.u8(0..10) {
            0..4 => {
                let units: BTreeSet<_> = ids.iter().map(|id| u64::from(id.number()) / self.unit).collect();
                let known = self.backed();
                let missing = units.iter().filter(|unit| !known.contains(&section(**unit * self.unit))).count() as u64;
                let limit = random.bool().then(|| random.u64(0..4));
                host.refuse_no_more();
                if let Some(limit) = limit {
                    host.refuse_after(limit, BackingError::Refused);
                }
                let is_vacant = ids.iter().all(|id| !self.online.contains(id));
                let is_backed = limit.is_none_or(|limit| missing <= limit);
                let zone = if random.bool() { MOVABLE } else { NORMAL };
                let outcome = memory.online(&[range], zone, &mut Unhurried);
                assert!(is_vacant || outcome.is_err() || ids.iter().all(|id| self.online.contains(id)));
                if is_vacant {
                    assert_eq!(outcome.is_ok(), is_backed, "{outcome:?}");
                }
                if is_vacant && outcome.is_ok() {
                    self.online.extend(&ids);
                    succeeded[0] += 1;
                }
            }
            4..8 => {
                let is_online = ids.iter().all(|id| self.online.contains(id));
                let is_free = ids.iter().all(|id| !self.used.contains_key(id));
                let outcome = memory.offline(&[range], &mut Unhurried);
                assert_eq!(outcome.is_ok(), is_online && is_free, "{outcome:?}");
                if outcome.is_ok() {
                    ids.iter().for_each(|id| _ = self.online.remove(id));
                    succeeded[1] += 1;
                }
            }
            8 => {
                if let Some(head) = use_some(memory, range, Mobility::Unmovable) {
                    assert!(self.online.contains(&head.section()));
                    self.used.entry(head.section()).or_default().push(head);
                    succeeded[2] += 1;
                }
            }
            _ => {
                let all = std::mem::take(&mut self.used);
                all.into_values().flatten().for_each(|head| {
                    memory.free(head, Order::PAGE);
                    succeeded[3] += 1;
                });
            }
        }
        assert_eq!(host.asked(), self.backed());
        for (id, section) in memory.blocks().filter(|(id, _)| u64::from(id.number()) >= WINDOW.0) {
            assert_eq!(matches!(section.state, BlockState::Online(_)), self.online.contains(&id), "block {id}");
        }
    }
}

#[test]
fn no_sequence_of_operations_touches_what_is_not_backed() {
    for (unit, memmap) in UNITS.into_iter().flat_map(|unit| PLACES.map(|memmap| (unit, memmap))) {
        let (memory, host, _) = with_standby(unit, memmap);
        let empty = Snapshot::of(&memory);
        let mut random = fastrand::Rng::with_seed(unit * 2 + u64::from(memmap == MemmapPlace::Head));
        let mut model = Model { unit, online: BTreeSet::new(), used: BTreeMap::new() };
        let mut succeeded = [0; 4];
        for n in 0..400 {
            model.step(&memory, host, &mut random, &mut succeeded);
            if n % 20 == 0 {
                assert_valid(&memory);
                memory.housekeep();
            }
        }
        assert!(succeeded.iter().all(|count| *count > 0), "{succeeded:?}");
        model.used.into_values().flatten().for_each(|head| memory.free(head, Order::PAGE));
        for id in model.online {
            memory.offline(&[SectionRange::single(id)], &mut Unhurried).expect("nothing is held");
        }
        assert_eq!((Snapshot::of(&memory), host.backed()), (empty, vec![]));
    }
}
