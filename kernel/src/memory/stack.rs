//! Stacks: each in its own slot of a window, with a page below it that is never mapped, so that running over the end is a
//! fault and not a write to other data.

use super::frames::frame;
use super::layout;
use super::paging::editor::Editor;
use super::paging::entry::{DATA, Entry, Level};
use super::paging::tables;
use super::paging::tables::KernelEditor;
use crate::sync::SpinLock;
use core::ptr::with_exposed_provenance_mut;
use mm::addr::{PAGE_SIZE, Pfn};
use mm::frame::page::Owner;

/// Usable bytes of a stack.
pub(crate) const STACK_BYTES: u64 = 64 << 10;
/// From one stack to the next: the rest of a slot lies below its stack and is never mapped.
const SLOT_BYTES: u64 = 2 * STACK_BYTES;
const PAGES: u64 = STACK_BYTES / PAGE_SIZE;

/// Which slots are taken; the lowest free one is the next.
static SLOTS: SpinLock<[u64; 16]> = SpinLock::new([0; 16]);

/// A stack; freed when dropped, which a task that runs on it does not do.
#[derive(Debug)]
pub(crate) struct Stack {
    slot: u64,
}

/// A stack, when there is memory for one; its frames name the caller.
#[track_caller]
pub(crate) fn alloc_stack() -> Option<Stack> {
    // From here on dropping takes back what there is.
    let stack = Stack { slot: take_slot()? };
    for page in 0..PAGES {
        let taken = frame::take_system(Owner::Stack)?;
        let address = stack.bottom() + page * PAGE_SIZE;
        let result = tables::edit(|tree| tree.map(address, Level::PAGE_TABLE, Entry::new(taken, DATA)));
        if result.is_err() {
            frame::free_system(taken);
            return None;
        }
    }
    Some(stack)
}

fn take_slot() -> Option<u64> {
    let mut slots = SLOTS.lock();
    let (index, word) = slots.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
    let bit = word.trailing_ones();
    *word |= 1 << bit;
    Some(index as u64 * 64 + u64::from(bit))
}

impl Stack {
    fn bottom(&self) -> u64 {
        layout::STACKS + self.slot * SLOT_BYTES + (SLOT_BYTES - STACK_BYTES)
    }

    /// Lowest and first-beyond address.
    pub(crate) fn bounds(&self) -> (usize, usize) {
        (self.bottom() as usize, (self.bottom() + STACK_BYTES) as usize)
    }

    /// The usable bytes, lowest address first.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: The slot is mapped and ours until it is dropped, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(with_exposed_provenance_mut(self.bounds().0), STACK_BYTES as usize) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut frames = [None::<Pfn>; PAGES as usize];
        for (page, frame) in frames.iter_mut().enumerate() {
            let address = self.bottom() + page as u64 * PAGE_SIZE;
            *frame = tables::edit(|tree| tree.unmap_page(address)).map(Entry::frame);
        }
        KernelEditor.settle();
        frames.into_iter().flatten().for_each(frame::free_system);
        SLOTS.lock()[self.slot as usize / 64] &= !(1 << (self.slot % 64));
    }
}
