//! Top-level page tables, known by their number.

use super::cpu::{CPUS_MAX, cpu_id};
use crate::shim::atomic::{AtomicU64, Ordering::SeqCst};

/// What each CPU walks.
static LOADED: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root(u64);

impl Root {
    pub(crate) const KERNEL: Self = Self(0);

    pub(crate) const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

pub(super) struct RootCell(AtomicU64);

impl RootCell {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn get(&self) -> Root {
        Root(self.0.load(SeqCst))
    }

    pub(super) fn set(&self, root: Root) {
        self.0.store(root.0, SeqCst);
    }
}

pub(super) fn load(root: Root) {
    LOADED[cpu_id()].store(root.0, SeqCst);
}

/// What the flow that asks sees.
pub(crate) fn loaded() -> Root {
    let off = super::irq_off();
    let root = Root(LOADED[cpu_id()].load(SeqCst));
    drop(off);
    root
}

pub(crate) fn is_loaded_anywhere(root: Root) -> bool {
    LOADED.iter().any(|loaded| loaded.load(SeqCst) == root.0)
}
