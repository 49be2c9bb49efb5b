//! Everything at once, from many threads, by dice: in the end everything is as it was.
//!
//! `ALTMAP_STRESS_SECONDS` says for how long, `ALTMAP_STRESS_SEED` where the dice begin.

use crate::machine::taking::request;
use crate::machine::{CPUS, Fake, NODES, SECTIONS, Snapshot, assert_valid, blocks, booted, dimm, node};
use fastrand::Rng;
use mm::Memory;
use mm::addr::{NodeId, Order, Pfn, PfnRange, SectionRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::hotplug::AddRequest;
use mm::machine::tasks::{Pace, Stop, Unhurried};
use mm::record::policy::{OnlineAs, OnlinePolicy};
use mm::section::group::Group;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Blocks below are there at boot.
const FIRST_ADDED: u64 = 2;
const DIMMS: u16 = 8;
/// Seconds that are added at most until every operation has succeeded.
const LONGER: u64 = 60;
/// More than this is held only by somebody who takes all that he can get.
const FEW: usize = 40;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// Lets others run, and stops now and then.
struct Moody<'a>(&'a mut Rng);

impl Pace for Moody<'_> {
    fn pause(&mut self) -> Result<(), Stop> {
        std::thread::yield_now();
        if self.0.u32(..100) == 0 { Err(Stop::Cancelled) } else { Ok(()) }
    }
}

/// Memory that a thread holds.
#[derive(Default)]
struct Held {
    blocks: Vec<(Pfn, Order)>,
    runs: Vec<PfnRange>,
}

impl Held {
    fn free_one(&mut self, memory: &Memory<Fake>, dice: &mut Rng) {
        if !self.blocks.is_empty() {
            let (head, order) = self.blocks.swap_remove(dice.usize(..self.blocks.len()));
            memory.free(head, order);
        }
    }

    fn free_all(&mut self, memory: &Memory<Fake>) {
        self.blocks.drain(..).for_each(|(head, order)| memory.free(head, order));
        self.runs.drain(..).for_each(|run| memory.free_run(run));
    }
}

fn any_node(dice: &mut Rng) -> NodeId {
    node(dice.u32(..NODES as u32))
}

fn any_request(dice: &mut Rng) -> Request {
    let order = Order::new(if dice.bool() { 0 } else { dice.u8(..=10) }).expect("kept");
    let at = any_node(dice);
    let mobility = Mobility::ALL[dice.usize(..2)];
    Request {
        place: if dice.bool() { Place::Near(at) } else { Place::On(at) },
        urgency: if dice.u32(..50) == 0 { Urgency::Hotplug } else { Urgency::Ordinary },
        ..request(order, mobility)
    }
}

fn any_range(dice: &mut Rng, most: u64) -> SectionRange {
    let first = dice.u64(FIRST_ADDED..SECTIONS);
    blocks(first, (first + dice.u64(..most)).min(SECTIONS - 1))
}

fn take_and_give(memory: &Memory<Fake>, dice: &mut Rng, done: &AtomicBool) {
    let mut held = Held::default();
    while !done.load(Ordering::Relaxed) {
        let request = any_request(dice);
        let many = if dice.u32(..3000) == 0 { 20_000 } else { 1 };
        match dice.u32(..100) {
            0 => held.free_all(memory),
            1 if held.runs.len() < 2 => {
                let request = Request { urgency: Urgency::Ordinary, ..request };
                held.runs.extend(memory.allocate_run(dice.u64(1..40), &request));
            }
            2..5 => {
                let within = memory.allocate_within(&request, any_range(dice, 4));
                held.blocks.extend(within.map(|head| (head, request.order)));
            }
            _ if held.blocks.len() < FEW || many > 1 => {
                let taken = (0..many).map_while(|_| memory.allocate(&request).ok());
                held.blocks.extend(taken.map(|head| (head, request.order)));
            }
            _ => {}
        }
        while held.blocks.len() > dice.usize(..2 * FEW) {
            held.free_one(memory, dice);
        }
    }
    held.free_all(memory);
}

fn any_group(memory: &Memory<Fake>, dice: &mut Rng) -> Option<Group> {
    memory.find_group(dimm(dice.u16(..DIMMS))).map(|(_, group)| group)
}

/// What of a range is online, lowest first.
fn online_parts(memory: &Memory<Fake>, range: SectionRange) -> Vec<SectionRange> {
    let is_online = |state| matches!(state, BlockState::Online(_));
    let runs = memory.runs(range).filter(|(_, section)| section.is_some_and(|section| is_online(section.state)));
    SectionRange::merged(runs.map(|(run, _)| run)).collect()
}

const OPERATIONS: [&str; 5] = ["add", "online", "offline", "remove", "unplug"];

