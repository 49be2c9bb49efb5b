//! The same code with real threads: memory comes and goes while others take and give frames.

use crate::machine::taking::{request, take_all};
use crate::machine::{CPUS, Snapshot, assert_valid, blocks, booted, booted_on, dimm, node};
use mm::addr::{Order, PAGE_SIZE};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::hotplug::{AddRequest, UnplugError};
use mm::limits::{KERNEL_PAGES, RESERVE_PAGES};
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use std::sync::Barrier;
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
                    let request = Request { place: Place::Near(node(1)), ..request(order, mobility) };
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

#[test]
fn cpus_that_take_all_there_is_leave_the_reserve_as_it_is() {
    all_is_taken_but(RESERVE_PAGES, Urgency::Ordinary);
}

#[test]
fn cpus_that_take_in_bulk_leave_the_kernel_its_frames() {
    all_is_taken_but(RESERVE_PAGES + KERNEL_PAGES, Urgency::Bulk);
}

/// All CPUs together take boot memory, and leave so many frames.
fn all_is_taken_but(left: u64, urgency: Urgency) {
    let memory = booted_on([0, 1]);
    let before = Snapshot::of(&memory);
    let free_boot = || {
        let mut pages = 0;
        memory.for_each_zone(|zone| pages += zone.free_boot / PAGE_SIZE);
        pages
    };
    for round in 0..20 {
        let start = Barrier::new(CPUS);
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..CPUS)
                .map(|cpu| {
                    let order = Order::new(if cpu == round % CPUS { 3 } else { 0 }).expect("kept");
                    let request = Request { order, urgency, ..Request::kernel(Owner::Selftest) };
                    let (memory, start) = (&memory, &start);
                    scope.spawn(move || {
                        start.wait();
                        let taken = take_all(memory, &request);
                        taken.into_iter().map(|head| (head, order)).collect::<Vec<_>>()
                    })
                })
                .collect();
            let taken: Vec<_> = takers.into_iter().map(|taker| taker.join().expect("it ends")).collect();
            assert!(free_boot() >= left, "together they took more than they may");
            // One may have given up while another had set aside what it then did not find.
            let single = Request { urgency, ..Request::kernel(Owner::Selftest) };
            let rest = take_all(&memory, &single);
            assert_eq!(free_boot(), left);
            taken.into_iter().flatten().for_each(|(head, order)| memory.free(head, order));
            rest.into_iter().for_each(|head| memory.free(head, Order::PAGE));
        });
    }
    assert_valid(&memory);
    assert_eq!(Snapshot::of(&memory), before);
}
