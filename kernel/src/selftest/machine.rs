//! The machine itself: heap, tasks, time, console.
#![deny(unsafe_code)]

use super::Test;
use crate::sync::Mutex;
use crate::task::{self, WaitQueue};
use crate::{arch, drivers::console, time};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

pub(super) const TESTS: &[Test] = &[
    Test { name: "heap::memory_comes_back", run: memory_comes_back },
    Test { name: "trap::a_breakpoint_returns", run: a_breakpoint_returns },
    Test { name: "time::the_tick_keeps_pace_with_the_clock", run: the_tick_keeps_pace_with_the_clock },
    Test { name: "time::sleepers_wake_in_time_and_in_order", run: sleepers_wake_in_time_and_in_order },
    Test { name: "task::tasks_switch_and_end", run: tasks_switch_and_end },
    Test { name: "task::a_mutex_makes_tasks_wait", run: a_mutex_makes_tasks_wait },
    Test { name: "task::a_cancelled_sleeper_wakes_at_once", run: a_cancelled_sleeper_wakes_at_once },
    Test { name: "task::work_runs_in_order", run: work_runs_in_order },
    Test { name: "console::the_ring_counts_what_comes_in", run: the_ring_counts_what_comes_in },
];

fn memory_comes_back() {
    for round in 0..64 {
        let blocks: Vec<Vec<u8>> = (0..16).map(|block| alloc::vec![block; 8 * 1024]).collect();
        for (value, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|&byte| usize::from(byte) == value), "round {round}");
        }
    }
}

fn a_breakpoint_returns() {
    arch::breakpoint();
}

fn the_tick_keeps_pace_with_the_clock() {
    const WINDOW: Duration = Duration::from_millis(300);
    let (ticks, start) = (arch::timer::tick_count(), time::now_ns());
    time::sleep(WINDOW);
    let ticks = arch::timer::tick_count() - ticks;
    let expected = (time::now_ns() - start) * arch::timer::TICK_HZ / 1_000_000_000;
    assert!(ticks.abs_diff(expected) <= expected / 3, "{ticks} ticks, {expected} expected");
}

fn sleepers_wake_in_time_and_in_order() {
    let woken = Arc::new(Mutex::new(Vec::new()));
    let start = time::now_ns();
    let tasks = [60, 20, 40].map(|milliseconds| {
        let woken = Arc::clone(&woken);
        task::spawn("sleeper", move || {
            time::sleep(Duration::from_millis(milliseconds));
            woken.lock().push((milliseconds, (time::now_ns() - start) / 1_000_000));
        })
    });
    for task in tasks {
        task::join(task).expect("nobody cancels the tests");
    }
    let woken = woken.lock();
    assert!(woken.iter().map(|(wanted, _)| wanted).is_sorted(), "{woken:?}");
    assert!(woken.iter().all(|(wanted, slept)| slept >= wanted && *slept < wanted + 500), "{woken:?}");
}

fn a_cancelled_sleeper_wakes_at_once() {
    let task = task::spawn("sleeper", || {
        let outcome = time::sleep_cancellable(Duration::from_secs(3600));
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
    assert_eq!(*log.lock(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
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
