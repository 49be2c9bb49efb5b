//! The machine itself: heap, tasks, time, console.
#![deny(unsafe_code)]

use super::Test;
use crate::sync::Mutex;
use crate::task;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "task::tasks_switch_and_end",
        run: tasks_switch_and_end,
    },
    Test {
        name: "task::a_mutex_makes_tasks_wait",
        run: a_mutex_makes_tasks_wait,
    },
];

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
    assert_eq!(
        *log.lock(),
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    );
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
