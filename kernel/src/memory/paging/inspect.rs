//! Looking at what is mapped, for tests and for messages.

use super::entry::Level;
use super::tables;
use super::tree::TableMemory;
use x86_64::structures::paging::PageTableFlags as Flags;

/// What the page tables say about one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    /// The physical address behind it.
    pub(crate) physical: u64,
    pub(crate) is_writable: bool,
    pub(crate) is_executable: bool,
    pub(crate) is_cached: bool,
}

/// What is mapped at `address`.
pub(crate) fn inspect(address: u64) -> Option<Mapping> {
    let (leaf, level) = tables::leaf(address)?;
    let flags = leaf.flags();
    // In a leaf above level 1 the lowest address bit has another meaning.
    let start = leaf.frame().address() & !(level.entry_size() - 1);
    Some(Mapping {
        physical: start + address % level.entry_size(),
        is_writable: flags.contains(Flags::WRITABLE),
        is_executable: !flags.contains(Flags::NO_EXECUTE),
        is_cached: !flags.contains(Flags::NO_CACHE),
    })
}

/// Whether the kernel maps anything in the half of the address space that belongs to users.
pub(crate) fn maps_lower_half() -> bool {
    tables::edit(|tree| {
        let root = tree.root();
        (0..Level::TOP.index(crate::memory::layout::DIRECT_MAP)).any(|index| tree.memory.read(root, index).is_present())
    })
}
