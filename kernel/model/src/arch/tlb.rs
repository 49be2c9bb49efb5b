//! Translations: one, whose current state has a number, and the number that each CPU remembers.

use super::cpu::{CPUS_MAX, cpu_id, online_cpus};
use crate::atomic::{AtomicU64, Ordering::SeqCst};

static CURRENT: AtomicU64 = AtomicU64::new(0);
static REMEMBERED: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

pub(super) fn forget_all() {
    REMEMBERED[cpu_id()].store(CURRENT.load(SeqCst), SeqCst);
}

/// Changes the translation; says what it is now.
pub(crate) fn change() -> u64 {
    CURRENT.fetch_add(1, SeqCst) + 1
}

/// Panics if a CPU still remembers how it was before `number`.
pub(crate) fn assert_forgotten(number: u64) {
    for cpu in online_cpus() {
        assert!(REMEMBERED[cpu].load(SeqCst) >= number, "cpu {cpu} remembers an old translation");
    }
}
