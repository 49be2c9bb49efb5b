//! The kernel's ELF file as the loader of Cloud Hypervisor and Firecracker sees it, neither of which runs without KVM.

use std::fs::File;

use boot::image;
use linux_loader::loader::{Elf, KernelLoader, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Where the kernel's linker script puts it.
const LOADED_AT: u64 = 0x20_0000;
const MEMORY_BYTES: usize = 16 << 20;

#[test]
fn the_loader_of_other_machines_accepts_the_kernel_and_finds_its_pvh_entry() {
    let images = image::up_to_date().expect("the kernel builds");
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).expect("memory");
    let mut elf = File::open(&images.elf).expect("the image is there");
    let loaded = Elf::load(&memory, None, &mut elf, None).expect("the loader accepts it");

    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        panic!("no PVH entry: {:?}", loaded.pvh_boot_cap);
    };
    assert!((LOADED_AT..loaded.kernel_end).contains(&entry.0), "{entry:?} of {:#x}", loaded.kernel_end);
    let first: [u8; 2] = memory.read_obj(entry).expect("it lies in memory");
    assert_eq!(first, [0xfa, 0xfc], "it begins with `cli` and `cld`");

    let image = LOADED_AT as usize..loaded.kernel_end as usize;
    let mut bytes = vec![0; image.len()];
    memory.read_slice(&mut bytes, GuestAddress(LOADED_AT)).expect("it lies in memory");
    let symbols = bytes.chunks(4096).rposition(|page| page.starts_with(b"ALTMSYM1"));
    assert!(symbols.is_some(), "the symbol table is not a part of the image");
}
