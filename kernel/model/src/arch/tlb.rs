//! Translations: one, whose current state has a number, and the number that each CPU remembers.

use super::cpu::{CPUS_MAX, cpu_id};
use crate::shim::atomic::{AtomicU64, Ordering::SeqCst};
use core::sync::atomic::AtomicBool;

static CURRENT: AtomicU64 = AtomicU64::new(0);
static REMEMBERED: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

/// CPUs that use translations. One that has just come uses none before it has looked at requests.
static IN_USE: [AtomicBool; CPUS_MAX] = [const { AtomicBool::new(false) }; CPUS_MAX];

/// From now on this CPU uses translations.
pub(super) fn start_using() {
    IN_USE[cpu_id()].store(true, SeqCst);
}

pub(super) fn flush_all() {
    REMEMBERED[cpu_id()].store(CURRENT.load(SeqCst), SeqCst);
}

/// Changes the translation; says what it is now.
pub(crate) fn change() -> u64 {
    CURRENT.fetch_add(1, SeqCst) + 1
}

/// Panics if a CPU still uses how it was before `number`.
pub(crate) fn assert_forgotten(number: u64) {
    for cpu in (0..CPUS_MAX).filter(|cpu| IN_USE[*cpu].load(SeqCst)) {
        assert!(REMEMBERED[cpu].load(SeqCst) >= number, "cpu {cpu} uses an old translation");
    }
}
