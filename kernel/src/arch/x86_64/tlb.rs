//! This CPU's TLB. A mapping that is taken away needs [`flush_tlb_everywhere`](super::flush_tlb_everywhere).

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// Flushes the translation of one page, and what is cached of the tables on the way to it.
pub(crate) fn flush_page(address: u64) {
    tlb::flush(VirtAddr::new_truncate(address));
}

/// Flushes everything, global pages too. Interrupts are off.
pub(super) fn flush_all() {
    let flags = Cr4::read();
    // SAFETY: Turning global pages off and on again changes no translation; it only empties the buffers.
    unsafe { Cr4::write(flags - Cr4Flags::PAGE_GLOBAL) };
    // SAFETY: As above.
    unsafe { Cr4::write(flags | Cr4Flags::PAGE_GLOBAL) };
}
