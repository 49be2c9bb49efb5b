//! Memory: the windows of the kernel's address space, page tables of our own, and the machine that `mm` runs on.
//!
//! | folder | what |
//! |---|---|
//! | [`layout`] | where everything lies in the address space |
//! | [`frames`] | the RAM that the boot loader reports, and frames taken, owned and given back |
//! | [`paging`] | page tables, and what is mapped by them |
//! | [`heap`], [`heap_frames`], [`stack`] | what the kernel itself lives in, each in a window of its own |
//! | [`mmio`], [`dma`] | registers of devices, and memory that they share with us, safe to use |
//! | [`acpi_handler`] | tables of the firmware as the acpi crate wants them |
//! | [`host`] | above tasks: `mm`'s seams, and boot memory handed to it |
//!
//! The order is: [`early`](fn@early) as soon as the machine can report a fault, then the firmware's tables are read, then
//! [`host::start`].

pub(crate) mod acpi_handler;
pub(crate) mod dma;
mod frames;
mod heap;
mod heap_frames;
pub(crate) mod host;
mod layout;
pub(crate) mod mmio;
mod paging;
mod stack;

pub(crate) use frames::contents::copy;
pub(crate) use frames::frame_list::FrameList;
pub(crate) use frames::{Kernel, OwnedFrames, mm};
pub(crate) use heap::{heap_size, heap_used};
pub(crate) use layout::{SPACE, SPACE_PAGES};
pub(crate) use paging::devices::{Fault, map_firmware, map_mmio, read_probe};
pub(crate) use paging::inspect::{inspect, maps_lower_half};
pub(crate) use paging::low::{LowPages, low_pages};
pub(crate) use paging::space_tree::{EntryPlace, Leaf, Slot, SpaceTree, space_table_bytes};
pub(crate) use stack::{STACK_BYTES, Stack, alloc_stack};

use crate::arch;
use crate::entry::BootFacts;
use frames::EARLY;
use frames::early::EarlyFrames;
use frames::ram::Ram;
use mm::addr::MAX_PHYS_BITS;
use paging::{boot_map, tables};

/// Builds our page tables, lets the CPU use them, and makes the heap usable. The lower half of the address space is gone
/// afterwards, so descriptor tables of our own are loaded before.
pub(crate) fn early(facts: &BootFacts) {
    let ram = Ram::new(&facts.memory).reached(boot_map::physical_bits().min(MAX_PHYS_BITS));
    *EARLY.lock() = EarlyFrames::new(ram);
    let tree = boot_map::build(facts);
    tables::install(tree.expect("boot memory has room for its page tables"));
    arch::adopt_kernel_root();
    assert!(heap::init(), "boot memory has room for the first heap");
}

/// Where the direct map shows a physical address that it reaches.
pub(crate) const fn direct_map_address(physical: u64) -> u64 {
    layout::DIRECT_MAP + physical
}
