//! Entered from the `bootloader` crate; the only file that knows `bootloader_api`.
//!
//! The bootloader is asked for no physical map (it would cost half a second and megabytes of tables), only for the
//! recursive page-table entry, through which the kernel builds its own tables.

use super::facts::{BootFacts, CommandLine, MemoryRegion, RegionKind};
use super::image::continue_on_boot_stack;
use super::map::memory_map;
use crate::kernel_main;
use bootloader_api::config::Mapping;
use bootloader_api::info::MemoryRegionKind;
use bootloader_api::{BootInfo, BootloaderConfig};

/// What the kernel asks of the bootloader.
const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = None;
    config.mappings.page_table_recursive = Some(Mapping::Dynamic);
    config.mappings.dynamic_range_start = Some(0xffff_f000_0000_0000);
    config.mappings.dynamic_range_end = Some(0xffff_fe7f_ffff_ffff);
    config.kernel_stack_size = FIRST_STACK_BYTES;
    config
};

/// The kernel leaves it at once.
const FIRST_STACK_BYTES: u64 = 16 * 1024;

#[cfg(not(test))]
bootloader_api::entry_point!(enter, config = &CONFIG);

/// On the host the entry point is absent; this keeps the boot order compiled and linked there.
#[cfg(test)]
const _: fn(&'static mut BootInfo) -> ! = enter;

fn enter(boot: &'static mut BootInfo) -> ! {
    continue_on_boot_stack(go_on, (&raw const *boot).expose_provenance() as u64)
}

extern "C" fn go_on(boot: u64) -> ! {
    #[expect(unsafe_code, reason = "what is carried from one stack to another is an integer")]
    // SAFETY: `enter` made it of a reference that is valid for ever and that nobody uses any more.
    let boot: &BootInfo = unsafe { &*core::ptr::with_exposed_provenance(boot as usize) };
    kernel_main(&|| collect(boot))
}

/// Copies what the bootloader said out of its memory.
fn collect(boot: &BootInfo) -> BootFacts {
    let regions = boot.memory_regions.iter().map(|region| MemoryRegion {
        start: region.start,
        end: region.end,
        kind: match region.kind {
            MemoryRegionKind::Usable => RegionKind::Usable,
            MemoryRegionKind::Bootloader => RegionKind::Bootloader,
            _ => RegionKind::Firmware,
        },
    });
    BootFacts {
        memory: memory_map(regions),
        rsdp: boot.rsdp_addr.into_option(),
        command_line: CommandLine::new(),
        recursive_index: boot.recursive_index.into_option().expect("the configuration asks for the recursive entry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootloader_can_read_our_configuration() {
        assert_eq!(BootloaderConfig::deserialize(&CONFIG.serialize()), Ok(CONFIG));
    }
}
