//! The struct page: 32 bytes for every frame of every section that is in use.
//!
//! An allocated block is described by the struct page of its first frame, its *head*; everything else is
//! [`PageState::Tail`]. A zeroed struct page is a tail, and a zeroed memmap is a section all of whose frames are free.
//!
//! | word | holds | guarded by |
//! |---|---|---|
//! | `head` | state, order, owner, mobility, call site | the owner of the block; in a cache, the cache's lock |
//! | | whether an allocated block is faulty, and whether this frame of it has an error: see `poison` | the lock of the zone |
//! | `refs` | references to an allocated block: its owner's, and pins; none while it is being moved; since when | atomic |
//! | `private` | allocated: the owner's; in a cache: the next frame there | the owner; the cache's lock |
//! | `used` | one bit for each of 64 frames of the pageblock: it is not free | the lock of the zone |
//! | `link` | what the zone keeps of the pageblock or section that this frame leads | the lock of the zone |
//!
//! Only the first few struct pages of a pageblock use the last two words; which holds what is told in `pageblock`. Node,
//! zone and section are not stored: they follow from the frame number and the word of its section.

use crate::addr::{Order, PAGE_SIZE, PAGES_PER_SECTION};
use crate::frame::mobility::Mobility;
use crate::site::SITE_LIMIT;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What a frame is, as far as its own struct page tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageState {
    /// Free, or part of a block whose head lies below.
    Tail = 0,
    /// Head of a free block in the cache of a CPU.
    Cached = 1,
    /// Head of an allocated block.
    Allocated = 2,
    /// Holds struct pages or page tables of its own section or group; never handed out.
    Memmap = 3,
    /// Memory that the allocator never sees: firmware, the kernel image, tables made before the allocator.
    Reserved = 4,
    /// There is no memory behind this frame number.
    Absent = 5,
    /// The hardware has found an error in it; never handed out again.
    Poisoned = 6,
}

impl PageState {
    const ALL: [Self; 7] =
        [Self::Tail, Self::Cached, Self::Allocated, Self::Memmap, Self::Reserved, Self::Absent, Self::Poisoned];
}

/// Who a frame belongs to, for `page`, for `iomem` and for telling why an offline is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Owner {
    /// No owner.
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
    /// Memory of an address space, which its page table alone points at.
    Anonymous = 8,
    /// Memory taken by the shell's `kfill`.
    Kfill = 9,
    /// Buffers that a device reads or writes.
    Dma = 10,
    /// The kernel's own tests and measurements.
    Selftest = 11,
    /// Page tables of an address space.
    UserTable = 12,
    /// Memory of a device, handed out by it.
    Device = 13,
}

impl Owner {
    const ALL: [Self; 14] = [
        Self::None,
        Self::Firmware,
        Self::KernelImage,
        Self::PageTable,
        Self::Memmap,
        Self::Heap,
        Self::Stack,
        Self::BootTables,
        Self::Anonymous,
        Self::Kfill,
        Self::Dma,
        Self::Selftest,
        Self::UserTable,
        Self::Device,
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
            Self::Anonymous => "anonymous",
            Self::Kfill => "kfill",
            Self::Dma => "dma",
            Self::Selftest => "selftest",
            Self::UserTable => "user-page-table",
            Self::Device => "device",
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
    /// Its size; meaningful for [`PageState::Allocated`] and [`PageState::Cached`].
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

    #[inline]
    const fn encode(self) -> u32 {
        self.state as u32 | (self.order.index() as u32) << 8 | (self.owner as u32) << 16
    }

    #[inline]
    fn decode(word: u32) -> Self {
        let field = |shift: u32| (word >> shift) as usize & 0xff;
        Self {
            state: PageState::ALL[field(0) & !((FAULTY | ERROR) as usize)],
            order: Order::new(field(8) as u8).expect("only valid orders are stored"),
            owner: Owner::ALL[field(16)],
        }
    }
}

/// Set in the first word of an allocated block one of whose frames has an error: the block is not simply given back. It lies
/// beside the state, so that whoever gives a block back sees it where he looks anyway.
const FAULTY: u32 = 1 << 7;
/// Set in the first word of every frame of a faulty block that has an error itself, its tails too.
const ERROR: u32 = 1 << 6;
/// Set in the first word of an allocated block that was asked for as movable.
const MOVABLE: u32 = 1 << 24;
/// Above it stands the number of the call site that took the block, if it is not movable.
const SITE_SHIFT: u32 = 25;
const _: () = assert!(SITE_LIMIT < 1 << (u32::BITS - SITE_SHIFT), "a call site fits its field");
/// State, order and owner.
const HEAD: u32 = MOVABLE - 1;

/// References take these bits of their word. Above them stands since when an unmovable block is held, in seconds, which
/// lasts twelve days.
const REFS: u32 = (1 << 12) - 1;
const SINCE_LIMIT: u64 = (u32::MAX / (REFS + 1)) as u64;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// What the struct page of an allocated block says beside its size and owner.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Bits of the first word above state, order and owner.
    mark: u32,
    refs: u32,
}

