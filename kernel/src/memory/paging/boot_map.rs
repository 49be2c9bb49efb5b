//! The first page tables of our own, built while the CPU still walks those that the kernel was started with.
//!
//! Of those it is known, whoever made them, that they map our image by pages of 4 KiB, and that one entry of the top-level table points
//! to that table itself. That is enough: through it the entry of one page of our image is found and made the scratch page, and
//! through the scratch page all new tables are written. They show all RAM, whether it will ever be used or not; its struct pages come later.

use super::entry::{DATA, Entry, Level, NOTED, READ_ONLY};
use super::plan::HugeLeaves;
use super::tables::{KernelTables, Scratch};
use super::tree::{TableMemory, Tree};
use crate::entry::BootFacts;
use crate::memory::frames::EARLY;
use crate::memory::layout;
use core::cell::UnsafeCell;
use mm::addr::{PAGE_SIZE, Pfn, PfnRange};
use mm::machine::mapper::MapError;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, EferFlags};
use x86_64::structures::paging::PageTableFlags as Flags;
use x86_64::structures::paging::PhysFrame;

/// Page tables made for stacks at boot, 16 stacks each.
const STACK_TABLES: u64 = 4;

/// The page of our image whose entry is borrowed; the new tables do not map it.
#[repr(align(4096))]
struct BorrowedPage(UnsafeCell<[u8; PAGE_SIZE as usize]>);

// SAFETY: Nobody reads or writes the bytes under this name; only its address is used.
unsafe impl Sync for BorrowedPage {}

static BORROWED: BorrowedPage = BorrowedPage(UnsafeCell::new([0; PAGE_SIZE as usize]));

/// The boot loader's tables, read through the entry that points to themselves.
struct OldTables {
    slot: u64,
}

impl OldTables {
    /// Where the entry of `level` for `address` is seen: each pass through the slot climbs one level.
    fn entry_address(&self, address: u64, level: Level) -> u64 {
        const LOWER_48_BITS: u64 = (1 << 48) - 1;
        let number = (address & LOWER_48_BITS) / level.entry_size();
        let window = (0..level.number()).map(|pass| self.slot << (39 - 9 * pass)).sum::<u64>();
        !LOWER_48_BITS | window | (number * 8)
    }

    fn entry(&self, address: u64, level: Level) -> Entry {
        let entry = self.entry_address(address, level);
        // SAFETY: Callers ask for an entry only when those of all levels above are present tables, so it is mapped.
        Entry::from_bits(unsafe { core::ptr::with_exposed_provenance::<u64>(entry as usize).read_volatile() })
    }

    /// Calls `visit` with every page mapped between two addresses. What starts the kernel makes only pages of 4 KiB here.
    fn for_each_page(
        &self,
        start: u64,
        end: u64,
        mut visit: impl FnMut(u64, Entry) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let mut at = start;
        'pages: while at < end {
            for level in [Level::TOP, Level::POINTERS, Level::DIRECTORY] {
                if self.entry(at, level).table(level).is_none() {
                    match (at - at % level.entry_size()).checked_add(level.entry_size()) {
                        Some(next) => at = next,
                        None => return Ok(()),
                    }
                    continue 'pages;
                }
            }
            let entry = self.entry(at, Level::PAGE_TABLE);
            if entry.is_present() {
                visit(at, entry)?;
            }
            at += PAGE_SIZE;
        }
        Ok(())
    }
}

/// Whether the CPU has leaves of 1 GiB (CPUID 8000_0001h, EDX bit 26).
pub(crate) fn huge_leaves() -> HugeLeaves {
    let has_leaf = core::arch::x86_64::__cpuid(0x8000_0000).eax >= 0x8000_0001;
    if has_leaf && core::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 26 != 0 {
        HugeLeaves::Have
    } else {
        HugeLeaves::Lack
    }
}

/// How many bits the physical addresses of this CPU have (CPUID 8000_0008h, EAX bits 7-0).
pub(crate) fn physical_bits() -> u32 {
    const WITHOUT_LEAF: u32 = 36;
    let has_leaf = core::arch::x86_64::__cpuid(0x8000_0000).eax >= 0x8000_0008;
    if has_leaf { core::arch::x86_64::__cpuid(0x8000_0008).eax & 0xff } else { WITHOUT_LEAF }
}

