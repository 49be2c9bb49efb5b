//! One entry of a page table, and what the kernel writes into it.
//!
//! Of the bits that the CPU leaves to software, [`CLAIMS`] and [`MOVING`] are in use. Of an entry that is not present it
//! looks at no other bit and changes none; there the frame may be that of a table that is only promised, or of memory that
//! is on its way elsewhere.

use mm::addr::Pfn;
use x86_64::structures::paging::PageTableFlags as Flags;

/// Entries in a table.
pub(super) const ENTRIES: usize = 512;

/// In every entry: the CPU need not note that it used it, as nobody asks.
pub(super) const NOTED: Flags = Flags::PRESENT.union(Flags::ACCESSED);
/// An entry that points to a table.
pub(super) const TABLE: Flags = NOTED.union(Flags::WRITABLE);
/// Memory that the kernel only reads.
pub(super) const READ_ONLY: Flags = NOTED.union(Flags::NO_EXECUTE).union(Flags::GLOBAL);
/// Memory that the kernel reads and writes and never executes.
pub(crate) const DATA: Flags = READ_ONLY.union(Flags::WRITABLE).union(Flags::DIRTY);
/// Memory of an address space, which only the kernel's own tasks see.
pub(super) const SPACE_PAGE: Flags = NOTED.union(Flags::NO_EXECUTE).union(Flags::WRITABLE).union(Flags::DIRTY);
/// Registers of a device: uncached.
pub(super) const DEVICE: Flags = DATA.union(Flags::NO_CACHE).union(Flags::WRITE_THROUGH);

/// In entries that point to a page table of the vmemmap window: its sections of even and of odd number need the table.
pub(super) const CLAIMS: [Flags; 2] = [Flags::BIT_9, Flags::BIT_10];

/// In entries of an address space that are not present: the memory that they mapped is on its way elsewhere.
const MOVING: Flags = Flags::BIT_11;

/// Where a table stands: tables of level 1 hold pages, of level 2 leaves of 2 MiB or tables of level 1, and so on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Level(u32);

impl Level {
    pub(crate) const PAGE_TABLE: Self = Self(1);
    pub(crate) const DIRECTORY: Self = Self(2);
    pub(crate) const POINTERS: Self = Self(3);
    pub(super) const TOP: Self = Self(4);

    /// 1 for the tables that hold pages, 4 for the top.
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// Bytes that one entry of a table of this level covers.
    pub(super) const fn entry_size(self) -> u64 {
        1 << (12 + 9 * (self.0 - 1))
    }

    /// Frames that one entry of a table of this level covers.
    pub(super) const fn entry_pages(self) -> u64 {
        1 << (9 * (self.0 - 1))
    }

    /// Which entry of a table of this level covers `address`.
    pub(crate) const fn index(self, address: u64) -> usize {
        (address / self.entry_size()) as usize % ENTRIES
    }

    /// The level of the tables that entries of this level point to.
    pub(super) const fn below(self) -> Option<Self> {
        if self.0 == 1 { None } else { Some(Self(self.0 - 1)) }
    }
}

/// The raw word.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct Entry(u64);

impl Entry {
    /// Maps nothing.
    pub(crate) const EMPTY: Self = Self(0);
    const FRAME: u64 = 0x000f_ffff_ffff_f000;

    /// A table, or a page as a leaf of level 1.
    pub(crate) const fn new(frame: Pfn, flags: Flags) -> Self {
        Self(frame.address() | flags.bits())
    }

    /// A leaf in a table of `level`.
    pub(super) fn leaf(frame: Pfn, flags: Flags, level: Level) -> Self {
        if level == Level::PAGE_TABLE { Self::new(frame, flags) } else { Self::new(frame, flags | Flags::HUGE_PAGE) }
    }

    /// A table that will lie in `frame`, which is not written yet. The CPU sees that nothing is mapped.
    pub(super) const fn promise(frame: Pfn, claims: Flags) -> Self {
        Self::new(frame, claims)
    }

    /// A leaf whose memory is on its way elsewhere. The CPU sees that nothing is mapped.
    pub(super) const fn moving(frame: Pfn) -> Self {
        Self::new(frame, MOVING)
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn flags(self) -> Flags {
        Flags::from_bits_retain(self.0 & !Self::FRAME)
    }

    pub(crate) const fn frame(self) -> Pfn {
        Pfn::containing(self.0 & Self::FRAME)
    }

    pub(super) const fn is_present(self) -> bool {
        self.flags().contains(Flags::PRESENT)
    }

    /// Whether it maps memory itself, in a table of `level`.
    pub(super) fn is_leaf(self, level: Level) -> bool {
        self.is_present() && (level == Level::PAGE_TABLE || self.flags().contains(Flags::HUGE_PAGE))
    }

    /// The table that it points to, in a table of `level`.
    pub(super) fn table(self, level: Level) -> Option<Pfn> {
        (self.is_present() && !self.is_leaf(level)).then(|| self.frame())
    }

    /// The table that it promises.
    pub(super) fn promised(self) -> Option<Pfn> {
        (!self.is_present() && self != Self::EMPTY).then(|| self.frame())
    }

    /// The same entry with other flags.
    pub(super) const fn with(self, flags: Flags) -> Self {
        Self(self.0 & Self::FRAME | flags.bits())
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {:?}", self.frame(), self.flags())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_frame_and_flags_apart() {
        let frame = Pfn::new(0xff_ffff_ffff);
        let entry = Entry::leaf(frame, DATA, Level::DIRECTORY);
        assert_eq!(entry.frame(), frame);
        assert_eq!(entry.flags(), DATA | Flags::HUGE_PAGE);
        assert!(entry.is_leaf(Level::DIRECTORY) && entry.table(Level::DIRECTORY).is_none());
        assert_eq!(Entry::new(frame, TABLE).table(Level::DIRECTORY), Some(frame));
        assert_eq!(Entry::EMPTY.table(Level::DIRECTORY), None);
    }

    #[test]
    fn a_promised_table_is_none_until_it_is_present() {
        let frame = Pfn::new(0x1234);
        let promise = Entry::promise(frame, CLAIMS[0]);
        assert_eq!((promise.promised(), promise.table(Level::DIRECTORY)), (Some(frame), None));
        let kept = promise.with(promise.flags() | TABLE);
        assert_eq!((kept.promised(), kept.table(Level::DIRECTORY)), (None, Some(frame)));
        assert!(kept.flags().contains(CLAIMS[0]));
        assert_eq!(Entry::EMPTY.promised(), None);
    }

    #[test]
    fn an_address_chooses_one_entry_at_each_level() {
        let address = 0xffff_c000_0000_0000_u64 + (3 << 30) + (5 << 21) + (7 << 12);
        assert_eq!(Level::TOP.index(address), 384);
        assert_eq!(Level::POINTERS.index(address), 3);
        assert_eq!(Level::DIRECTORY.index(address), 5);
        assert_eq!(Level::PAGE_TABLE.index(address), 7);
    }
}
