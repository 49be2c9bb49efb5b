//! The clock: nanoseconds since the kernel was entered, from the time-stamp counter.
//!
//! Until it is calibrated the counter is taken to be faster than any real one, so that the clock runs slow and never
//! jumps back.
#![deny(unsafe_code)]

use crate::arch;
use crate::task::{Cancelled, WaitQueue};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// Taken before calibration.
const FASTEST_TICKS_PER_SECOND: u64 = 8_000_000_000;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Counter value at the kernel's entry.
static ENTRY_TICKS: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds per tick as a fraction of 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(scale(FASTEST_TICKS_PER_SECOND));

/// Nobody wakes it; sleepers wait for their deadline.
static SLEEPERS: WaitQueue = WaitQueue::new();

/// Starts the clock at zero; the first thing the kernel does.
pub(crate) fn start() {
    ENTRY_TICKS.store(arch::ticks(), Relaxed);
}

/// Nanoseconds since the kernel was entered.
pub(crate) fn now_ns() -> u64 {
    ticks_to_ns(arch::ticks().saturating_sub(ENTRY_TICKS.load(Relaxed)))
}

/// Tells the clock how fast the counter really is.
pub(crate) fn calibrated(ticks_per_second: u64) {
    NS_PER_TICK.store(scale(ticks_per_second), Relaxed);
}

/// The length of a span of counter ticks.
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Relaxed))) >> 32) as u64
}

/// The clock's value after `duration` from now.
pub(crate) fn deadline_after(duration: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Lets the task sleep.
pub(crate) fn sleep(duration: Duration) {
    SLEEPERS.wait_until_deadline(|| false, deadline_after(duration));
}

/// Lets the task sleep, unless it is asked to stop.
pub(crate) fn sleep_cancellable(duration: Duration) -> Result<(), Cancelled> {
    SLEEPERS
        .wait_until_deadline_cancellable(|| false, deadline_after(duration))
        .map(|_| ())
}

const fn scale(ticks_per_second: u64) -> u64 {
    (((NS_PER_SECOND as u128) << 32) / ticks_per_second as u128) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_ticks_is_a_second() {
        for rate in [1_000_000_000, 2_494_000_000, 5_100_000_000] {
            let ns = ((u128::from(scale(rate)) * u128::from(rate)) >> 32) as u64;
            assert!(NS_PER_SECOND - ns < 10, "{rate}: {ns}");
        }
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_its_end() {
        assert_eq!(deadline_after(Duration::MAX), u64::MAX);
    }
}
