//! Stacks that nobody stands on: flows are threads, which have their own.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Stacks that have not been given back.
static STACKS: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Stack(());

impl Stack {
    pub(crate) fn bounds(&self) -> (usize, usize) {
        (0, 0)
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut []
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        STACKS.fetch_sub(1, Relaxed);
    }
}

pub(crate) fn alloc_stack() -> Option<Stack> {
    STACKS.fetch_add(1, Relaxed);
    Some(Stack(()))
}

pub(crate) fn stacks() -> usize {
    STACKS.load(Relaxed)
}
