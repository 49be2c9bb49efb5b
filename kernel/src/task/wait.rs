//! Waiting for something to become true.
//!
//! A queue holds nobody: a waiting task remembers which queue it waits on, and waking looks for those. So a queue is one
//! word, needs no memory, and nothing has to be unlinked when a deadline or a cancellation ends the wait.
#![deny(unsafe_code)]

use super::{cancelled, scheduler};
use crate::shim::atomic::{AtomicUsize, Ordering, fence};
use crate::time;
use core::time::Duration;
use thiserror::Error;

/// The task was asked to stop while it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("cancelled")]
pub(crate) struct Cancelled;

/// Tasks that wait for one kind of event.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    /// How many wait; also what gives every queue an address of its own.
    waiters: AtomicUsize,
}

/// Nobody wakes it; sleepers wait for their deadline.
static SLEEPERS: WaitQueue = WaitQueue::new();

/// Lets the task sleep.
pub(crate) fn sleep(duration: Duration) {
    SLEEPERS.wait_until_deadline(|| false, time::deadline_after(duration));
}

/// Lets the task sleep, unless it is asked to stop.
pub(crate) fn sleep_cancellable(duration: Duration) -> Result<(), Cancelled> {
    SLEEPERS.wait_until_deadline_cancellable(|| false, time::deadline_after(duration)).map(|_| ())
}

/// Whether a request to stop ends the wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnCancel {
    KeepWaiting,
    Return,
}

enum Outcome {
    Satisfied,
    DeadlinePassed,
    Cancelled,
}

impl WaitQueue {
    pub(crate) const fn new() -> Self {
        Self { waiters: AtomicUsize::new(0) }
    }

    /// Blocks the task until `condition` holds. The condition must not block.
    pub(crate) fn wait_until(&self, condition: impl FnMut() -> bool) {
        self.wait(condition, None, OnCancel::KeepWaiting);
    }

    /// Blocks until `condition` holds or the clock shows `deadline_ns`; says whether the condition holds.
    pub(crate) fn wait_until_deadline(&self, condition: impl FnMut() -> bool, deadline_ns: u64) -> bool {
        let outcome = self.wait(condition, Some(deadline_ns), OnCancel::KeepWaiting);
        matches!(outcome, Outcome::Satisfied)
    }

    /// Blocks until `condition` holds, unless the task is asked to stop.
    pub(crate) fn wait_until_cancellable(&self, condition: impl FnMut() -> bool) -> Result<(), Cancelled> {
        match self.wait(condition, None, OnCancel::Return) {
            Outcome::Cancelled => Err(Cancelled),
            Outcome::Satisfied | Outcome::DeadlinePassed => Ok(()),
        }
    }

    /// Blocks until `condition` holds or the deadline passes (says which), unless the task is asked to stop.
    pub(crate) fn wait_until_deadline_cancellable(
        &self,
        condition: impl FnMut() -> bool,
        deadline_ns: u64,
    ) -> Result<bool, Cancelled> {
        match self.wait(condition, Some(deadline_ns), OnCancel::Return) {
            Outcome::Cancelled => Err(Cancelled),
            Outcome::Satisfied => Ok(true),
            Outcome::DeadlinePassed => Ok(false),
        }
    }

    /// Lets every waiting task look at its condition again. May be called by an interrupt handler.
    pub(crate) fn wake_all(&self) {
        // What the caller made true must be visible before we look for waiters, who count themselves before they look at it.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            scheduler::wake_queue(self.address());
        }
    }

    fn wait(&self, mut condition: impl FnMut() -> bool, deadline_ns: Option<u64>, on_cancel: OnCancel) -> Outcome {
        if condition() {
            return Outcome::Satisfied;
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            scheduler::prepare_to_wait(self.address(), deadline_ns);
            if condition() {
                break Outcome::Satisfied;
            }
            if deadline_ns.is_some_and(|deadline| time::now_ns() >= deadline) {
                break Outcome::DeadlinePassed;
            }
            if on_cancel == OnCancel::Return && cancelled() {
                break Outcome::Cancelled;
            }
            scheduler::wait();
        };
        scheduler::stay_running();
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}
