//! The machine itself: heap, tasks, time, console.
#![deny(unsafe_code)]

use super::Test;
use crate::sync::{Mutex, SpinLock};
use crate::task::{self, WaitQueue};
use crate::{arch, drivers::console, logging, memory, symbols, time};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;

pub(super) const TESTS: &[Test] = &[
    Test { name: "trap::a_breakpoint_returns", run: a_breakpoint_returns },
    Test { name: "trap::callers_are_found_by_their_frames", run: callers_are_found_by_their_frames },
    Test { name: "sync::a_spin_lock_keeps_interrupts_off", run: a_spin_lock_keeps_interrupts_off },
    Test { name: "log::the_ring_remembers_a_line", run: the_ring_remembers_a_line },
    Test { name: "time::the_clock_never_goes_back", run: the_clock_never_goes_back },
    Test { name: "time::the_tick_never_outruns_the_clock", run: the_tick_never_outruns_the_clock },
    Test { name: "time::no_sleeper_wakes_early", run: no_sleeper_wakes_early },
    Test { name: "task::tasks_switch_and_end", run: tasks_switch_and_end },
    Test { name: "task::a_mutex_makes_tasks_wait", run: a_mutex_makes_tasks_wait },
    Test { name: "task::a_deadline_ends_a_wait", run: a_deadline_ends_a_wait },
    Test { name: "task::waking_reaches_everybody", run: waking_reaches_everybody },
    Test { name: "task::ended_tasks_leave_nothing_behind", run: ended_tasks_leave_nothing_behind },
    Test { name: "task::a_cancelled_sleeper_wakes_at_once", run: a_cancelled_sleeper_wakes_at_once },
    Test { name: "task::work_runs_in_order", run: work_runs_in_order },
    Test { name: "console::the_ring_counts_what_comes_in", run: the_ring_counts_what_comes_in },
];

fn a_breakpoint_returns() {
    arch::breakpoint();
}

fn callers_are_found_by_their_frames() {
    #[inline(never)]
    fn inner() -> Vec<usize> {
        let frames = arch::current_frames().collect();
        core::hint::black_box(frames)
    }
    let frames = inner();
    assert!(frames.len() >= 3, "{frames:x?}");
    let names: Vec<_> = frames.iter().filter_map(|&address| symbols::lookup(address as u64 - 1)).collect();
    let known = names.iter().any(|symbol| symbol.name.contains("first_act"));
    assert!(known, "{names:?}");
}

fn a_spin_lock_keeps_interrupts_off() {
    let (outer, inner) = (SpinLock::new(()), SpinLock::new(()));
    assert!(arch::may_block());
    let first = outer.lock();
    let second = inner.lock();
    assert!(!arch::may_block());
    drop(first);
    assert!(!arch::may_block(), "the inner lock is still held");
    drop(second);
    assert!(arch::may_block());
}

fn the_ring_remembers_a_line() {
    log::info!(target: "selftest", "a line to remember");
    let mut found = false;
    logging::ring::for_each(|line| found |= line.starts_with('[') && line.ends_with("] selftest: a line to remember"));
    assert!(found);
}

