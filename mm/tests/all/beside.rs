//! Operations beside each other: those on different ranges go on at once, those on overlapping ones in turn.

use crate::machine::dimms::{add, plug};
use crate::machine::listening::listen;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, SectionRange};
use mm::alloc::request::Request;
use mm::errno::Errno;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{AddError, AddRequest, OfflineError, RemoveError};
use mm::inject::Point;
use mm::machine::tasks::{Pace, Stop, Unhurried};
use mm::record::notifier::{Accept, Change, MemoryListener};
use mm::record::policy::{OnlineAs, OnlinePolicy};
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Does something each time when an operation pauses.
struct Meanwhile<F: FnMut()>(F);

impl<F: FnMut()> Pace for Meanwhile<F> {
    fn pause(&mut self) -> Result<(), Stop> {
        (self.0)();
        Ok(())
    }
}

/// Waits for nobody.
struct Hasty;

impl Pace for Hasty {
    fn pause(&mut self) -> Result<(), Stop> {
        Err(Stop::Deadline)
    }
}

fn state(memory: &Memory<Fake>, n: u64) -> Option<BlockState> {
    memory.section(section(n)).map(|section| section.state)
}

#[test]
fn operations_on_different_ranges_go_on_at_once() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    plug(&memory, 0, blocks(32, 33), 1);
    let mut rounds = 0;
    let mut meanwhile = Meanwhile(|| {
        rounds += 1;
        let other = [blocks(34, 35)];
        plug(&memory, 1, other[0], 1);
        memory.online(&other, OnlineAs::Zone(ZoneKind::Movable), &mut Hasty).expect_err("told to stop");
        memory.online(&other, OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
        memory.unplug(&[dimm(1)], &other, &mut Unhurried).expect("free");
    });
    memory.online(&[blocks(32, 33)], OnlineAs::Zone(ZoneKind::Movable), &mut meanwhile).expect("offline");
    assert!(rounds > 0, "an operation pauses");
    assert_eq!(state(&memory, 33), Some(BlockState::Online(ZoneKind::Movable)));
    memory.unplug(&[dimm(0)], &[blocks(32, 33)], &mut Unhurried).expect("free");
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}

#[test]
fn whoever_wants_a_range_that_is_taken_can_be_told_to_stop() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 35), 1);
    let mut meanwhile = Meanwhile(|| {
        // The list has a gap, and is locked as a whole.
        let stopped = memory.online(&[blocks(34, 34)], OnlineAs::ByPolicy, &mut Hasty);
        assert_eq!(stopped.map_err(|error| error.errno()), Err(Errno::TimedOut));
        assert_eq!(memory.offline(&[blocks(30, 33)], &mut Hasty), Err(OfflineError::Stopped(Stop::Deadline)));
        assert_eq!(memory.remove(&[dimm(0)], &mut Hasty), Err(RemoveError::Stopped(Stop::Deadline)));
    });
    let ranges = [blocks(32, 33), blocks(35, 35)];
    memory.online(&ranges, OnlineAs::Zone(ZoneKind::Normal), &mut meanwhile).expect("offline");
    memory.online(&[blocks(34, 34)], OnlineAs::ByPolicy, &mut Unhurried).expect("nobody else wants it");
    assert_valid(&memory);
}

#[test]
fn the_name_of_a_group_is_taken_while_it_comes_and_free_when_it_fails() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let before = Snapshot::of(&memory);
    let request = AddRequest { range: blocks(32, 33), node: node(0), name: dimm(0) };
    let mut rounds = 0;
    let mut meanwhile = Meanwhile(|| {
        rounds += 1;
        assert_eq!(add(&memory, 0, blocks(40, 40), 1), Err(AddError::NameTaken(dimm(0))));
        assert_eq!(memory.find_group(dimm(0)), None);
        assert_eq!(memory.remove(&[dimm(0)], &mut Unhurried), Err(RemoveError::Absent));
        if rounds == 2 {
            memory.failure_points().arm(Point::AddMemmap, Errno::NoMemory, 1);
        }
    });
    memory.add(&request, &mut meanwhile).expect_err("it fails at the second block");
    assert_eq!(Snapshot::of(&memory), before);
    add(&memory, 0, blocks(40, 40), 1).expect("the name is free");
    assert_valid(&memory);
}

