//! The kernel heap: its own window, which grows at its end by frames of the system.
//!
//! Locks are taken in the order heap, page tables, zone; the allocator of frames never comes back here. So a growth for which there are
//! not enough open frames may have sections opened, while it holds no lock but that of the heap.

use super::frames::{frame, mm_if_open};
use super::paging::entry::{DATA, Entry, Level};
use super::paging::tables;
use super::{heap_frames, layout};
use crate::sync::SpinLock;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use linked_list_allocator::Heap;
use mm::addr::PAGE_SIZE;
use mm::frame::page::Owner;

/// What the heap has from the start, so that everyday work does not make it grow.
const INITIAL_BYTES: usize = 1 << 20;
/// It grows by at least this much.
const GROWTH_BYTES: usize = 128 << 10;

/// The heap that `alloc` uses.
pub(super) struct KernelHeap(SpinLock<Heap>);

#[cfg_attr(not(test), global_allocator)]
static HEAP: KernelHeap = KernelHeap(SpinLock::new(Heap::empty()));

/// Gives the heap its first memory.
pub(super) fn init() -> bool {
    let mut heap = HEAP.0.lock();
    let mapped = map_pages(layout::HEAP, INITIAL_BYTES);
    // SAFETY: The window is the heap's alone, this much of it is mapped for ever, and the heap is empty until now.
    unsafe { heap.init(core::ptr::with_exposed_provenance_mut(layout::HEAP as usize), mapped) };
    mapped == INITIAL_BYTES
}

/// Bytes in use.
pub(crate) fn heap_used() -> usize {
    HEAP.0.lock().used()
}

/// Bytes that the heap has.
pub(crate) fn heap_size() -> usize {
    HEAP.0.lock().size()
}

/// Maps new frames from `start` on; says how many bytes there are frames for.
fn map_pages(start: u64, bytes: usize) -> usize {
    let pages = bytes as u64 / PAGE_SIZE;
    let mapped = (0..pages).take_while(|page| {
        let Some(taken) = frame::take_system(Owner::Heap) else { return false };
        let leaf = Entry::new(taken, DATA);
        let address = start + page * PAGE_SIZE;
        let result = tables::edit(|tree| tree.map(address, Level::PAGE_TABLE, leaf));
        match result {
            Ok(()) if mm_if_open().is_some() => heap_frames::note_place(taken, address),
            Ok(()) => {}
            Err(_) => frame::free_system(taken),
        }
        result.is_ok()
    });
    mapped.count() * PAGE_SIZE as usize
}

/// Makes room for `layout` at the end of the heap. What was mapped stays, also when it was not enough.
fn grow(heap: &mut Heap, layout: Layout) -> bool {
    // The list needs room for its own links beside the block.
    let wanted = layout.size().saturating_add(layout.align()).saturating_add(64).max(GROWTH_BYTES);
    let Some(wanted) = wanted.checked_next_multiple_of(PAGE_SIZE as usize) else { return false };
    let end = layout::HEAP + heap.size() as u64;
    if wanted as u64 > layout::HEAP + layout::SLOT_SIZE - end {
        return false;
    }
    let mut mapped = map_pages(end, wanted);
    while mapped < wanted && open_ahead(wanted - mapped) {
        mapped += map_pages(end + mapped as u64, wanted - mapped);
    }
    if mapped == 0 {
        return false;
    }
    // SAFETY: The pages behind the end of the heap are mapped for ever and are nobody else's.
    unsafe { heap.extend(mapped) };
    mapped == wanted
}

/// Has a section opened that frames for so many bytes may come from; whether there may be more than before.
fn open_ahead(bytes: usize) -> bool {
    mm_if_open().is_some_and(|mm| mm.open_ahead(bytes as u64 / PAGE_SIZE))
}

// SAFETY: The inner heap keeps the contract, one caller at a time.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.0.lock();
        let block = heap
            .allocate_first_fit(layout)
            .or_else(|()| if grow(&mut heap, layout) { heap.allocate_first_fit(layout) } else { Err(()) });
        block.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let pointer = NonNull::new(pointer).expect("nobody frees null");
        // SAFETY: The caller got `pointer` from `alloc` with this layout.
        unsafe { self.0.lock().deallocate(pointer, layout) };
    }
}
