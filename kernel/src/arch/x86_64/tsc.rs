//! The time-stamp counter, raw; `crate::time` turns it into nanoseconds.

/// Cycles since some moment before the kernel's entry.
pub(crate) fn ticks() -> u64 {
    // SAFETY: Every x86_64 CPU has RDTSC, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}