impl Terms {
    pub(crate) const MOVABLE: Self = Self { mark: MOVABLE, refs: 1 };

    /// Taken by the call site of that number, at that time.
    pub(crate) fn unmovable(site: u8, now_ns: u64) -> Self {
        let seconds = (now_ns / NS_PER_SECOND).min(SINCE_LIMIT) as u32;
        Self { mark: u32::from(site) << SITE_SHIFT, refs: 1 + seconds * (REFS + 1) }
    }
}

/// The struct page of one frame. See the module for what guards which field.
#[derive(Default)]
#[repr(C, align(32))]
pub struct PageInfo {
    head: AtomicU32,
    refs: AtomicU32,
    private: AtomicU64,
    used: AtomicU64,
    link: AtomicU64,
}

#[inline]
const fn mobility_in(word: u32) -> Mobility {
    if word & MOVABLE == 0 { Mobility::Unmovable } else { Mobility::Movable }
}

/// Bytes in a struct page.
pub const PAGE_INFO_SIZE: u64 = 32;
const _: () = assert!(size_of::<PageInfo>() as u64 == PAGE_INFO_SIZE);

/// Pages that the struct pages of one section take: 1 MiB.
pub const MEMMAP_PAGES: u64 = PAGES_PER_SECTION * PAGE_INFO_SIZE / PAGE_SIZE;

impl PageInfo {
    /// What the frame is.
    #[must_use]
    #[inline]
    pub fn head(&self) -> Head {
        Head::decode(self.head.load(Ordering::Relaxed))
    }

    /// What the allocated block of `order` that begins here was asked for; `None` if there is no such block, or it is faulty.
    #[inline]
    pub(crate) fn served(&self, order: Order) -> Option<Mobility> {
        let of_anybody = Head { state: PageState::Allocated, order, owner: Owner::None }.encode();
        let word = self.head.load(Ordering::Relaxed);
        (word & 0xffff == of_anybody).then_some(mobility_in(word))
    }

    /// The same of a block that may be faulty.
    #[inline]
    pub(crate) fn asked_for(&self, order: Order) -> Option<Mobility> {
        let word = self.head.load(Ordering::Relaxed);
        let head = Head::decode(word);
        (head.state == PageState::Allocated && head.order == order).then_some(mobility_in(word))
    }

    /// Marks the allocated block of `order` that begins here as faulty, if there is one.
    pub(crate) fn mark_faulty(&self, order: Order) {
        let marked = |word| {
            let head = Head::decode(word);
            let is_wanted = head.state == PageState::Allocated && head.order == order;
            if is_wanted { word | FAULTY } else { word }
        };
        self.head.update(Ordering::Relaxed, Ordering::Relaxed, marked);
    }

    /// Notes that this frame of an allocated block has an error.
    pub(crate) fn set_error(&self) {
        self.head.fetch_or(ERROR, Ordering::Relaxed);
    }

    /// Whether this frame of an allocated block has an error.
    pub(crate) fn has_error(&self) -> bool {
        self.head.load(Ordering::Relaxed) & ERROR != 0
    }

    /// Undoes [`set_error`](Self::set_error).
    pub(crate) fn forget_error(&self) {
        self.head.fetch_and(!ERROR, Ordering::Relaxed);
    }

    /// There is no block any more that begins here; whether its first frame has an error is still known.
    pub(crate) fn disband(&self) {
        self.head.fetch_and(ERROR, Ordering::Relaxed);
    }

    /// Whether a frame of the allocated block that begins here has an error.
    #[inline]
    pub(crate) fn is_faulty(&self) -> bool {
        self.head.load(Ordering::Relaxed) & FAULTY != 0
    }

