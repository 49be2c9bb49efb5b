//! Registers of a device that a driver found, as a range that is safe to use.

use super::paging::boot_map::physical_bits;
use super::paging::devices::map_mmio;
use mm::addr::MAX_PHYS_BITS;

/// A range of registers, mapped for ever; an access outside of it panics.
pub(crate) struct Mmio {
    base: *mut u8,
    len: usize,
}

// SAFETY: The registers are mapped for good and may be reached from every CPU.
unsafe impl Send for Mmio {}
// SAFETY: Accesses are single volatile loads and stores.
unsafe impl Sync for Mmio {}

/// What memory is accessed by that a device shares with us.
pub(crate) trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}

impl Mmio {
    /// Maps registers at a physical address; `None` if they lie beyond those that are supported, here or by the CPU.
    pub(crate) fn map(address: u64, len: usize) -> Option<Self> {
        let limit = 1 << physical_bits().min(MAX_PHYS_BITS);
        let end = address.checked_add(len as u64).filter(|end| *end <= limit);
        end.map(|_| Self { base: map_mmio(address, len), len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn read<W: Word>(&self, at: usize) -> W {
        // SAFETY: `register` checked the place, and the registers stay mapped.
        unsafe { self.register::<W>(at).read_volatile() }
    }

    pub(crate) fn write<W: Word>(&self, at: usize, value: W) {
        // SAFETY: As for `read`; a device that could reach memory by it is told of what was set aside for it only.
        unsafe { self.register::<W>(at).write_volatile(value) };
    }

    fn register<W>(&self, at: usize) -> *mut W {
        let bytes = size_of::<W>();
        let is_inside = at.checked_add(bytes).is_some_and(|end| end <= self.len);
        let register = self.base.wrapping_add(at);
        assert!(is_inside && register.addr().is_multiple_of(bytes), "no register at {at:#x}");
        register.cast()
    }
}
