//! The same code with real threads: memory comes and goes while others take and give frames.

mod machine;

use machine::{Snapshot, assert_valid, blocks, booted, dimm, node};
use mm::addr::Order;
use mm::alloc::{Mobility, Place, Request, Urgency};
use mm::hotplug::{AddRequest, UnplugError};
use mm::machine::Unhurried;
use mm::page::Owner;
use mm::policy::OnlineAs;
use mm::section::ZoneKind;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn memory_comes_and_goes_while_others_allocate() {
    let memory = booted();
    let before = Snapshot::of(&memory);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=3u64 {
            let (memory, done) = (&memory, &done);
            scope.spawn(move || {
                let mut held = Vec::new();
                let mut state = seed;
                while !done.load(Ordering::Relaxed) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let order = Order::new((state >> 40) as u8 % 11).expect("kept");
                    let mobility = if state >> 50 & 1 == 0 { Mobility::Movable } else { Mobility::Unmovable };
                    let place = Place::Near(node(1));
                    let owner = Owner::Selftest;
                    let request = Request { order, mobility, place, owner, urgency: Urgency::Ordinary };
                    if held.len() < 20
                        && let Ok(head) = memory.allocate(&request)
                    {
                        held.push((head, order));
                    } else if !held.is_empty() {
                        let (head, order) = held.swap_remove((state >> 33) as usize % held.len());
                        memory.free(head, order);
                    }
                }
                held.into_iter().for_each(|(head, order)| memory.free(head, order));
            });
        }
        for round in 0..12 {
            let zone = if round % 2 == 0 { ZoneKind::Movable } else { ZoneKind::Normal };
            let request = AddRequest { range: blocks(32, 34), node: node(1), name: dimm(0) };
            memory.add(&request, &mut Unhurried).expect("vacant");
            memory.online(&[blocks(32, 34)], OnlineAs::Zone(zone), &mut Unhurried).expect("offline");
            loop {
                match memory.unplug(&[dimm(0)], &[blocks(32, 34)], &mut Unhurried) {
                    Ok(()) => break,
                    Err(UnplugError::Offline(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}