    /// The owner of a faulty block has given it back, and nobody else shall have what is a block of `order` now.
    pub(crate) fn abandon(&self, order: Order) {
        let head = Head { state: PageState::Allocated, order, owner: Owner::None }.encode();
        let error = self.head.load(Ordering::Relaxed) & ERROR;
        self.head.store(head | error | FAULTY, Ordering::Relaxed);
        self.refs.store(0, Ordering::Relaxed);
    }

    /// Whether [`abandon`](Self::abandon) was the last that was done to it.
    #[inline]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_faulty() && self.head().owner == Owner::None
    }

    /// The block that begins here belongs to somebody now.
    #[inline]
    pub(crate) fn hand_out(&self, order: Order, owner: Owner, terms: Terms) {
        let head = Head { state: PageState::Allocated, order, owner }.encode();
        self.head.store(head | terms.mark, Ordering::Relaxed);
        self.refs.store(terms.refs, Ordering::Relaxed);
    }

    /// The number of the call site that took the unmovable block that begins here; 0 if that is not known.
    pub(crate) fn site(&self) -> u8 {
        (self.head.load(Ordering::Relaxed) >> SITE_SHIFT) as u8
    }

    /// Since when the unmovable block that begins here is held, in nanoseconds of the clock, to the second.
    pub(crate) fn since_ns(&self) -> u64 {
        u64::from(self.refs.load(Ordering::Relaxed) / (REFS + 1)) * NS_PER_SECOND
    }

    /// A single frame of what was an allocated block with that head; faulty if it is the one that has an error.
    pub(crate) fn become_part_of(&self, whole: &Self) {
        let mark = whole.head.load(Ordering::Relaxed) & !HEAD;
        let error = if self.has_error() { ERROR | FAULTY } else { 0 };
        self.head.store(Head { order: Order::PAGE, ..whole.head() }.encode() | mark | error, Ordering::Relaxed);
        self.refs.store(whole.refs.load(Ordering::Relaxed), Ordering::Relaxed);
        self.private.store(0, Ordering::Relaxed);
    }

    /// The allocated block that begins here, whatever it was asked for as, can move from now on. The caller keeps it from being
    /// moved or given back meanwhile.
    pub fn become_movable(&self) {
        self.head.update(Ordering::Relaxed, Ordering::Relaxed, |word| word & HEAD | MOVABLE);
        self.refs.fetch_and(REFS, Ordering::Relaxed);
    }

    /// Inherits from the struct page of the block that moved here since when it has been held.
    #[inline]
    pub(crate) fn inherit_age(&self, old: &Self) {
        let since = old.refs.load(Ordering::Relaxed) & !REFS;
        if since != 0 {
            self.refs.update(Ordering::Relaxed, Ordering::Relaxed, |refs| refs & REFS | since);
        }
    }

    /// References to the allocated block that begins here.
    #[must_use]
    #[inline]
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Relaxed) & REFS
    }

    /// Takes a reference beside the owner's, so that the block stays where it is; not while it is being moved.
    #[must_use = "without a reference the block may move"]
    pub fn pin(&self) -> bool {
        let more = |refs: u32| (1..REFS).contains(&(refs & REFS)).then(|| refs + 1);
        // Acquire pairs with the Release in `thaw`: the block is seen where it has moved.
        self.refs.try_update(Ordering::Acquire, Ordering::Relaxed, more).is_ok()
    }

    /// Gives up a reference that [`pin`](Self::pin) took.
    ///
    /// # Panics
    /// There is none but the owner's.
    pub fn unpin(&self) {
        // Release pairs with the Acquire in `freeze`: what was written through the reference moves with the block.
        let before = self.refs.fetch_sub(1, Ordering::Release) & REFS;
        assert!(before > 1, "a reference was given up that nobody took");
    }

    /// Takes the owner's reference away, if there is no other: until it is back the block cannot be pinned.
    #[inline]
    #[must_use = "a block that others refer to cannot move"]
    pub fn freeze(&self) -> bool {
        let none = |refs: u32| (refs & REFS == 1).then(|| refs - 1);
        // Acquire pairs with the Release in `unpin`, and in the `thaw` of the move before.
        self.refs.try_update(Ordering::Acquire, Ordering::Relaxed, none).is_ok()
    }

    /// Gives the owner its reference to a block that [`freeze`](Self::freeze) froze.
    #[inline]
    pub fn thaw(&self) {
        // Release pairs with the Acquire in `pin` and `freeze`.
        self.refs.fetch_add(1, Ordering::Release);
    }

    /// Back to the zeroed struct page: a tail without owner and references.
    #[inline]
    pub fn clear(&self) {
        self.head.store(Head::TAIL.encode(), Ordering::Relaxed);
        self.refs.store(0, Ordering::Relaxed);
        self.private.store(0, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
        self.link.store(0, Ordering::Relaxed);
    }

    /// A word that belongs to the owner of the allocated block.
    #[must_use]
    #[inline]
    pub fn private(&self) -> u64 {
        self.private.load(Ordering::Relaxed)
    }

    /// Sets the owner's word.
    #[inline]
    pub fn set_private(&self, value: u64) {
        self.private.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set_head(&self, head: Head) {
        self.head.store(head.encode(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_used(&self, bits: u64) {
        self.used.store(bits, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn link(&self) -> u64 {
        self.link.load(Ordering::Relaxed)
    }

    /// Adds to the word, in two's complement, which two zones may do at once; what it was.
    #[inline]
    pub(crate) fn add_to_link(&self, change: u64) -> u64 {
        self.link.fetch_add(change, Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_link(&self, value: u64) {
        self.link.store(value, Ordering::Relaxed);
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
    fn a_pinned_block_does_not_freeze_and_a_frozen_one_is_not_pinned() {
        let page = PageInfo::default();
        page.hand_out(Order::PAGE, Owner::Anonymous, Terms::MOVABLE);
        assert!(page.pin());
        assert!(!page.freeze());
        page.unpin();
        assert!(page.freeze());
        assert!(!page.pin());
        page.thaw();
        assert_eq!(page.refs(), 1);
    }

    #[test]
    fn pins_leave_alone_since_when_a_block_is_held() {
        let page = PageInfo::default();
        page.hand_out(Order::PAGE, Owner::Heap, Terms::unmovable(127, 5_900_000_000));
        assert!(page.pin() && page.pin());
        assert_eq!((page.refs(), page.since_ns(), page.site()), (3, 5_000_000_000, 127));
        page.unpin();
        page.unpin();
        assert!(page.freeze());
        assert_eq!((page.refs(), page.since_ns()), (0, 5_000_000_000));
        page.thaw();
        assert_eq!((page.refs(), page.since_ns()), (1, 5_000_000_000));
        assert_eq!(page.served(Order::PAGE), Some(Mobility::Unmovable));
        assert_eq!(page.head(), Head { state: PageState::Allocated, order: Order::PAGE, owner: Owner::Heap });
    }

    #[test]
    fn what_becomes_movable_can_move_and_nothing_is_recorded_of_it() {
        let page = PageInfo::default();
        page.hand_out(Order::PAGE, Owner::Anonymous, Terms::unmovable(127, 5_900_000_000));
        assert!(page.pin());
        page.become_movable();
        assert_eq!((page.served(Order::PAGE), page.refs()), (Some(Mobility::Movable), 2));
        assert_eq!((page.site(), page.since_ns()), (0, 0));
        assert_eq!(page.head(), Head { state: PageState::Allocated, order: Order::PAGE, owner: Owner::Anonymous });
    }

    #[test]
    fn a_faulty_block_is_what_it_was_but_for_who_gives_it_back() {
        let page = PageInfo::default();
        page.mark_faulty(Order::PAGE);
        assert!(!page.is_faulty(), "there is no block");
        page.hand_out(Order::PAGEBLOCK, Owner::Anonymous, Terms::MOVABLE);
        let head = page.head();
        page.mark_faulty(Order::PAGE);
        assert!(!page.is_faulty(), "it is larger");
        page.mark_faulty(Order::PAGEBLOCK);
        assert!(page.is_faulty() && !page.is_abandoned());
        assert_eq!((page.head(), page.refs()), (head, 1));
        assert_eq!((page.served(head.order), page.asked_for(head.order)), (None, Some(Mobility::Movable)));
        page.abandon(Order::PAGEBLOCK);
        assert!(page.is_abandoned());
        assert_eq!((page.head(), page.refs()), (Head { owner: Owner::None, ..head }, 0));
        page.set_head(Head::TAIL);
        assert!(!page.is_faulty());
    }

    #[test]
    fn more_pins_than_a_struct_page_can_count_are_refused() {
        let page = PageInfo::default();
        page.hand_out(Order::PAGE, Owner::Heap, Terms::unmovable(1, u64::MAX));
        let since = page.since_ns();
        while page.pin() {}
        assert_eq!((page.refs(), page.since_ns()), (REFS, since));
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