#[test]
fn of_adds_that_fit_alone_but_not_together_the_second_is_refused_at_once() {
    let memory = booted();
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let free = || {
        let mut pages = 0;
        memory.for_each_zone(|zone| pages += zone.free / PAGE_SIZE);
        pages
    };
    let large = Request { order: Order::PAGEBLOCK, ..Request::kernel(Owner::Selftest) };
    while free() > 32 * MEMMAP_PAGES {
        memory.allocate(&large).expect("it is free");
    }
    let mut rounds = 0;
    let mut meanwhile = Meanwhile(|| {
        rounds += 1;
        let before = free();
        assert_eq!(add(&memory, 1, blocks(40, 55), 1), Err(AddError::NoMemory));
        assert_eq!(free(), before);
    });
    let request = AddRequest { range: blocks(2, 17), node: node(0), name: dimm(0) };
    memory.add(&request, &mut meanwhile).expect("it came first");
    assert_eq!(rounds, 16);
}

/// Is asked of two changes at once.
#[derive(Default)]
struct Meets {
    asked: Mutex<u32>,
    is_asked: Condvar,
}

impl MemoryListener for Meets {
    fn prepare(&self, _: &Change) -> Accept {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        self.is_asked.notify_all();
        let (_asked, wait) =
            self.is_asked.wait_timeout_while(asked, Duration::from_secs(60), |asked| *asked < 2).unwrap();
        assert!(!wait.timed_out(), "one operation does not wait for the listeners of the other");
        Accept::Yes
    }

    fn committed(&self, _: &Change) {}

    fn cancelled(&self, _: &Change) {}
}

#[test]
fn operations_on_different_ranges_call_listeners_at_once() {
    let memory = booted();
    listen(&memory, "meets", 0, Meets::default());
    for (number, range) in [(0, blocks(32, 33)), (1, blocks(40, 41))] {
        plug(&memory, number, range, 1);
    }
    std::thread::scope(|scope| {
        for range in [blocks(32, 33), blocks(40, 41)] {
            let memory = &memory;
            scope.spawn(move || memory.online(&[range], OnlineAs::ByPolicy, &mut Unhurried).expect("offline"));
        }
    });
    assert_valid(&memory);
}

/// Looks at what is left of the ratio while memory is on its way.
struct Looks(&'static Memory<Fake>);

impl MemoryListener for Looks {
    fn prepare(&self, _change: &Change) -> Accept {
        let block = section(40);
        let described = self.0.section(block).expect("added");
        let zones: Vec<_> =
            self.0.zone_chooser(described).valid_zones(SectionRange::single(block), described).collect();
        assert_eq!(zones[0].1[0], ZoneKind::Normal, "the ratio is used up by what is on its way");
        Accept::Yes
    }

    fn committed(&self, _change: &Change) {}

    fn cancelled(&self, _change: &Change) {}
}

#[test]
fn memory_on_its_way_counts_for_the_ratio() {
    let memory: &'static _ = Box::leak(Box::new(booted()));
    memory.set_policy(|policy| {
        policy.online_policy = OnlinePolicy::AutoMovable;
        policy.numa_aware = false;
        // Two boot sections, of which not all is there, allow one block.
        policy.auto_movable_ratio = 80;
    });
    plug(memory, 0, blocks(32, 32), 1);
    plug(memory, 1, blocks(40, 40), 1);
    listen(memory, "looks", 0, Looks(memory));
    memory.online(&[blocks(32, 32)], OnlineAs::ByPolicy, &mut Unhurried).expect("offline");
    assert_eq!(state(memory, 32), Some(BlockState::Online(ZoneKind::Movable)));
    memory.online(&[blocks(40, 40)], OnlineAs::ByPolicy, &mut Unhurried).expect("offline");
    assert_eq!(state(memory, 40), Some(BlockState::Online(ZoneKind::Normal)));
    assert_valid(memory);
}
