//! Seeing a space: while a task has entered one, its pages are memory like any other.

use super::AddressSpace;
use crate::arch::Root;
use crate::memory::SPACE;
use crate::task;
use alloc::sync::Arc;
use core::marker::PhantomData;
use core::ptr::with_exposed_provenance;
use core::sync::atomic::AtomicU64;
use mm::addr::PAGE_SIZE;

/// Words in a page of 4 KiB.
pub(crate) const WORDS: usize = PAGE_SIZE as usize / size_of::<AtomicU64>();

/// A page whose words may change under the reader.
pub(crate) type Page = [AtomicU64; WORDS];

/// A space that the current task sees. The task may be preempted meanwhile, wait, and go on on another CPU.
#[must_use = "the task sees the space until this is dropped"]
pub(crate) struct Entered {
    space: Arc<AddressSpace>,
    /// Not `Send`: another task does not see it.
    task_bound: PhantomData<*mut ()>,
}

impl AddressSpace {
    /// Makes the current task see this space in its lower half.
    ///
    /// # Panics
    /// It sees one already.
    #[expect(unsafe_code, reason = "the task walks tables that the space owns")]
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        assert!(task::root() == Root::KERNEL, "a task sees one space at a time");
        let tables = self.lock();
        // SAFETY: The task has the space as long as it has its tables. Who moves the topmost one has all other CPUs stand
        // still, which this one does not in here, and gives the tasks that have it the new one.
        task::set_root(unsafe { tables.root() });
        drop(tables);
        Entered { space: Arc::clone(self), task_bound: PhantomData }
    }
}

impl Entered {
    /// A page, as the task sees it. Touching it brings it if it is not there, and waits while it is moving, so it must not
    /// be touched inside a critical section.
    ///
    /// # Panics
    /// The space has no such page.
    #[expect(unsafe_code, reason = "the words are found by their address, as the task sees them")]
    pub(crate) fn words(&self, page: u64) -> &Page {
        assert!(page < self.space.page_count(), "page {page} of {}", self.space.page_count());
        let first: *const Page = with_exposed_provenance((SPACE + page * PAGE_SIZE) as usize);
        // SAFETY: As long as this value lives, whatever task it belongs to runs with the tables of the space, in which every
        // page of the region is, or becomes when it is touched, memory of its own that is reached by atomics alone.
        unsafe { &*first }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        task::set_root(Root::KERNEL);
    }
}
