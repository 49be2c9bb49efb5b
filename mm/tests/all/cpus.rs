//! Several CPUs: what one keeps at hand is its own, and found by others when they have nothing else.

use crate::machine::dimms::{MOVABLE, plug_online};
use crate::machine::taking::{request, take_all};
use crate::machine::watched::TAKEN;
use crate::machine::{CPU, CPUS, Fake, Snapshot, assert_valid, blocks, booted};
use mm::Memory;
use mm::addr::{Order, Pfn};
use mm::alloc::request::Request;
use mm::frame::mobility::Mobility;

fn with_movable() -> Memory<Fake> {
    let memory = booted();
    plug_online(&memory, 0, blocks(32, 33), 0, MOVABLE);
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
    let all = || take_all(&memory, &request);
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
