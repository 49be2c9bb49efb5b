//! Whether memory keeps what is written to it. A module over a file that cannot be written reads well enough, and so does one
//! with dead cells; what is kept there is lost, and if those are page tables, everything is.

use core::arch::asm;
use mm::addr::PAGE_SIZE;

/// The first of `count` pages from `start` on that does not keep what is written to it.
///
/// # Safety
/// All of them are mapped, and nothing else reads or writes them meanwhile.
pub(crate) unsafe fn first_bad(start: *mut u64, count: u64) -> Option<u64> {
    // The address is not worked out anew for each page: there are many whenever a section is opened.
    let mut page = start;
    (0..count).find(|_| {
        // SAFETY: The contract is the same.
        let is_bad = !unsafe { keeps(page) };
        page = page.wrapping_byte_add(PAGE_SIZE as usize);
        is_bad
    })
}

/// Whether a page keeps what is written to it, by its first word: each bit is turned over, and then back to what it was.
///
/// # Safety
/// The page is mapped, and nothing else reads or writes it meanwhile.
#[inline]
pub(crate) unsafe fn keeps(page: *mut u64) -> bool {
    // SAFETY: By the contract, the word is mapped and ours alone; any bits are a word.
    let before = unsafe { page.read_volatile() };
    // SAFETY: The contract is the same.
    if unsafe { holds(page, !before) } {
        // SAFETY: As above.
        return unsafe { holds(page, before) };
    }
    // Some of it may have been written.
    // SAFETY: As for the first look.
    unsafe { page.write_volatile(before) };
    false
}

/// Whether memory, and not only a cache of the CPU, holds what is written to it.
///
/// # Safety
/// As for [`keeps`].
#[inline]
unsafe fn holds(word: *mut u64, value: u64) -> bool {
    // SAFETY: By the contract, the word is mapped and ours alone.
    unsafe { word.write_volatile(value) };
    // SAFETY: Writes back and forgets a line of the caches, which changes nothing of what memory holds, and waits for it.
    unsafe { asm!("clflush [{}]", "mfence", in(reg) word, options(nostack, preserves_flags)) };
    // SAFETY: As for the write.
    unsafe { word.read_volatile() == value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn memory_that_keeps_everything_holds_what_it_held() {
        let mut page = vec![0x0123_4567_89ab_cdef_u64; 3 * PAGE_SIZE as usize / 8];
        let before = page.clone();
        // SAFETY: These pages are ours.
        assert_eq!(unsafe { first_bad(page.as_mut_ptr(), 3) }, None);
        assert_eq!(page, before);
    }
}
