//! The top-level page table that a CPU walks: the kernel's own, or that of an address space.
//!
//! The upper half of all of them is the same. A CPU takes the next task's before it lets go of the flow that it leaves, so
//! whatever a task had loaded is loaded nowhere once the task has left it.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

/// Where the kernel's own table lies.
static KERNEL: AtomicU64 = AtomicU64::new(0);

/// A top-level table, by its physical address; zero stands for the kernel's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root(u64);

impl Root {
    /// The kernel's own, whose lower half is empty.
    pub(crate) const KERNEL: Self = Self(0);

    /// The table at a physical address.
    ///
    /// # Safety
    /// Its upper half is that of the kernel's own, and it stays as long as a task has it. While all other CPUs stand still,
    /// tasks may be given another one with the same contents.
    pub(crate) const unsafe fn at(address: u64) -> Self {
        Self(address)
    }

    /// Where it lies; zero for the kernel's own.
    pub(crate) const fn address(self) -> u64 {
        self.0
    }
}

/// A place for one.
#[derive(Debug)]
pub(super) struct RootCell(AtomicU64);

impl RootCell {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(Root::KERNEL.0))
    }

    pub(super) fn get(&self) -> Root {
        Root(self.0.load(Relaxed))
    }

    pub(super) fn set(&self, root: Root) {
        self.0.store(root.0, Relaxed);
    }
}

/// What this CPU walks now is the kernel's own from here on.
pub(crate) fn adopt_kernel_root() {
    KERNEL.store(Cr3::read().0.start_address().as_u64(), Relaxed);
}

/// Makes this CPU walk a table, and forget what it remembers of another one's lower half.
pub(super) fn load(root: Root) {
    let address = if root == Root::KERNEL { KERNEL.load(Relaxed) } else { root.0 };
    let frame = PhysFrame::containing_address(PhysAddr::new(address));
    if Cr3::read().0 != frame {
        // SAFETY: All of them map the kernel alike, by the contract of `Root::at`, and global translations stay right.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    }
}
