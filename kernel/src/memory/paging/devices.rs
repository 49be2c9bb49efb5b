//! Registers of devices and tables of the firmware, made visible.

use super::entry::{DEVICE, Entry, Level, READ_ONLY};
use super::tables;
use crate::memory::layout;
use crate::sync::SpinLock;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use mm::addr::{MAX_PHYS_BITS, PAGE_SIZE, Pfn};
use x86_64::structures::paging::PageTableFlags as Flags;

/// Where the next mapping goes. The first page is the scratch page; a page stays free between mappings.
static NEXT: SpinLock<u64> = SpinLock::new(layout::SCRATCH + 2 * PAGE_SIZE);

/// Why a physical address cannot be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Beyond the address bits that are supported.
    #[error("physical address {0:#x} is out of reach")]
    OutOfReach(u64),
    /// No table or no room in the window.
    #[error("no room to map {0:#x}")]
    NoRoom(u64),
    /// The direct map has nothing there.
    #[error("no memory is mapped at {0:#x}")]
    Unmapped(u64),
}

/// Maps registers of a device, uncached, for ever.
///
/// # Panics
/// There is no room, or the address is out of reach: no machine that we know how to run.
pub(crate) fn map_mmio(address: u64, bytes: usize) -> *mut u8 {
    match map(address, bytes as u64, DEVICE) {
        Ok(start) => with_exposed_provenance_mut(start as usize),
        Err(fault) => panic!("cannot map the registers of a device: {fault}"),
    }
}

/// Shows memory that the firmware keeps for ever, such as ACPI tables: in the direct map if it is there, else in a window.
/// What cannot be shown is empty.
///
/// # Safety
/// What lies there is the firmware's: the kernel does not write it.
pub(crate) unsafe fn map_firmware(address: u64, bytes: usize) -> &'static [u8] {
    let start = match is_direct(address, bytes as u64) {
        Ok(true) => Ok(layout::DIRECT_MAP + address),
        Ok(false) => map(address, bytes as u64, READ_ONLY),
        Err(fault) => Err(fault),
    };
    match start {
        // SAFETY: All of it is mapped for ever, and by the contract not written.
        Ok(start) => unsafe { core::slice::from_raw_parts(with_exposed_provenance(start as usize), bytes) },
        Err(fault) => {
            log::warn!(target: "memory", "a table of the firmware cannot be read: {fault}");
            &[]
        }
    }
}

fn check(address: u64, bytes: u64) -> Result<(), Fault> {
    let end = address.checked_add(bytes).ok_or(Fault::OutOfReach(address))?;
    if end <= 1 << MAX_PHYS_BITS { Ok(()) } else { Err(Fault::OutOfReach(address)) }
}

fn is_direct(address: u64, bytes: u64) -> Result<bool, Fault> {
    check(address, bytes)?;
    let first = address / PAGE_SIZE;
    let last = (address + bytes.max(1) - 1) / PAGE_SIZE;
    Ok((first..=last).all(|page| tables::leaf(layout::direct(Pfn::new(page))).is_some()))
}

fn map(address: u64, bytes: u64, rights: Flags) -> Result<u64, Fault> {
    check(address, bytes)?;
    let offset = address % PAGE_SIZE;
    let pages = (offset + bytes).div_ceil(PAGE_SIZE).max(1);
    let start = take_window(pages).ok_or(Fault::NoRoom(address))?;
    // Many pages are no reason to keep anybody waiting.
    for page in 0..pages {
        let leaf = Entry::new(Pfn::containing(address).add(page), rights);
        tables::edit(|tree| tree.map(start + page * PAGE_SIZE, Level::PAGE_TABLE, leaf))
            .map_err(|_| Fault::NoRoom(address))?;
    }
    Ok(start + offset)
}

/// Addresses for so many pages that nobody else gets, and one behind them that nobody uses.
fn take_window(pages: u64) -> Option<u64> {
    let mut next = NEXT.lock();
    let is_room = pages * PAGE_SIZE <= layout::DEVICES + layout::SLOT_SIZE - PAGE_SIZE - *next;
    let behind = *next + (pages + 1) * PAGE_SIZE;
    is_room.then(|| core::mem::replace(&mut *next, behind))
}

/// Reads one byte of memory, if the direct map shows any at `address`.
pub(crate) fn read_probe(address: u64) -> Result<u8, Fault> {
    check(address, 1)?;
    let seen = layout::DIRECT_MAP + address;
    // Nobody takes the mapping away while the tables are ours.
    tables::edit(|tree| {
        tree.leaf(seen).ok_or(Fault::Unmapped(address))?;
        // SAFETY: A leaf maps this address, and the direct map shows nothing but RAM.
        Ok(unsafe { with_exposed_provenance::<u8>(seen as usize).read_volatile() })
    })
}
