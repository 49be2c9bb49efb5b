//! Which CPU panics. Everything that could wait for another CPU asks here first.

use super::cpu;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const NO_CPU: usize = usize::MAX;

/// The CPU that panics.
static PANICKING: AtomicUsize = AtomicUsize::new(NO_CPU);

/// Makes this CPU, interrupts off, the one that panics.
///
/// # Errors
/// The CPU that was faster, which can be this one.
pub(crate) fn begin_panic() -> Result<(), usize> {
    PANICKING.compare_exchange(NO_CPU, cpu::cpu_id(), SeqCst, SeqCst).map(drop)
}

/// Whether a CPU panics: then output must not wait for anything.
pub(crate) fn is_panicking() -> bool {
    PANICKING.load(SeqCst) != NO_CPU
}
