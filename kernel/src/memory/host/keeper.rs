//! The task that does for `mm` what those who take and give memory have no room for: closing sections that hold nothing,
//! opening one ahead of need.
#![deny(unsafe_code)]

use crate::memory::frames::mm;
use crate::task::{self, WaitQueue};
use core::sync::atomic::{AtomicBool, Ordering};

static WANTED: AtomicBool = AtomicBool::new(false);
static QUEUE: WaitQueue = WaitQueue::new();

/// Has the task look soon. May be called with any lock held but the scheduler's.
pub(super) fn wake() {
    WANTED.store(true, Ordering::Relaxed);
    QUEUE.wake_all();
}

/// Starts the task.
pub(crate) fn start_keeper() {
    task::spawn("keeper", || {
        loop {
            QUEUE.wait_until(|| WANTED.swap(false, Ordering::Relaxed));
            mm().housekeep();
            // It may want to go on at once.
            task::yield_now();
        }
    });
}
