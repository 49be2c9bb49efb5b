//! Locks. The type says what a lock does to its holder.
//!
//! `SpinLock` turns interrupts off while held: for what interrupt handlers also touch, and for short work. `Mutex` lets
//! the task sleep until the lock is free: for work that may take long; never in an interrupt handler.
#![deny(unsafe_code)]

use crate::arch;
use crate::shim::atomic::{AtomicBool, Ordering};
use crate::shim::hint;
use crate::task::WaitQueue;
use lock_api::{GuardNoSend, RawMutex};

/// A lock whose holder spins for it and runs with interrupts off.
pub(crate) type SpinLock<T> = lock_api::Mutex<RawIrqSpin, T>;
pub(crate) type SpinLockGuard<'a, T> = lock_api::MutexGuard<'a, RawIrqSpin, T>;

/// A lock whose holder may sleep.
pub(crate) type Mutex<T> = lock_api::Mutex<RawSleep, T>;

/// `spin`'s mutex with interrupts off.
#[derive(Debug)]
pub(crate) struct RawIrqSpin {
    spin: spin::Mutex<()>,
}

#[expect(unsafe_code, reason = "lock_api's trait promises mutual exclusion, which an implementation vouches for")]
// SAFETY: Mutual exclusion is that of the inner mutex.
unsafe impl RawMutex for RawIrqSpin {
    const INIT: Self = Self { spin: spin::Mutex::new(()) };
    type GuardMarker = GuardNoSend;

    /// Interrupts, and with them other CPUs' requests, are answered as before while the lock is waited for.
    fn lock(&self) {
        while !self.try_lock() {
            while self.is_locked() {
                hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        arch::push_off();
        let taken = RawMutex::try_lock(&self.spin);
        if !taken {
            arch::pop_off();
        }
        taken
    }

    unsafe fn unlock(&self) {
        // SAFETY: The caller holds the lock.
        unsafe { RawMutex::unlock(&self.spin) };
        arch::pop_off();
    }

    fn is_locked(&self) -> bool {
        RawMutex::is_locked(&self.spin)
    }
}

/// A flag and the tasks that wait for it to clear.
#[derive(Debug)]
pub(crate) struct RawSleep {
    held: AtomicBool,
    waiters: WaitQueue,
}

#[expect(unsafe_code, reason = "lock_api's trait promises mutual exclusion, which an implementation vouches for")]
// SAFETY: Only one caller at a time turns `held` from false to true, and only the holder turns it back.
unsafe impl RawMutex for RawSleep {
    const INIT: Self = Self { held: AtomicBool::new(false), waiters: WaitQueue::new() };
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        self.waiters.wait_until(|| self.try_lock());
    }

    fn try_lock(&self) -> bool {
        // Acquire pairs with the Release in `unlock`.
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        // Release pairs with the Acquire in `try_lock`.
        self.held.store(false, Ordering::Release);
        self.waiters.wake_all();
    }

    fn is_locked(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    /// Tries until it is free: threads of the host are no tasks, and cannot wait as such.
    fn counts_to_the_sum<R: RawMutex + Send + Sync + 'static>() {
        let counter = Arc::new(lock_api::Mutex::<R, u32>::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counter = Arc::clone(&counter);
                let count = move || {
                    let mut guard = loop {
                        match counter.try_lock() {
                            Some(guard) => break guard,
                            None => thread::yield_now(),
                        }
                    };
                    *guard += 1;
                };
                thread::spawn(move || (0..1000).for_each(|_| count()))
            })
            .collect();
        for thread in threads {
            thread.join().expect("the thread only counts");
        }
        assert_eq!(*counter.lock(), 4000);
    }

    #[test]
    fn a_spin_lock_excludes_other_threads() {
        counts_to_the_sum::<RawIrqSpin>();
    }

    #[test]
    fn a_mutex_excludes_other_threads() {
        counts_to_the_sum::<RawSleep>();
    }

    #[test]
    fn a_held_lock_refuses_a_second_holder() {
        let lock = SpinLock::new(());
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert!(lock.try_lock().is_some());
    }
}
