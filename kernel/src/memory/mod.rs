//! Memory: page tables of our own, the windows of the kernel's address space, and the machine that `mm` runs on.
//!
//! | file | what |
//! |---|---|
//! | [`layout`] | where everything lies in the kernel's half of the address space |
//! | [`ram`], [`mod@early`] | the RAM that the boot loader reports, and frames of it before there is an allocator |
//! | [`entry`], [`tree`] | page tables: one entry, and the walk |
//! | [`plan`], [`ranges`], [`vmemmap`] | mapping sections and their struct pages: which tables, and whose they are |
//! | [`tables`], [`boot_map`] | the tables in use, and how the first were built |
//! | [`machine`], [`mod@start`] | `mm`'s seams, and boot memory handed to it |
//! | [`kept`] | what became of the RAM that the boot loader reports |
//! | [`keeper`] | the task that opens and closes sections for `mm` |
//! | [`table_copy`] | tables of the firmware as the acpi crate wants them |
//! | [`space_tree`] | the page tables of address spaces |
//! | [`contents`] | what frames hold, as a whole: zeroed, copied |
//! | [`trial`] | whether memory keeps what is written to it |
//! | [`low`] | pages in which other CPUs begin |
//! | [`heap_frames`] | moving what the heap lies in |
//! | [`frame`], [`frame_list`], [`heap`], [`stack`], [`devices`] | what the rest of the kernel gets |
//! | [`mod@inspect`] | looking at what is mapped |
//! | [`mod@recount`] | counting everything anew |
//!
//! The order is: [`early`](fn@early) as soon as the machine can report a fault, then the firmware's tables are read, then
//! [`start`](fn@start). Frames come from boot memory before, from `mm` afterwards.

mod boot_map;
mod contents;
mod cores;
mod devices;
mod early;
mod entry;
#[cfg(test)]
mod fake_tables;
mod frame;
mod frame_list;
mod heap;
mod heap_frames;
mod inspect;
mod keeper;
mod kept;
mod layout;
mod low;
mod machine;
mod plan;
mod ram;
mod ranges;
mod recount;
mod space_tree;
mod stack;
mod start;
pub(crate) mod table_copy;
mod tables;
mod tree;
mod trial;
mod vmemmap;

pub(crate) use contents::copy;
pub(crate) use cores::{Amount, Cores};
pub(crate) use devices::{Fault, map_firmware, map_mmio, read_probe};
pub(crate) use frame::OwnedFrames;
pub(crate) use frame_list::FrameList;
pub(crate) use heap::{heap_size, heap_used};
pub(crate) use inspect::{inspect, maps_lower_half};
pub(crate) use keeper::start_keeper;
pub(crate) use kept::{Fate, fates};
pub(crate) use layout::{SPACE, SPACE_PAGES};
pub(crate) use low::{LowPages, low_pages};
pub(crate) use machine::Kernel;
pub(crate) use recount::recount;
pub(crate) use space_tree::{Leaf, Place, Slot, SpaceTree, space_table_bytes};
pub(crate) use stack::{STACK_BYTES, Stack, alloc_stack};
pub(crate) use start::{hidden, start, windows};

use crate::arch;
use crate::boot_info::BootFacts;
use crate::sync::SpinLock;
use core::sync::atomic::{AtomicBool, Ordering};
use early::EarlyFrames;
use mm::Memory;

/// Frames until `mm` has them. Whoever holds the lock must not allocate: the heap grows by frames from here.
static EARLY: SpinLock<EarlyFrames> = SpinLock::new(EarlyFrames::empty());
static MM: spin::Once<Memory<Kernel>> = spin::Once::new();
/// Whether boot memory is all with `mm`.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Builds our page tables, lets the CPU use them, and makes the heap usable. The lower half of the address space is gone
/// afterwards, so descriptor tables of our own are loaded before.
pub(crate) fn early(facts: &BootFacts) {
    let ram = ram::Ram::new(&facts.memory);
    *EARLY.lock() = EarlyFrames::new(ram);
    let tree = boot_map::build(facts);
    tables::install(tree.expect("boot memory has room for its page tables"));
    arch::adopt_kernel_root();
    assert!(heap::init(), "boot memory has room for the first heap");
}

/// The memory of the machine.
///
/// # Panics
/// [`start`](fn@start) was not called before, a mistake of the boot order.
pub(crate) fn mm() -> &'static Memory<Kernel> {
    MM.get().expect("the boot order hands memory over first")
}

/// Where the direct map shows a physical address that it reaches.
pub(crate) const fn direct_map_address(physical: u64) -> u64 {
    layout::DIRECT_MAP + physical
}

/// From now on frames come from `mm`.
fn open() {
    IS_OPEN.store(true, Ordering::Release);
}

fn mm_if_open() -> Option<&'static Memory<Kernel>> {
    if IS_OPEN.load(Ordering::Acquire) { MM.get() } else { None }
}
