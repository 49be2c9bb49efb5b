//! Several CPUs: what one keeps at hand is its own, and found by others when they have nothing else.

use crate::machine::watched::TAKEN;
use crate::machine::{CPU, CPUS, Fake, Snapshot, assert_valid, blocks, booted, dimm, node};
use mm::Memory;
use mm::addr::{NodeId, Order, Pfn};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::hotplug::AddRequest;
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::site::Site;

fn request(order: Order, mobility: Mobility) -> Request {
    let place = Place::Near(NodeId::ZERO);
    Request { order, mobility, place, owner: Owner::Selftest, urgency: Urgency::Ordinary, site: Site::here() }
}

fn with_movable() -> Memory<Fake> {
    let memory = booted();
    memory.add(&AddRequest { range: blocks(32, 33), node: node(0), name: dimm(0) }, &mut Unhurried).expect("vacant");
    memory.online(&[blocks(32, 33)], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline");
    memory
}

/// Does something on a CPU of that number.
fn on_cpu<R: Send>(cpu: usize, work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            CPU.set(cpu);
            work()
        });
        working.join().expect("it ends")
    })
}

/// The locks that taking and freeing a block takes when its CPU has some at hand.
fn locks_of_a_pair(memory: &Memory<Fake>, request: &Request) -> Vec<usize> {
    let pair = || memory.free(memory.allocate(request).expect("there is plenty"), request.order);
    pair();
    TAKEN.set(Some(Vec::new()));
    pair();
    TAKEN.take().expect("set above")
}

#[test]
fn a_cpu_that_has_blocks_at_hand_takes_its_own_lock_only() {
    let memory = with_movable();
    for order in [Order::PAGE, Order::PAGEBLOCK, Order::MAX] {
        for mobility in Mobility::ALL {
            let request = request(order, mobility);
            let mut locks: Vec<usize> = (0..CPUS)
                .map(|cpu| match on_cpu(cpu, || locks_of_a_pair(&memory, &request))[..] {
                    [taken, freed] if taken == freed => taken,
                    ref others => panic!("{request:?} takes the locks {others:x?}"),
                })
                .collect();
            locks.sort_unstable();
            assert!(locks.is_sorted_by(|a, b| b - a >= 128), "no two CPUs write the same line");
        }
    }
    assert_valid(&memory);
}

#[test]
fn what_cpus_that_are_gone_had_at_hand_is_found() {
    let memory = with_movable();
    let before = Snapshot::of(&memory);
    let request = request(Order::PAGE, Mobility::Movable);
    let all = || -> Vec<Pfn> { std::iter::from_fn(|| memory.allocate(&request).ok()).collect() };
    let give = |taken: Vec<Pfn>| taken.into_iter().for_each(|head| memory.free(head, Order::PAGE));
    // The first and the last CPU are never seen.
    let count = on_cpu(1, || {
        let taken = all();
        let count = taken.len();
        give(taken);
        count
    });
    let cached = || {
        let mut cached = 0;
        memory.for_each_zone(|zone| cached += zone.cached);
        cached
    };
    assert!(cached() > 0);
    on_cpu(CPUS - 2, || {
        let taken = all();
        assert_eq!((taken.len(), cached()), (count, 0));
        give(taken);
    });
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}
