//! How the acpi crate sees firmware tables: as copies, aligned and padded so that its pointer arithmetic is sound.
//!
//! The crate reads table entries through typed pointers and trusts every length. Firmware puts tables at odd addresses,
//! and lengths can be anything. A copy puts the first entry of a root table on an 8-byte boundary, is at least as long
//! as the type that the crate wants to see, and carries a length field that is true of the copy.

use acpi::{AcpiError, AcpiTables, Handler, PciAddress, PhysicalMapping};
use alloc::boxed::Box;
use alloc::vec;
use core::ptr::NonNull;

/// Gives the bytes at a physical address, which stay there for ever; fewer than asked for where there are no more.
pub(crate) type View = fn(u64, usize) -> &'static [u8];

/// Entries of a root table begin 36 bytes in; with this much in front they lie on an 8-byte boundary.
const LEAD_BYTES: usize = 4;
/// A table that says it is longer than this is damaged.
const LONGEST_BYTES: usize = 1 << 20;
/// What every table begins with; nothing shorter is ever copied.
const HEADER_BYTES: usize = 36;
const ROOT_SIGNATURE: &[u8] = b"RSD PTR ";

/// Lets the acpi crate find tables, starting from the root pointer at physical address `rsdp`.
pub(crate) fn acpi_tables(view: View, rsdp: u64) -> Result<AcpiTables<TableCopies>, AcpiError> {
    // SAFETY: the crate wants an address whose bytes can be read; `TableCopies` gives it zeros for any that cannot,
    // and the crate checks the signature before it believes anything.
    unsafe { AcpiTables::from_rsdp(TableCopies { view }, rsdp as usize) }
}

/// Copies what the crate asks to map.
#[derive(Clone)]
pub(crate) struct TableCopies {
    view: View,
}

impl Handler for TableCopies {
    unsafe fn map_physical_region<T>(&self, physical_address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let source = (self.view)(physical_address as u64, size.min(LONGEST_BYTES));
        let region_length = source.len().max(size_of::<T>());
        let word_count = (LEAD_BYTES + region_length).div_ceil(size_of::<u64>());
        let words = Box::leak(vec![0u64; word_count].into_boxed_slice());
        // SAFETY: any byte of initialised integers is an initialised byte, and the slice covers exactly `words`, which
        // nothing else refers to.
        let bytes = unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), word_count * 8) };
        let copy = &mut bytes[LEAD_BYTES..LEAD_BYTES + region_length];
        copy[..source.len()].copy_from_slice(source);
        correct_length(copy, size, source.len());
        PhysicalMapping {
            physical_start: physical_address,
            virtual_start: NonNull::from(&mut copy[0]).cast(),
            region_length,
            mapped_length: word_count,
            handler: self.clone(),
        }
    }

    fn unmap_physical_region<T>(region: &PhysicalMapping<Self, T>) {
        // SAFETY: `virtual_start` lies this far behind the start of the words that `map_physical_region` leaked.
        let start = unsafe { region.virtual_start.cast::<u8>().sub(LEAD_BYTES) };
        let words = core::ptr::slice_from_raw_parts_mut(start.cast::<u64>().as_ptr(), region.mapped_length);
        // SAFETY: these are the words leaked in `map_physical_region`, whose number is kept in `mapped_length`, and the
        // crate unmaps a mapping once, when it drops it.
        drop(unsafe { Box::from_raw(words) });
    }

    fn read_u8(&self, _: usize) -> u8 {
        no_access()
    }

    fn read_u16(&self, _: usize) -> u16 {
        no_access()
    }

    fn read_u32(&self, _: usize) -> u32 {
        no_access()
    }

    fn read_u64(&self, _: usize) -> u64 {
        no_access()
    }

    fn write_u8(&self, _: usize, _: u8) {
        no_access()
    }

    fn write_u16(&self, _: usize, _: u16) {
        no_access()
    }

    fn write_u32(&self, _: usize, _: u32) {
        no_access()
    }

    fn write_u64(&self, _: usize, _: u64) {
        no_access()
    }

    fn read_io_u8(&self, _: u16) -> u8 {
        no_access()
    }

    fn read_io_u16(&self, _: u16) -> u16 {
        no_access()
    }

    fn read_io_u32(&self, _: u16) -> u32 {
        no_access()
    }

    fn write_io_u8(&self, _: u16, _: u8) {
        no_access()
    }

    fn write_io_u16(&self, _: u16, _: u16) {
        no_access()
    }

    fn write_io_u32(&self, _: u16, _: u32) {
        no_access()
    }

    fn read_pci_u8(&self, _: PciAddress, _: u16) -> u8 {
        no_access()
    }

    fn read_pci_u16(&self, _: PciAddress, _: u16) -> u16 {
        no_access()
    }

    fn read_pci_u32(&self, _: PciAddress, _: u16) -> u32 {
        no_access()
    }

    fn write_pci_u8(&self, _: PciAddress, _: u16, _: u8) {
        no_access()
    }

    fn write_pci_u16(&self, _: PciAddress, _: u16, _: u16) {
        no_access()
    }

    fn write_pci_u32(&self, _: PciAddress, _: u16, _: u32) {
        no_access()
    }

    fn nanos_since_boot(&self) -> u64 {
        no_access()
    }

    fn stall(&self, _: u64) {
        no_access()
    }

    fn sleep(&self, _: u64) {
        no_access()
    }
}

/// Makes the length that the crate will go by true of the copy of `said` bytes, of which `present` are real.
fn correct_length(copy: &mut [u8], said: usize, present: usize) {
    let is_root = copy.starts_with(ROOT_SIGNATURE);
    let field = if is_root { &mut copy[20..24] } else { &mut copy[4..8] };
    let length = field.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    // A look at a header alone is how the crate learns the length.
    let is_header = !is_root && said == HEADER_BYTES && present == said;
    if length > present && !is_header {
        field.copy_from_slice(&(present as u32).to_le_bytes());
    }
}

/// Only the interpreter and the register helpers of the crate touch hardware; we use its tables.
fn no_access() -> ! {
    unreachable!("looking at tables touches no hardware")
}