fn the_clock_never_goes_back() {
    let mut last = time::now_ns();
    for _ in 0..10_000 {
        let now = time::now_ns();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
}

fn the_tick_never_outruns_the_clock() {
    const WINDOW: Duration = Duration::from_millis(300);
    let (ticks, start) = (arch::timer::tick_count(), time::now_ns());
    task::sleep(WINDOW);
    let ticks = arch::timer::tick_count() - ticks;
    let expected = (time::now_ns() - start) * arch::timer::TICK_HZ / 1_000_000_000;
    // A host that is busy elsewhere loses ticks, so too few are no fault of ours.
    assert!((1..=expected + expected / 3).contains(&ticks), "{ticks} ticks, {expected} expected");
}

fn no_sleeper_wakes_early() {
    let start = time::now_ns();
    let tasks = [60, 20, 40].map(|milliseconds| {
        let slept = Arc::new(Mutex::new(0));
        let report = Arc::clone(&slept);
        let task = task::spawn("sleeper", move || {
            task::sleep(Duration::from_millis(milliseconds));
            *report.lock() = time::now_ns() - start;
        });
        (task, milliseconds, slept)
    });
    for (task, milliseconds, slept) in tasks {
        task::join(task).expect("nobody cancels the tests");
        let slept = *slept.lock();
        assert!(slept >= milliseconds * 1_000_000, "slept {slept} ns instead of {milliseconds} ms");
    }
}

fn a_deadline_ends_a_wait() {
    let queue = WaitQueue::new();
    let start = time::now_ns();
    let satisfied = queue.wait_until_deadline(|| false, start + 30_000_000);
    assert!(!satisfied);
    assert!(time::now_ns() >= start + 30_000_000);
    assert!(queue.wait_until_deadline(|| true, 0), "what holds already needs no time");
}

fn waking_reaches_everybody() {
    let gate = Arc::new((WaitQueue::new(), AtomicBool::new(false), AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let gate = Arc::clone(&gate);
            task::spawn("waiter", move || {
                let (queue, open, passed) = &*gate;
                queue.wait_until(|| open.load(Ordering::Relaxed));
                passed.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    task::yield_now();
    let (queue, open, passed) = &*gate;
    queue.wake_all();
    task::yield_now();
    assert_eq!(passed.load(Ordering::Relaxed), 0, "the gate is closed");
    open.store(true, Ordering::Relaxed);
    queue.wake_all();
    for task in tasks {
        task::join(task).expect("nobody cancels the tests");
    }
    assert_eq!(passed.load(Ordering::Relaxed), 20);
}

fn ended_tasks_leave_nothing_behind() {
    let round = || {
        for _ in 0..50 {
            let task = task::spawn("short", || ());
            task::join(task).expect("nobody cancels the tests");
        }
        task::settle();
        (task::list().len(), memory::heap_used())
    };
    let first = round();
    for _ in 0..5 {
        assert_eq!(round(), first);
    }
}

fn a_cancelled_sleeper_wakes_at_once() {
    let task = task::spawn("sleeper", || {
        let outcome = task::sleep_cancellable(Duration::from_secs(3600));
        assert_eq!(outcome, Err(task::Cancelled));
    });
    task::yield_now();
    assert!(task::cancel(task));
    task::join(task).expect("nobody cancels the tests");
    assert!(!task::cancel(task), "the task has ended");
}

fn work_runs_in_order() {
    let done = Arc::new(Mutex::new(Vec::new()));
    let finished = Arc::new(WaitQueue::new());
    for number in 0..200 {
        let (done, finished) = (Arc::clone(&done), Arc::clone(&finished));
        task::work::submit("count", move || {
            done.lock().push(number);
            finished.wake_all();
        });
    }
    finished.wait_until(|| done.try_lock().is_some_and(|done| done.len() == 200));
    assert!(done.lock().is_sorted());
}

fn the_ring_counts_what_comes_in() {
    let before = console::bytes_received();
    let sent = console::loop_back(b"loop");
    let received: Vec<u8> = (0..sent).map_while(|_| console::read_timeout(Duration::from_secs(1))).collect();
    assert_eq!(received, b"loop");
    assert_eq!(console::bytes_received() - before, 4);
}

fn tasks_switch_and_end() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..3)
        .map(|number| {
            let log = Arc::clone(&log);
            task::spawn("counter", move || {
                for round in 0..2 {
                    log.lock().push((round, number));
                    task::yield_now();
                }
            })
        })
        .collect();
    for task in tasks {
        task::join(task).expect("nobody cancels the tests");
    }
    let log = log.lock();
    for number in 0..3 {
        let rounds: Vec<_> = log.iter().filter(|(_, by)| *by == number).map(|(round, _)| *round).collect();
        assert_eq!(rounds, [0, 1]);
    }
}

fn a_mutex_makes_tasks_wait() {
    let counter = Arc::new(Mutex::new(0));
    let held = counter.lock();
    let task = task::spawn("waiter", {
        let counter = Arc::clone(&counter);
        move || *counter.lock() += 1
    });
    for _ in 0..10 {
        task::yield_now();
    }
    assert_eq!(*held, 0);
    drop(held);
    task::join(task).expect("nobody cancels the tests");
    assert_eq!(*counter.lock(), 1);
}
