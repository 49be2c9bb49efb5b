//! CPUs, one bit each.
#![deny(unsafe_code)]

use crate::arch::CPUS_MAX;

/// Some CPUs; yields their numbers.
#[must_use = "a CPU that is not kicked rests on"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuSet(u64);

const _: () = assert!(CPUS_MAX <= u64::BITS as usize);

impl CpuSet {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn insert(&mut self, cpu: usize) {
        self.0 |= 1 << cpu;
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, cpu: usize) -> bool {
        let before = self.0;
        self.0 &= !(1 << cpu);
        self.0 != before
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl Iterator for CpuSet {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let first = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.remove(first);
        Some(first)
    }
}