/// Builds the kernel's tables, lets the CPU use them, and returns them. The lower half is empty then.
pub(crate) fn build(facts: &BootFacts) -> Result<Tree<KernelTables>, MapError> {
    let old = OldTables { slot: u64::from(facts.recursive_index) };
    let page = BORROWED.0.get().expose_provenance() as u64;
    // SAFETY: The boot loader maps our image by pages of 4 KiB, and the borrowed page is used for nothing else.
    let scratch = unsafe { Scratch::new(page, old.entry_address(page, Level::PAGE_TABLE)) };
    let mut memory = KernelTables::new(scratch);
    let root = memory.take().ok_or(MapError)?;
    memory.fill(root, &mut |_| Entry::EMPTY);
    let mut tree = Tree::new(root, memory);

    // The top-level table gets all its entries now or at the end of boot, and never changes afterwards.
    for window in [layout::VMEMMAP, layout::HEAP, layout::STACKS, layout::DEVICES] {
        tree.make(window, Level::POINTERS)?;
    }
    // Tables for as many stacks as a machine at work has, so that a task more is not a table more.
    for table in 0..STACK_TABLES {
        tree.make(layout::STACKS + table * Level::DIRECTORY.entry_size(), Level::PAGE_TABLE)?;
    }
    let leaves = huge_leaves();
    let mut at = Pfn::new(0);
    while let Some(span) = next_span(at) {
        map_physical(&mut tree, span, leaves)?;
        at = span.end();
    }
    copy_image(&mut tree, &old, page)?;
    let table = tree.make(layout::SCRATCH, Level::PAGE_TABLE)?;
    switch(tree.root());
    let entry = layout::direct(table) + 8 * Level::PAGE_TABLE.index(layout::SCRATCH) as u64;
    // SAFETY: This is the entry for the first page of the device window in the table just made, seen through the direct
    // map; the page is set aside for this.
    let scratch = unsafe { Scratch::new(layout::SCRATCH, entry) };
    tree.memory.use_direct_map(scratch);
    Ok(tree)
}

/// The lowest RAM from `at` on. The lock is not held longer, as every table takes a frame under it too.
fn next_span(at: Pfn) -> Option<PfnRange> {
    EARLY.lock().ram().spans().find(|span| span.start() >= at)
}

/// Maps RAM in the direct map by the largest leaves that fit.
fn map_physical<M: TableMemory>(tree: &mut Tree<M>, span: PfnRange, leaves: HugeLeaves) -> Result<(), MapError> {
    let mut at = span.start();
    while at < span.end() {
        let left = span.end().number() - at.number();
        let fits = |level: &Level| {
            at.number().is_multiple_of(level.entry_pages())
                && level.entry_pages() <= left
                && (*level != Level::POINTERS || leaves == HugeLeaves::Have)
        };
        let level = [Level::POINTERS, Level::DIRECTORY].into_iter().find(fits).unwrap_or(Level::PAGE_TABLE);
        tree.map(layout::direct(at), level, Entry::leaf(at, DATA, level))?;
        at = at.add(level.entry_pages());
    }
    Ok(())
}

/// Maps our image, and with it the stack that we run on, as it is mapped now.
fn copy_image(tree: &mut Tree<KernelTables>, old: &OldTables, borrowed: u64) -> Result<(), MapError> {
    const LAST_PAGE: u64 = u64::MAX - PAGE_SIZE + 1;
    old.for_each_page(layout::KERNEL_IMAGE, LAST_PAGE, |address, entry| {
        if address == borrowed {
            return Ok(());
        }
        let rights = entry.flags() & (Flags::WRITABLE | Flags::NO_EXECUTE);
        tree.map(address, Level::PAGE_TABLE, Entry::new(entry.frame(), rights | NOTED | Flags::GLOBAL))?;
        if rights.contains(Flags::WRITABLE) { Ok(()) } else { protect_alias(tree, entry.frame()) }
    })
}

/// What our image maps read-only is read-only in the direct map too.
fn protect_alias<M: TableMemory>(tree: &mut Tree<M>, frame: Pfn) -> Result<(), MapError> {
    let address = layout::direct(frame);
    tree.split(address, Level::PAGE_TABLE)?;
    tree.map(address, Level::PAGE_TABLE, Entry::new(frame, READ_ONLY))
}

