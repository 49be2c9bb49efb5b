//! The address space: its upper half is the kernel's, its lower half what the current task sees.
//!
//! ```text
//! 0x0000_0080_0000_0000  address space  the region of the current task's, up to the end of the lower half
//! 0xffff_8000_0000_0000  direct map      64 TiB: physical address P lies at DIRECT_MAP + P
//! 0xffff_c000_0000_0000  vmemmap        512 GiB: the struct page of frame N lies at VMEMMAP + 32 N
//! 0xffff_d000_0000_0000  heap           grows upwards from here
//! 0xffff_d800_0000_0000  stacks         each above a page that is never mapped
//! 0xffff_e000_0000_0000  devices        registers, uncached, and firmware tables outside RAM
//! 0xffff_f000_0000_0000  boot loader    what it maps for itself; gone with its tables
//! 0xffff_ffff_8000_0000  kernel image   with the boot stack and the symbol table
//! ```

use mm::addr::{MAX_PHYS_BITS, PAGE_SIZE, Pfn};
use mm::frame::page::PAGE_INFO_SIZE;

/// Where the region of every address space begins. What lies below is never mapped: null and its neighbours are faults.
pub(crate) const SPACE: u64 = SLOT_SIZE;
/// Pages that the region of an address space can have.
pub(crate) const SPACE_PAGES: u64 = ((1 << 47) - SPACE) / PAGE_SIZE;
/// Where physical address 0 lies in the direct map.
pub(crate) const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Bytes that the direct map can hold.
pub(crate) const DIRECT_MAP_SIZE: u64 = 1 << MAX_PHYS_BITS;
/// Where the struct page of frame 0 lies.
pub(crate) const VMEMMAP: u64 = 0xffff_c000_0000_0000;
/// Bytes that one slot of the top-level table covers; heap, stacks and devices have one slot each.
pub(crate) const SLOT_SIZE: u64 = 1 << 39;
/// Where the heap begins.
pub(crate) const HEAP: u64 = 0xffff_d000_0000_0000;
/// Where the stacks begin.
pub(crate) const STACKS: u64 = 0xffff_d800_0000_0000;
/// Where the window for devices begins; its first page is the scratch page.
pub(crate) const DEVICES: u64 = 0xffff_e000_0000_0000;
/// The page through which frames are edited that the direct map does not reach yet.
pub(crate) const SCRATCH: u64 = DEVICES;
/// Where the image of the kernel is linked to.
pub(crate) const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;

const _: () = assert!(DIRECT_MAP + DIRECT_MAP_SIZE <= VMEMMAP, "the direct map ends below the vmemmap window");
const _: () = assert!(
    (1 << (MAX_PHYS_BITS - 12)) * PAGE_INFO_SIZE <= SLOT_SIZE,
    "the struct pages of all frames fit one slot of the top-level table"
);

/// Where the direct map shows `frame`.
pub(crate) const fn direct(frame: Pfn) -> u64 {
    DIRECT_MAP + frame.address()
}

/// Where the struct page of `frame` lies.
pub(crate) const fn page_info(frame: Pfn) -> u64 {
    VMEMMAP + frame.number() * PAGE_INFO_SIZE
}
