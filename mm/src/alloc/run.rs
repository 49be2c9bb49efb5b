//! Runs: pageblocks in a row, up to 1 GiB, across sections.
//!
//! A run is nothing of its own afterwards: each of its pageblocks is an allocated block like any other.

use crate::addr::{Order, Pfn, PfnRange, SectionId};
use crate::alloc::request::{AllocError, Request, Urgency};
use crate::alloc::take::Source;
use crate::alloc::{open, take};
use crate::frame::pageblock::{FRAMES, PER_SECTION, Pageblock};
use crate::frame::pageblock_set::PageblockSet;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::state::Openness;
use crate::section::word::{Section, head_range};
use crate::zone::free_area::Mixing;

/// The most pageblocks in a run: 1 GiB.
pub const RUN_LIMIT: u64 = (1 << 30) / (FRAMES * crate::addr::PAGE_SIZE);

impl<M: Machine> Memory<M> {
    /// Takes `blocks` pageblocks in a row, aligned to their size if that is a power of two. `request` says for whom and from
    /// where; its order does not matter. To be given back by [`free_run`](Self::free_run), or one pageblock at a time.
    ///
    /// # Errors
    /// There are not as many free pageblocks in a row; an injected failure.
    ///
    /// # Panics
    /// `blocks` is zero or above [`RUN_LIMIT`]; the request is hotplug's own.
    pub fn allocate_run(&self, blocks: u64, request: &Request) -> Result<PfnRange, AllocError> {
        assert!((1..=RUN_LIMIT).contains(&blocks), "a run has 1 to {RUN_LIMIT} pageblocks");
        assert!(request.urgency == Urgency::Ordinary, "looking for a run opens sections");
        take::check_allocation_injected(self, request)?;
        self.drain_caches();
        let request = Request { order: Order::PAGEBLOCK, ..*request };
        let found =
            take::first_that_serves(self, &request, Mixing::Never, |source| take_run(self, source, blocks, &request));
        found.map(|first| PfnRange::new(first, blocks * FRAMES)).ok_or(AllocError::OutOfMemory)
    }

    /// Gives back what [`allocate_run`](Self::allocate_run) gave, or any part of it that is whole pageblocks.
    pub fn free_run(&self, run: PfnRange) {
        for n in 0..run.len() / FRAMES {
            self.free(run.start().add(n * FRAMES), Order::PAGEBLOCK);
        }
    }
}

fn take_run<M: Machine>(memory: &Memory<M>, source: Source, blocks: u64, request: &Request) -> Option<Pfn> {
    if take::allowance(memory, source) < blocks * FRAMES {
        return None;
    }
    let (first, last) = memory.zones.lock(source.node, source.kind).span()?;
    let mut row = Row::new(blocks);
    for id in SectionId::through(first, last) {
        let free = free_pageblocks(memory, source, id);
        for n in 0..PER_SECTION {
            let is_free = free >> n & 1 != 0;
            let Some(start) = row.next(u64::from(id.number()) * PER_SECTION + n, is_free) else { continue };
            // Somebody else may have been faster.
            if let Some(head) = claim_run(memory, source, Pfn::new(start * FRAMES), blocks, request) {
                return Some(head);
            }
        }
    }
    None
}

/// A bit for each pageblock of a section that `source` could give as a whole.
fn free_pageblocks<M: Machine>(memory: &Memory<M>, source: Source, id: SectionId) -> u64 {
    let section = |id| memory.sections.get(id).filter(|section| is_of(*section, source));
    let Some(seen) = section(id) else { return 0 };
    match seen.openness {
        Openness::Withheld => return 0,
        // One that is just being opened or closed is waited for if it is chosen.
        Openness::Untouched | Openness::Changing => {
            let taken = head_range(id, seen).len().div_ceil(FRAMES);
            return PageblockSet::behind(taken).without(memory.sections.withheld(id)).bits();
        }
        Openness::Open => {}
    }
    let _zone = memory.zones.lock(source.node, source.kind);
    // Its struct pages stay while the lock is held, if they are still there.
    if !section(id).is_some_and(Section::is_open) {
        return 0;
    }
    let blocks = Pageblock::of_section(id).enumerate();
    blocks.fold(0, |bits, (n, block)| bits | u64::from(block.descriptor(&memory.machine).is_whole()) << n)
}

fn claim_run<M: Machine>(
    memory: &Memory<M>,
    source: Source,
    first: Pfn,
    blocks: u64,
    request: &Request,
) -> Option<Pfn> {
    for n in 0..blocks {
        let block = Pageblock::of(first.add(n * FRAMES));
        let id = block.first().section();
        open::open(memory, id);
        let taken = take::take_one(memory, source, request, |zone| {
            memory.sections.get(id).filter(|section| is_of(*section, source) && section.is_open())?;
            let area = zone.area_mut(source.origin);
            let head = area.take_at(&memory.machine, block, Order::PAGEBLOCK, request.mobility, source.mixing)?;
            take::mark_allocated(memory, head, request);
            Some(head)
        });
        if taken.flatten().is_none() {
            memory.free_run(PfnRange::new(first, n * FRAMES));
            return None;
        }
    }
    Some(first)
}

fn is_of(section: Section, source: Source) -> bool {
    section.node == source.node
        && section.state == crate::section::state::BlockState::Online(source.kind)
        && section.origin == source.origin
}

/// Looks for enough free pageblocks in a row.
struct Row {
    wanted: u64,
    align: u64,
    /// Where the row begins that is being looked at.
    start: Option<u64>,
}

impl Row {
    const fn new(wanted: u64) -> Self {
        Self { wanted, align: if wanted.is_power_of_two() { wanted } else { 1 }, start: None }
    }

    /// Looks at the pageblock of that number, which is above those seen so far; where the row begins if it is complete.
    fn next(&mut self, number: u64, is_free: bool) -> Option<u64> {
        if !is_free {
            self.start = None;
            return None;
        }
        let start = match self.start {
            Some(start) => start,
            None if number.is_multiple_of(self.align) => number,
            None => return None,
        };
        self.start = Some(start);
        if number + 1 - start < self.wanted {
            return None;
        }
        self.start = None;
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wanted: u64, free: impl Fn(u64) -> bool) -> Option<u64> {
        let mut row = Row::new(wanted);
        (0..200).find_map(|n| row.next(n, free(n)))
    }

    #[test]
    fn a_row_is_whole_and_aligned_if_it_can_be() {
        assert_eq!(found(3, |n| n >= 5), Some(5));
        assert_eq!(found(4, |n| n >= 5), Some(8));
        assert_eq!(found(64, |n| n != 0 && n != 70), Some(128));
        assert_eq!(found(5, |n| n % 5 != 0), None);
    }
}
