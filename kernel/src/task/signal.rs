//! That something came, told by whoever sees it to whoever waits for it.
#![deny(unsafe_code)]

use super::WaitQueue;
use crate::shim::atomic::{AtomicBool, Ordering};

/// One kind of event: whether it came, and who waits for it.
#[derive(Debug)]
pub(crate) struct Signal {
    is_raised: AtomicBool,
    waiters: WaitQueue,
}

impl Signal {
    pub(crate) const fn new() -> Self {
        Self { is_raised: AtomicBool::new(false), waiters: WaitQueue::new() }
    }

    /// Notes that it came; also in interrupt handlers.
    pub(crate) fn raise(&self) {
        // Release pairs with the Acquire in `take`.
        self.is_raised.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Waits until it came since the last time that somebody took notice.
    pub(crate) fn wait(&self) {
        self.waiters.wait_until(|| self.take());
    }

    /// The same, but no longer than until the clock shows `deadline_ns`; says whether it came.
    pub(crate) fn wait_until(&self, deadline_ns: u64) -> bool {
        self.waiters.wait_until_deadline(|| self.take(), deadline_ns)
    }

    /// Takes notice of what came so far; says whether something did.
    pub(crate) fn take(&self) -> bool {
        // Acquire pairs with the Release in `raise`.
        self.is_raised.swap(false, Ordering::Acquire)
    }
}
