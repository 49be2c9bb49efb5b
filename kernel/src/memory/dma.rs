//! Memory that a device reads and writes beside us.

use super::frames::OwnedFrames;
use super::layout;
use super::mmio::Word;
use core::ptr::with_exposed_provenance_mut;
use mm::addr::{PAGE_SIZE, Pfn};
use mm::alloc::request::{AllocError, Request};
use mm::frame::page::Owner;

/// A page that a device may reach. It is never given back: nobody knows when a device that misbehaves stops using it.
#[derive(Debug)]
pub(crate) struct DmaPage {
    frame: Pfn,
}

impl DmaPage {
    /// Sets a page aside, all zeros.
    pub(crate) fn take() -> Result<Self, AllocError> {
        let mut frame = OwnedFrames::allocate(&Request::kernel(Owner::Dma))?;
        frame.bytes_mut().fill(0);
        Ok(Self { frame: frame.into_head() })
    }

    /// Where devices find it.
    pub(crate) fn address(&self) -> u64 {
        self.frame.address()
    }

    pub(crate) fn read<W: Word>(&self, at: usize) -> W {
        // SAFETY: `place` checked the place. The page is ours, and any word in it is valid whatever the device wrote.
        unsafe { self.place::<W>(at).read_volatile() }
    }

    pub(crate) fn write<W: Word>(&mut self, at: usize, value: W) {
        // SAFETY: As for `read`.
        unsafe { self.place::<W>(at).write_volatile(value) };
    }

    fn place<W>(&self, at: usize) -> *mut W {
        let bytes = size_of::<W>();
        let is_inside = at.checked_add(bytes).is_some_and(|end| end as u64 <= PAGE_SIZE);
        assert!(is_inside && at.is_multiple_of(bytes), "{at:#x} is no place for a word of {bytes} bytes");
        with_exposed_provenance_mut((layout::direct(self.frame) as usize).wrapping_add(at))
    }
}
