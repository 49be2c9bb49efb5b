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
            self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
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
    Some(Stack { memory: alloc::vec![0; STACK_BYTES].into_boxed_slice() })
}

/// Maps device registers, through the bootloader's tables.
pub(crate) fn map_mmio(physical: u64, length: usize) -> *mut u8 {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use x86_64::structures::paging::mapper::RecursivePageTable;
    use x86_64::structures::paging::{FrameAllocator, Mapper, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB};
    use x86_64::{PhysAddr, VirtAddr};

    static NEXT: AtomicU64 = AtomicU64::new(0xffff_e000_0000_0000);
    static USED: AtomicU64 = AtomicU64::new(0);

    struct Frames;

    // SAFETY: Each frame of the last usable region is handed out once, from its end down.
    unsafe impl FrameAllocator<Size4KiB> for Frames {
        fn allocate_frame(&mut self) -> Option<PhysFrame> {
            let region = crate::boot_info::facts()?.memory.iter().rfind(|region| {
                region.kind == crate::boot_info::RegionKind::Usable && region.end - region.start > 1 << 20
            })?;
            let address = region.end - 4096 * (1 + USED.fetch_add(1, Relaxed));
            PhysFrame::from_start_address(PhysAddr::new(address)).ok()
        }
    }

    let index = u64::from(crate::boot_info::facts().expect("collected at boot").recursive_index);
    let table = VirtAddr::new_truncate(index << 39 | index << 30 | index << 21 | index << 12);
    // SAFETY: The bootloader maps the top table there, and nobody else holds it.
    let table: &mut PageTable = unsafe { &mut *table.as_mut_ptr() };
    let mut mapper = RecursivePageTable::new(table).expect("the entry is recursive");
    let start = physical & !0xfff;
    let pages = (physical + length as u64 - start).div_ceil(4096);
    let window = NEXT.fetch_add(pages * 4096, Relaxed);
    for page in 0..pages {
        let flags =
            PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_CACHE | PageTableFlags::NO_EXECUTE;
        let frame = PhysFrame::containing_address(PhysAddr::new(start + page * 4096));
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(window + page * 4096));
        // SAFETY: The window is used for device registers only.
        unsafe { mapper.map_to(page, frame, flags, &mut Frames) }.expect("the window is free").flush();
    }
    core::ptr::with_exposed_provenance_mut((window + (physical - start)) as usize)
}