/// How often each of them succeeded.
static SUCCEEDED: [AtomicU64; OPERATIONS.len()] = [const { AtomicU64::new(0) }; OPERATIONS.len()];

/// Refusals are as good as successes: what counts is what is left behind.
fn change(memory: &Memory<Fake>, dice: &mut Rng) {
    let mut mood = dice.fork();
    let pace = &mut Moody(&mut mood);
    let group = any_group(memory, dice);
    let range = group.map_or_else(|| any_range(dice, 4), |group| group.window);
    let name = group.map_or(dimm(0), |group| group.name);
    let operation = match dice.u32(..12) {
        0..3 => 0,
        3..7 => 1,
        7..9 => 2,
        9 => 3,
        10 => 4,
        _ => {
            return memory.set_policy(|policy| {
                policy.memmap_on_memory = dice.u32(..4) > 0;
                policy.online_policy = if dice.bool() { OnlinePolicy::AutoMovable } else { OnlinePolicy::ContigZones };
            });
        }
    };
    let is_done = match operation {
        0 => {
            let name = dimm(dice.u16(..DIMMS));
            memory.add(&AddRequest { range: any_range(dice, 8), node: any_node(dice), name }, pace).is_ok()
        }
        1 => {
            let zones = [OnlineAs::ByPolicy, OnlineAs::Zone(ZoneKind::Normal), OnlineAs::Zone(ZoneKind::Movable)];
            memory.online(&[range], zones[dice.usize(..3)], pace).is_ok()
        }
        2 => memory.offline(&online_parts(memory, range), pace).is_ok(),
        3 => memory.remove(&[name], pace).is_ok(),
        _ => memory.unplug(&[name], &online_parts(memory, range), pace).is_ok(),
    };
    SUCCEEDED[operation].fetch_add(u64::from(is_done), Ordering::Relaxed);
}

/// Reads everything that can be read beside changes.
fn look(memory: &Memory<Fake>, dice: &mut Rng) {
    let range = any_range(dice, 8);
    let pfn = range.pages().start().add(dice.u64(..range.pages().len()));
    assert_eq!(memory.frame_report(pfn).pfn, pfn);
    match dice.u32(..200) {
        0 => memory.for_each_zone(|zone| assert!(zone.managed <= zone.present)),
        1 => drop(memory.free_groups(pfn.section())),
        2 => drop(memory.section(range.first()).map(|section| memory.zone_chooser(section))),
        3 => drop(memory.memory_report()),
        4 => memory.drain_caches(),
        _ => {}
    }
}

#[test]
fn everything_is_as_it_was_after_everything_at_once() {
    let seconds = setting("ALTMAP_STRESS_SECONDS", 3);
    let seed = setting("ALTMAP_STRESS_SEED", 1);
    println!("ALTMAP_STRESS_SEED={seed}");
    let memory = booted();
    let before = Snapshot::of(&memory);
    let done = AtomicBool::new(false);
    let is_going_on = || !done.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let mut dice = Rng::with_seed(seed);
        for _ in 0..CPUS {
            let mut dice = dice.fork();
            let (memory, done) = (&memory, &done);
            scope.spawn(move || take_and_give(memory, &mut dice, done));
        }
        for work in [change, change, change, look] {
            let mut dice = dice.fork();
            let memory = &memory;
            scope.spawn(move || {
                while is_going_on() {
                    work(memory, &mut dice);
                }
            });
        }
        scope.spawn(|| {
            while is_going_on() {
                memory.housekeep();
                std::thread::yield_now();
            }
        });
        std::thread::sleep(Duration::from_secs(seconds));
        // On a busy host it may take longer until each has had its chance.
        let missing = || SUCCEEDED.iter().any(|count| count.load(Ordering::Relaxed) == 0);
        (0..LONGER).take_while(|_| missing()).for_each(|_| std::thread::sleep(Duration::from_secs(1)));
        done.store(true, Ordering::Relaxed);
    });
    assert_valid(&memory);
    println!("succeeded: {SUCCEEDED:?} of {OPERATIONS:?}");
    for (op, count) in OPERATIONS.iter().zip(&SUCCEEDED) {
        assert!(count.load(Ordering::Relaxed) > 0, "no {op} succeeded, so nothing was tested");
    }
    // A group whose struct pages lie in blocks of another one goes first.
    for _ in 0..DIMMS {
        for name in (0..DIMMS).map(dimm) {
            if let Some((_, group)) = memory.find_group(name) {
                let online = online_parts(&memory, group.window);
                let _ = memory.unplug(&[name], &online, &mut Unhurried);
            }
        }
    }
    assert!((0..DIMMS).all(|number| memory.find_group(dimm(number)).is_none()), "nothing is in use");
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}