/// Makes the CPU obey the new tables, with all their rights.
fn switch(root: Pfn) {
    // SAFETY: The tables use the no-execute bit, which this gives its meaning.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE)) };
    // SAFETY: No code of ours writes through read-only mappings.
    unsafe { Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT)) };
    // SAFETY: Nothing is global in the boot loader's tables, but the firmware's may have left global translations behind,
    // which this forgets.
    unsafe { Cr4::update(|flags| flags.remove(Cr4Flags::PAGE_GLOBAL)) };
    let frame = PhysFrame::containing_address(PhysAddr::new(root.address()));
    // SAFETY: The tables map the image, the stack and everything else that is in use with the rights it had; descriptor
    // tables lie in the image.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    // SAFETY: Global pages are the same in every address space, as they all share the upper half.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::PAGE_GLOBAL)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::paging::fake_tables::FakeTables;

    #[test]
    fn entries_are_seen_through_the_slot_that_points_to_the_tables() {
        let slot = 480;
        let old = OldTables { slot };
        let address = address_of([511, 510, 83, 302]);
        let seen = |indices, index: u64| address_of(indices) + 8 * index;
        assert_eq!(old.entry_address(address, Level::PAGE_TABLE), seen([slot, 511, 510, 83], 302));
        assert_eq!(old.entry_address(address, Level::DIRECTORY), seen([slot, slot, 511, 510], 83));
        assert_eq!(old.entry_address(address, Level::POINTERS), seen([slot, slot, slot, 511], 510));
        assert_eq!(old.entry_address(address, Level::TOP), seen([slot, slot, slot, slot], 511));
    }

    /// The page of the upper half that these entries map, from the top-level table down.
    fn address_of(indices: [u64; 4]) -> u64 {
        let top = 0xffff << 48;
        indices.iter().zip([39, 30, 21, 12]).fold(top, |address, (index, shift)| address | index << shift)
    }

    #[test]
    fn ram_is_mapped_by_the_largest_leaves_and_nothing_beside_it() {
        let gib = 1 << 18;
        let span = PfnRange::new(Pfn::new(gib - 0x203), gib + 0x203 + 0x401);
        for (leaves, large) in [(HugeLeaves::Have, Level::POINTERS), (HugeLeaves::Lack, Level::DIRECTORY)] {
            let mut tree = FakeTables::tree();
            map_physical(&mut tree, span, leaves).expect("there are frames");
            let mut level_of = |number: u64| {
                let (leaf, level) = tree.leaf(layout::direct(Pfn::new(number)))?;
                assert_eq!(leaf.frame().number() + number % level.entry_pages(), number);
                Some(level)
            };
            assert_eq!(level_of(span.start().number() - 1), None);
            assert_eq!(level_of(span.start().number()), Some(Level::PAGE_TABLE));
            assert_eq!(level_of(gib - 1), Some(Level::DIRECTORY));
            assert_eq!(level_of(gib + 7), Some(large));
            assert_eq!(level_of(2 * gib + 0x3ff), Some(Level::DIRECTORY));
            assert_eq!(level_of(2 * gib + 0x400), Some(Level::PAGE_TABLE));
            assert_eq!(level_of(2 * gib + 0x401), None);
        }
    }

    #[test]
    fn a_protected_frame_is_the_only_one_that_cannot_be_written() {
        let mut tree = FakeTables::tree();
        map_physical(&mut tree, PfnRange::new(Pfn::new(0), 1 << 18), HugeLeaves::Have).expect("there are frames");
        let protected = Pfn::new(0x1_2345);
        protect_alias(&mut tree, protected).expect("there are frames");
        for number in [0, 0x1_2344, 0x1_2345, 0x1_2346, 0x1_2400, 0x3_ffff] {
            let frame = Pfn::new(number);
            let (leaf, level) = tree.leaf(layout::direct(frame)).expect("all of it stays mapped");
            assert_eq!(leaf.frame().add(number % level.entry_pages()), frame);
            assert_eq!(leaf.flags().contains(Flags::WRITABLE), frame != protected, "{frame}");
        }
    }
}
