//! Making this CPU forget translations. Whoever takes a mapping away wants [`flush_everywhere`](super::flush_everywhere).

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// Forgets the translation of one page, and what the CPU remembers of the tables on the way to it.
pub(crate) fn forget_page(address: u64) {
    tlb::flush(VirtAddr::new_truncate(address));
}

/// Forgets everything, global pages too. Interrupts are off.
pub(super) fn forget_all() {
    let flags = Cr4::read();
    // SAFETY: Turning global pages off and on again changes no translation; it only empties the buffers.
    unsafe { Cr4::write(flags - Cr4Flags::PAGE_GLOBAL) };
    // SAFETY: As above.
    unsafe { Cr4::write(flags | Cr4Flags::PAGE_GLOBAL) };
}
