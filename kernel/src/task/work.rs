//! The worker queue: things to do later, in order, by a task of the kernel's own.
#![deny(unsafe_code)]

use super::{WaitQueue, reap, scheduler};
use crate::sync::SpinLock;
use alloc::boxed::Box;

/// A submitter beyond this many waits.
const QUEUE_MAX: usize = 64;

/// A piece of work and what to call it.
struct Work {
    name: &'static str,
    run: Box<dyn FnOnce() + Send>,
}

static QUEUE: SpinLock<heapless::Deque<Work, QUEUE_MAX>> = SpinLock::new(heapless::Deque::new());
static CHANGED: WaitQueue = WaitQueue::new();

/// Has `run` run by the worker task, after everything submitted earlier.
pub(crate) fn submit(name: &'static str, run: impl FnOnce() + Send + 'static) {
    let mut work = Some(Work { name, run: Box::new(run) });
    CHANGED.wait_until(|| {
        let Some(submitted) = work.take() else {
            return true;
        };
        work = QUEUE.lock().push_back(submitted).err();
        work.is_none()
    });
    CHANGED.wake_all();
}

/// Makes the worker look for something to do.
pub(super) fn wake() {
    CHANGED.wake_all();
}

/// The worker task.
pub(super) fn run() {
    loop {
        let mut work = None;
        CHANGED.wait_until(|| {
            work = QUEUE.lock().pop_front();
            work.is_some() || scheduler::any_ended()
        });
        let any = reap();
        match work {
            Some(work) => {
                CHANGED.wake_all();
                log::trace!(target: "task", "working on {}", work.name);
                (work.run)();
            }
            // Somebody has ended who is still on his way out.
            None if !any => super::yield_now(),
            None => {}
        }
    }
}
