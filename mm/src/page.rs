//! The struct page: 32 bytes for every frame of every section that is online.
//!
//! A block of frames, free or allocated, is described by the struct page of its first frame, its *head*; all others
//! are [`PageState::Tail`]. A zeroed struct page is a tail, so a fresh memmap needs only its heads written.
//!
//! | word | holds | guarded by |
//! |---|---|---|
//! | `head` | state, order, owner | the lock of the zone; whoever owns an allocated block |
//! | `refs` | reference count of an allocated block | atomic |
//! | `next` | free: the next head of the list; allocated: the owner's | the lock of the zone; the owner |
//! | `prev` | free: the previous head of the list; allocated: the owner's | the lock of the zone; the owner |
//!
//! Node, zone and section are not stored: they follow from the frame number and the word of its section.

use crate::addr::{Order, Pfn};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What a frame is, as far as the allocator is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageState {
    /// Not the head of a block: the head lies below, or the section has not been brought online.
    Tail = 0,
    /// Head of a block on a free list.
    Free = 1,
    /// Head of a free block that an offline has taken off the lists.
    Isolated = 2,
    /// Head of an allocated block.
    Allocated = 3,
    /// Holds struct pages or page tables of its own section or group; never handed out.
    Memmap = 4,
    /// Memory that the allocator never sees: firmware, the kernel image, tables made before the allocator.
    Reserved = 5,
    /// There is no memory behind this frame number.
    Absent = 6,
    /// Taken out of service with its boot section, whose memmap stays.
    Offline = 7,
}

impl PageState {
    const ALL: [Self; 8] = [
        Self::Tail,
        Self::Free,
        Self::Isolated,
        Self::Allocated,
        Self::Memmap,
        Self::Reserved,
        Self::Absent,
        Self::Offline,
    ];
}

/// Who a frame belongs to, for `page`, for `iomem` and for telling why an offline is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Owner {
    /// Nobody.
    None = 0,
    /// Firmware, or a part of the address map that it has claimed.
    Firmware = 1,
    /// The image of the kernel and what the boot loader left for it.
    KernelImage = 2,
    /// Page tables.
    PageTable = 3,
    /// Struct pages.
    Memmap = 4,
    /// The kernel heap.
    Heap = 5,
    /// Stacks of kernel tasks and CPUs.
    Stack = 6,
    /// Tables that exist before the allocator does and stay for ever.
    BootTables = 7,
    /// Memory taken by the shell's `fill`.
    Fill = 8,
    /// Memory taken by the shell's `kfill`.
    Kfill = 9,
    /// Buffers that a device reads or writes.
    Dma = 10,
    /// The kernel's own tests.
    Selftest = 11,
}

impl Owner {
    const ALL: [Self; 12] = [
        Self::None,
        Self::Firmware,
        Self::KernelImage,
        Self::PageTable,
        Self::Memmap,
        Self::Heap,
        Self::Stack,
        Self::BootTables,
        Self::Fill,
        Self::Kfill,
        Self::Dma,
        Self::Selftest,
    ];

    /// Its name for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Firmware => "firmware",
            Self::KernelImage => "kernel-image",
            Self::PageTable => "page-table",
            Self::Memmap => "memmap",
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::BootTables => "boot-tables",
            Self::Fill => "fill",
            Self::Kfill => "kfill",
            Self::Dma => "dma",
            Self::Selftest => "selftest",
        }
    }
}

impl core::fmt::Display for Owner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the first word of a struct page says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What the block is.
    pub state: PageState,
    /// Its size; meaningful for [`PageState::Free`], [`PageState::Isolated`] and [`PageState::Allocated`].
    pub order: Order,
    /// Whose it is.
    pub owner: Owner,
}

impl Head {
    /// A frame that is no head.
    pub const TAIL: Self = Self::single(PageState::Tail, Owner::None);

    /// One frame in `state`.
    #[must_use]
    pub const fn single(state: PageState, owner: Owner) -> Self {
        Self { state, order: Order::PAGE, owner }
    }

    /// A free block of `order`, on a list or isolated.
    #[must_use]
    pub const fn unused(state: PageState, order: Order) -> Self {
        Self { state, order, owner: Owner::None }
    }

    const fn encode(self) -> u32 {
        self.state as u32 | (self.order.index() as u32) << 8 | (self.owner as u32) << 16
    }

    fn decode(word: u32) -> Self {
        let field = |shift: u32| (word >> shift) as usize & 0xff;
        Self {
            state: PageState::ALL[field(0)],
            order: Order::new(field(8) as u8).expect("only valid orders are stored"),
            owner: Owner::ALL[field(16)],
        }
    }
}

/// The struct page of one frame. See the module for what guards which field.
#[derive(Default)]
#[repr(C, align(32))]
pub struct PageInfo {
    head: AtomicU32,
    refs: AtomicU32,
    next: AtomicU64,
    prev: AtomicU64,
    private: AtomicU64,
}

/// Bytes in a struct page.
pub const PAGE_INFO_SIZE: u64 = 32;
const _: () = assert!(size_of::<PageInfo>() as u64 == PAGE_INFO_SIZE);

const NO_LINK: u64 = u64::MAX;

fn link(value: Option<Pfn>) -> u64 {
    value.map_or(NO_LINK, Pfn::number)
}

fn unlink(value: u64) -> Option<Pfn> {
    (value != NO_LINK).then_some(Pfn::new(value))
}

impl PageInfo {
    /// What the frame is.
    #[must_use]
    pub fn head(&self) -> Head {
        Head::decode(self.head.load(Ordering::Relaxed))
    }

    /// References to the allocated block that begins here.
    #[must_use]
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Relaxed)
    }

    /// Back to the zeroed struct page: a tail without owner, references and links.
    pub fn clear(&self) {
        self.head.store(Head::TAIL.encode(), Ordering::Relaxed);
        self.refs.store(0, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.prev.store(0, Ordering::Relaxed);
        self.private.store(0, Ordering::Relaxed);
    }

    /// A word that belongs to whoever owns the allocated block.
    #[must_use]
    pub fn private(&self) -> u64 {
        self.private.load(Ordering::Relaxed)
    }

    /// Sets the owner's word.
    pub fn set_private(&self, value: u64) {
        self.private.store(value, Ordering::Relaxed);
    }

    pub(crate) fn set_head(&self, head: Head) {
        self.head.store(head.encode(), Ordering::Relaxed);
    }

    pub(crate) fn set_refs(&self, refs: u32) {
        self.refs.store(refs, Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> Option<Pfn> {
        unlink(self.next.load(Ordering::Relaxed))
    }

    pub(crate) fn set_next(&self, next: Option<Pfn>) {
        self.next.store(link(next), Ordering::Relaxed);
    }

    pub(crate) fn prev(&self) -> Option<Pfn> {
        unlink(self.prev.load(Ordering::Relaxed))
    }

    pub(crate) fn set_prev(&self, prev: Option<Pfn>) {
        self.prev.store(link(prev), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zeroed_struct_page_is_a_tail() {
        assert_eq!(PageInfo::default().head(), Head::TAIL);
        assert_eq!(Head::TAIL.encode(), 0);
    }

    #[test]
    fn every_head_survives_encoding() {
        for state in PageState::ALL {
            for owner in Owner::ALL {
                for order in Order::all() {
                    let head = Head { state, order, owner };
                    assert_eq!(Head::decode(head.encode()), head);
                }
            }
        }
    }
}
