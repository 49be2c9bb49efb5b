//! What a CPU keeps of a zone's free frames, so that taking and giving single frames touches nothing that others write.
//!
//! Frames in a cache are linked through their struct pages, the last freed first. They come from the zone, and go back to
//! it, in batches. Whoever finds no memory elsewhere empties every cache, so that none keeps the last free frame.

use crate::addr::Pfn;
use crate::alloc::Mobility;
use crate::machine::Memmap;
use crate::page::{Head, Owner, PageState};
use crate::zone::Origin;
use lock_api::{Mutex, RawMutex};

/// Frames that move between cache and zone at once.
pub(crate) const BATCH: u64 = 32;
/// A stack with more frames gives a batch back.
pub(crate) const HIGH: u64 = 3 * BATCH;

const END: u64 = u64::MAX;

/// Frames of one origin and mobility.
#[derive(Debug)]
pub(crate) struct Stack {
    first: u64,
    len: u64,
}

impl Stack {
    const EMPTY: Self = Self { first: END, len: 0 };

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn push(&mut self, memmap: &impl Memmap, frame: Pfn) {
        let page = memmap.page(frame);
        page.set_head(Head::single(PageState::Cached, Owner::None));
        page.set_private(self.first);
        self.first = frame.number();
        self.len += 1;
    }

    /// Takes the last pushed frame; its struct page is left as it is.
    pub(crate) fn pop(&mut self, memmap: &impl Memmap) -> Option<Pfn> {
        if self.first == END {
            return None;
        }
        let frame = Pfn::new(self.first);
        self.first = memmap.page(frame).private();
        self.len -= 1;
        Some(frame)
    }

    /// Every frame, the last pushed first, as the links tell; at most one more than are counted.
    fn iter<'a>(&self, memmap: &'a impl Memmap) -> impl Iterator<Item = Pfn> + 'a {
        let frame = |number| (number != END).then_some(Pfn::new(number));
        core::iter::successors(frame(self.first), move |at| frame(memmap.page(*at).private()))
            .take(self.len as usize + 1)
    }
}

/// The stacks of one CPU for one zone.
#[derive(Debug)]
pub(crate) struct Cache {
    stacks: [[Stack; Mobility::ALL.len()]; Origin::ALL.len()],
}

impl Cache {
    pub(crate) const fn stack(&mut self, origin: Origin, mobility: Mobility) -> &mut Stack {
        &mut self.stacks[origin as usize][mobility as usize]
    }

    /// Frames in all stacks.
    pub(crate) fn len(&self) -> u64 {
        self.stacks.iter().flatten().map(Stack::len).sum()
    }

    /// Every frame in it.
    pub(crate) fn iter<'a>(&'a self, memmap: &'a impl Memmap) -> impl Iterator<Item = (Pfn, Origin, Mobility)> + 'a {
        Origin::ALL.into_iter().flat_map(move |origin| {
            Mobility::ALL.into_iter().flat_map(move |mobility| {
                let stack = &self.stacks[origin as usize][mobility as usize];
                stack.iter(memmap).map(move |frame| (frame, origin, mobility))
            })
        })
    }
}

/// A cache behind its lock, on cache lines of its own: those next to each other are fetched in pairs.
#[repr(align(128))]
pub struct CacheCell<S>(pub(crate) Mutex<S, Cache>);

impl<S: RawMutex> Default for CacheCell<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: RawMutex> CacheCell<S> {
    /// An empty cache.
    #[must_use]
    pub const fn new() -> Self {
        let stacks = [const { [const { Stack::EMPTY }; Mobility::ALL.len()] }; Origin::ALL.len()];
        Self(Mutex::new(Cache { stacks }))
    }
}
