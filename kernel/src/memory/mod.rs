//! Memory: the kernel heap and the stacks of tasks.

use crate::boot_info::BootFacts;
use alloc::boxed::Box;

/// The heap until it grows by itself.
#[cfg(not(test))]
mod heap {
    use crate::sync::RawIrqSpin;
    use core::alloc::{GlobalAlloc, Layout};
    use core::ptr::NonNull;
    use linked_list_allocator::Heap;

    const EARLY_BYTES: usize = 1024 * 1024;

    #[repr(align(4096))]
    struct Early(core::cell::UnsafeCell<[u8; EARLY_BYTES]>);

    // SAFETY: Only the heap touches it, under its lock.
    unsafe impl Sync for Early {}

    static EARLY: Early = Early(core::cell::UnsafeCell::new([0; EARLY_BYTES]));

    struct KernelHeap(lock_api::Mutex<RawIrqSpin, Heap>);

    #[global_allocator]
    static HEAP: KernelHeap = KernelHeap(lock_api::Mutex::new(Heap::empty()));

    // SAFETY: The inner heap keeps the contract, one caller at a time.
    unsafe impl GlobalAlloc for KernelHeap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0
                .lock()
                .allocate_first_fit(layout)
                .map_or(core::ptr::null_mut(), NonNull::as_ptr)
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            let pointer = NonNull::new(pointer).expect("nobody frees null");
            // SAFETY: The caller got `pointer` from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) };
        }
    }

    pub(super) fn init() {
        // SAFETY: The bytes belong to the heap alone, and this runs once.
        unsafe { HEAP.0.lock().init(EARLY.0.get().cast(), EARLY_BYTES) };
    }
}

/// Makes the heap usable.
pub(crate) fn early(_facts: &BootFacts) {
    #[cfg(not(test))]
    heap::init();
}

/// Usable bytes of a task's stack.
const STACK_BYTES: usize = 64 * 1024;

/// The stack of a task; freed when dropped.
#[derive(Debug)]
pub(crate) struct Stack {
    memory: Box<[u8]>,
}

impl Stack {
    /// The usable bytes, lowest address first.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Lowest and first-beyond address.
    pub(crate) fn bounds(&self) -> (usize, usize) {
        let range = self.memory.as_ptr_range();
        (range.start.addr(), range.end.addr())
    }
}

/// A stack for a task, when there is memory for one.
pub(crate) fn alloc_stack() -> Option<Stack> {
    Some(Stack {
        memory: alloc::vec![0; STACK_BYTES].into_boxed_slice(),
    })
}
