//! Address spaces: memory that a task sees in the lower half of its address space, and that can move.
//!
//! | file | what |
//! |---|---|
//! | [`space`] | a space: one region of pages, where they come from, and giving them back |
//! | [`fault`] | pages that are missing, brought on demand |
//! | [`enter`] | seeing a space |
//! | [`rmap`] | from a frame to the page that it is |
//! | [`migrate`] | moving pages and their tables to other frames, and making small pages of a large one |
//! | [`pin`] | keeping pages where they are |
//! | [`mod@recount`] | counting everything anew |
//!
//! The frames of a space are anonymous memory, each mapped in one place. What is kept of them stands in three places: the
//! entry of the page table decides, the owner's word of the struct page says where that entry is, and the reference count
//! says whether somebody needs the frame to stay. They change under the lock of the space; of a page whose entry says that
//! it is moving, everything belongs to whoever moves it, and all others wait.
//!
//! The lock is taken before those of the heap, of the kernel's page tables and of zones. Frames are taken with no lock held.
#![deny(unsafe_code)]

mod enter;
mod fault;
mod migrate;
mod pin;
mod recount;
mod rmap;
mod space;

pub(crate) use enter::{Page, WORDS};
pub(crate) use fault::{FaultError, missing_page};
pub(crate) use pin::{NotPinned, PinError, PinMode, pin_of};
pub(crate) use recount::recount;
pub(crate) use space::{AddressSpace, PageSize, Placement};

use crate::memory::host::mover;
use migrate::SpaceMover;

/// From now on the memory of spaces moves when its blocks are emptied.
pub(crate) fn init() {
    mover::register(&SpaceMover::OWNERS, &SpaceMover);
}
