//! What frames hold, as a whole. In one instruction each, which an interrupt may stop half-way: a loop of the library's
//! might go byte by byte.

use super::OwnedFrames;
use crate::memory::layout;
use mm::addr::{Order, PAGE_SIZE, Pfn};

const WORDS: u64 = PAGE_SIZE / size_of::<u64>() as u64;

impl OwnedFrames {
    /// Zeroes all of them.
    pub(crate) fn zero(&mut self) {
        // SAFETY: An allocated block lies in an online section, which the direct map shows, and is ours alone until it is
        // dropped; the direction flag is clear in all code of ours.
        unsafe {
            core::arch::asm!(
                "rep stosq",
                inout("rcx") self.order().pages() * WORDS => _,
                inout("rdi") layout::direct(self.head()) => _,
                in("rax") 0_u64,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Copies what others of the same order hold.
    pub(crate) fn copy_from(&mut self, from: &Self) {
        assert_eq!(self.order(), from.order(), "a block is copied to one of its size");
        // SAFETY: Both are owned here, the destination alone.
        unsafe { copy(from.head(), self.head(), self.order()) };
    }
}

/// Copies a block of frames to another one.
///
/// # Safety
/// Both are allocated blocks of that order. Nothing writes to the first meanwhile, and nothing else uses the second.
pub(crate) unsafe fn copy(from: Pfn, to: Pfn, order: Order) {
    // SAFETY: By the contract; the direct map shows what is allocated, and the direction flag is clear in all code of ours.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rcx") order.pages() * WORDS => _,
            inout("rsi") layout::direct(from) => _,
            inout("rdi") layout::direct(to) => _,
            options(nostack, preserves_flags),
        );
    }
}
