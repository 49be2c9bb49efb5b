//! Per-CPU page lists: what a CPU keeps of a zone's free memory, so that allocating and freeing single frames and whole
//! pageblocks, the sizes that are asked for all the time, touches nothing that other CPUs write.
//!
//! Blocks in a cache are linked through their struct pages, the last freed first. They come from the zone, and go back to
//! it, in batches. A request that finds no memory elsewhere drains every cache, so that none keeps the last free frame.

use crate::addr::{Order, Pfn};
use crate::frame::memmap::Memmap;
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, Owner, PageInfo, PageState};
use crate::limits::CACHE_LINE_PAIR;
use crate::section::kind::Origin;
use lock_api::{Mutex, RawMutex};

/// Sizes that caches keep, each on a stack of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SizeClass {
    /// Single frames of pageblocks of that mobility.
    Frames(Mobility),
    /// Pageblocks.
    Pageblocks,
    /// Two pageblocks in a row, the largest that there is.
    Pairs,
}

impl SizeClass {
    pub(crate) const ALL: [Self; 4] =
        [Self::Frames(Mobility::Unmovable), Self::Frames(Mobility::Movable), Self::Pageblocks, Self::Pairs];

    /// Where blocks of that order and mobility lie, if caches keep them.
    #[inline]
    pub(crate) const fn of(order: Order, mobility: Mobility) -> Option<Self> {
        match order {
            Order::PAGE => Some(Self::Frames(mobility)),
            Order::PAGEBLOCK => Some(Self::Pageblocks),
            Order::MAX => Some(Self::Pairs),
            _ => None,
        }
    }

    #[inline]
    const fn index(self) -> usize {
        match self {
            Self::Frames(mobility) => mobility as usize,
            Self::Pageblocks => Mobility::ALL.len(),
            Self::Pairs => Mobility::ALL.len() + 1,
        }
    }

    /// The order of what lies here.
    #[inline]
    pub(crate) const fn order(self) -> Order {
        match self {
            Self::Frames(_) => Order::PAGE,
            Self::Pageblocks => Order::PAGEBLOCK,
            Self::Pairs => Order::MAX,
        }
    }

    /// How many move between cache and zone at once.
    #[inline]
    pub(crate) const fn batch(self) -> u64 {
        match self {
            Self::Frames(_) => 32,
            Self::Pageblocks | Self::Pairs => 1,
        }
    }

    /// A stack with more gives a batch back.
    #[inline]
    pub(crate) const fn most(self) -> u64 {
        3 * self.batch()
    }
}

const END: u64 = u64::MAX;

/// Free blocks of one origin and size class, the last freed first.
#[derive(Debug)]
pub(crate) struct FreeStack {
    first: u64,
    len: u64,
}

impl FreeStack {
    const EMPTY: Self = Self { first: END, len: 0 };

    #[inline]
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    pub(crate) fn push(&mut self, page: &PageInfo, head: Pfn, order: Order) {
        page.set_head(Head { state: PageState::Cached, order, owner: Owner::None });
        page.set_private(self.first);
        self.first = head.number();
        self.len = self.len.wrapping_add(1);
    }

    /// Takes the last pushed block, with the struct page of its head, which is left as it is.
    #[inline]
    pub(crate) fn pop<'a>(&mut self, memmap: &'a impl Memmap) -> Option<(Pfn, &'a PageInfo)> {
        if self.first == END {
            return None;
        }
        let head = Pfn::new(self.first);
        let page = memmap.page(head);
        self.first = page.private();
        self.len = self.len.wrapping_sub(1);
        Some((head, page))
    }

    /// Every block, the last pushed first, as the links tell; at most one more than are counted.
    pub(crate) fn iter<'a>(&self, memmap: &'a impl Memmap) -> impl Iterator<Item = Pfn> + 'a {
        let mut at = None;
        let first = self.first;
        // A link is followed only when somebody wants what it leads to.
        let heads = core::iter::from_fn(move || {
            let next = at.map_or(first, |at| memmap.page(at).private());
            at = (next != END).then_some(Pfn::new(next));
            at
        });
        heads.take(self.len as usize + 1)
    }
}

/// The stacks of one CPU for one zone.
#[derive(Debug)]
pub(crate) struct Cache {
    stacks: [[FreeStack; SizeClass::ALL.len()]; Origin::ALL.len()],
}

impl Cache {
    #[inline]
    pub(crate) const fn stack(&mut self, origin: Origin, class: SizeClass) -> &mut FreeStack {
        &mut self.stacks[origin as usize][class.index()]
    }

    /// Frames in all stacks.
    pub(crate) fn pages(&self) -> u64 {
        Origin::ALL.into_iter().map(|origin| self.pages_of(origin)).sum()
    }

    /// Frames of one origin.
    pub(crate) fn pages_of(&self, origin: Origin) -> u64 {
        let classes = SizeClass::ALL.into_iter().zip(&self.stacks[origin as usize]);
        classes.map(|(class, stack)| stack.len * class.order().pages()).sum()
    }
}

/// A cache behind its lock, on cache lines of its own: those next to each other are fetched in pairs.
#[repr(align(128))]
pub struct CacheCell<S>(pub(crate) Mutex<S, Cache>);

const _: () = assert!(align_of::<CacheCell<()>>() == CACHE_LINE_PAIR, "what two CPUs keep is on lines of their own");

impl<S: RawMutex> Default for CacheCell<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: RawMutex> CacheCell<S> {
    /// An empty cache.
    #[must_use]
    pub const fn new() -> Self {
        let stacks = [const { [const { FreeStack::EMPTY }; SizeClass::ALL.len()] }; Origin::ALL.len()];
        Self(Mutex::new(Cache { stacks }))
    }
}
