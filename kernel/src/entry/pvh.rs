//! Entered as PVH guests are: QEMU's `-kernel`, Cloud Hypervisor and Firecracker load the image and start it in 32-bit mode.
//!
//! [`start`] brings the CPU to [`enter`], [`start_info`] reads what the loader hands over.

mod rsdp;
#[cfg(not(test))]
mod start;
mod start_info;

use super::facts::BootFacts;
use super::image;
use crate::kernel_main;

/// The entry of the first top-level table that points to the table itself: the one below the image's.
const RECURSIVE_INDEX: u16 = 510;

/// What is mapped where it lies as long as the first tables are in use.
const IDENTITY_MAPPED: u64 = 4 << 30;

/// Where [`start`] leads, on the boot stack; `start_info` is a physical address.
extern "C" fn enter(start_info: u64) -> ! {
    kernel_main(&|| collect(start_info))
}

/// On the host nothing leads there; this keeps the way compiled and linked.
#[cfg(test)]
const _: extern "C" fn(u64) -> ! = enter;

/// Copies what the loader handed over.
fn collect(start_info: u64) -> BootFacts {
    let tables = FirstTables(());
    let handed_over = match start_info::read(|address, bytes| tables.view(address, bytes), start_info, image::loaded())
    {
        Ok(handed_over) => handed_over,
        Err(error) => panic!("cannot be started like this: {error}"),
    };
    BootFacts {
        memory: handed_over.memory,
        rsdp: handed_over.rsdp,
        command_line: handed_over.command_line,
        recursive_index: RECURSIVE_INDEX,
    }
}

/// The tables that [`start`] made are in use: only [`collect`] makes this value, which ends before the kernel has others.
struct FirstTables(());

impl FirstTables {
    /// Physical memory outside of the image, as far as it is mapped.
    fn view(&self, address: u64, bytes: usize) -> &[u8] {
        let image = image::loaded();
        let end = address.saturating_add(bytes as u64).min(IDENTITY_MAPPED);
        let end = if address < image.start { end.min(image.start) } else { end };
        // Nothing that is handed over begins at zero.
        if address == 0 || address >= end || image.contains(&address) {
            return &[];
        }
        let start = core::ptr::with_exposed_provenance(address as usize);
        #[expect(unsafe_code, reason = "what a loader hands over is a physical address")]
        // SAFETY: The first tables map all of it as long as this value lives, and nobody writes to memory that is not the image's
        // before there are others.
        unsafe {
            core::slice::from_raw_parts(start, (end - address) as usize)
        }
    }
}
