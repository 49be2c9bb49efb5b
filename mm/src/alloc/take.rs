//! Taking frames and giving them back: the per-CPU page list first, then zones in their fallback order.
//!
//! Unmovable memory comes from Normal zones only, and from boot memory on any node before added memory on any, so that what came
//! last can go first. Movable memory prefers Movable zones, then added memory, and boot memory last; only what
//! moves out of its block stays on its node if it can. A pageblock serves both kinds only when nothing else is left, not even
//! a section to be opened. Page tables of address spaces move, too, but lie in Normal zones as long as those have enough.

use crate::addr::{NodeId, Order, Pfn, SectionId, SectionRange};
use crate::alloc::request::{AllocError, Place, Request, Urgency};
use crate::alloc::{caches, open, watermark};
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, Owner, PageInfo, Terms};
use crate::frame::pageblock::Pageblock;
use crate::inject::Point;
use crate::limits::KERNEL_FLOOR_PAGES;
use crate::machine::Machine;
use crate::memory::{self, Memory};
use crate::section::kind::{Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::{Section, Word};
use crate::site::Site;
use crate::zone::Zone;
use crate::zone::cache::{FreeStack, SizeClass};
use crate::zone::free_area::{Mixing, Search};
use crate::zone::zones::zone_number;
use core::cell::Cell;

/// Where a request is tried.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) node: NodeId,
    pub(crate) kind: ZoneKind,
    pub(crate) origin: Origin,
    pub(crate) mixing: Mixing,
}

impl Source {
    /// Whether a part of it is kept for hotplug.
    const fn has_reserve(self) -> bool {
        matches!((self.kind, self.origin), (ZoneKind::Normal, Origin::Boot))
    }
}

/// What may be taken.
struct Share {
    /// So many blocks.
    count: u64,
    /// Free boot memory that was set aside for them.
    pages: u64,
}

impl<M: Machine> Memory<M> {
    /// Takes a block of frames, whose contents are whatever they were.
    ///
    /// # Errors
    /// Nothing free serves the request; an injected failure.
    #[inline]
    pub fn allocate(&self, request: &Request) -> Result<Pfn, AllocError> {
        match take_at_hand(self, request) {
            Some(head) => Ok(head),
            // By value: whoever is served at once need not write it down.
            None => allocate_slowly(self, *request),
        }
    }

    /// Takes a block of frames inside `range`, lowest first.
    ///
    /// # Errors
    /// No online block of `range` that may serve has a free block of that size; an injected failure.
    pub fn allocate_within(&self, request: &Request, range: SectionRange) -> Result<Pfn, AllocError> {
        check_allocation_injected(self, request)?;
        let find =
            || self.sections.iter_range(range).find_map(|(id, section)| take_in_section(self, request, id, section));
        find()
            .or_else(|| {
                self.drain_caches();
                find()
            })
            .ok_or(AllocError::OutOfMemory)
    }

    /// Gives a block of frames back that [`allocate`](Self::allocate) gave.
    ///
    /// # Panics
    /// The block was not allocated with this order.
    #[inline]
    pub fn free(&self, head: Pfn, order: Order) {
        if !keep_at_hand(self, head, order) {
            free_slowly(self, head, order);
        }
    }

    /// Makes single frames of a pageblock that was allocated as a whole: each is an allocated block of its own from now on, with the
    /// same owner and references as the whole had, and no owner's word.
    ///
    /// # Panics
    /// There is no such block.
    pub fn split_block(&self, head: Pfn) {
        let whole = self.machine.page(head);
        assert!(whole.asked_for(Order::PAGEBLOCK).is_some(), "split {head:?}, which is {:?}", whole.head());
        change_zone_of(self, head, |_, _| {
            let block = Pageblock::of(head);
            block.mark_all_used(&self.machine);
            block.pages().iter().for_each(|pfn| self.machine.page(pfn).become_part_of(whole));
        });
    }
}

/// What the cache of this CPU has of the source that would be asked first.
#[inline(always)]
fn take_at_hand<M: Machine>(memory: &Memory<M>, request: &Request) -> Option<Pfn> {
    if memory.points.is_armed(Point::AllocFrames) {
        return None;
    }
    let class = request.size_class()?;
    let (kind, origin) = request.sources()[0];
    if request.spares(kind) {
        return None;
    }
    let mut cache = memory.caches.find(memory.machine.cpu(), zone_number(request.place.node(), kind))?.lock();
    let (head, page) = cache.stack(origin, class).pop(&memory.machine)?;
    hand_out(memory, page, request);
    Some(head)
}

/// Takes up to `most` more blocks for a request that has just been served with `last`, as far as the cache of this CPU has them
/// of the same source: those before it had nothing, and what lies in a cache is nothing that must be left.
pub(crate) fn take_more_at_hand<M: Machine>(
    memory: &Memory<M>,
    request: &Request,
    last: Pfn,
    most: usize,
    mut each: impl FnMut(Pfn),
) {
    if memory.points.is_armed(Point::AllocFrames) {
        return;
    }
    let Some((class, section)) = request.size_class().zip(memory.sections.open(last)) else { return };
    let Some(kind) = section.state.zone_of(last) else { return };
    let mut cache = memory.caches.of(memory.machine.cpu(), zone_number(section.node, kind)).lock();
    let stack = cache.stack(section.origin, class);
    for _ in 0..most {
        let Some((head, page)) = stack.pop(&memory.machine) else { return };
        hand_out(memory, page, request);
        each(head);
    }
}

#[inline(never)]
fn allocate_slowly<M: Machine>(memory: &Memory<M>, request: Request) -> Result<Pfn, AllocError> {
    let request = &request;
    check_allocation_injected(memory, request)?;
    let found = find(memory, request).or_else(|| {
        // What serves may lie in a cache, as a frame or as a part of a larger group.
        memory.drain_caches();
        find(memory, request)
    });
    if found.is_none() && request.urgency == Urgency::Hotplug {
        // There may be sections that it could not open itself.
        memory.machine.wake_keeper();
    }
    found.ok_or(AllocError::OutOfMemory)
}

/// The kernel heap has nobody whom it could tell of a failure, so it is spared the injected ones.
pub(crate) fn check_allocation_injected<M: Machine>(memory: &Memory<M>, request: &Request) -> Result<(), AllocError> {
    match request.owner {
        Owner::Heap => Ok(()),
        _ => memory.check_injected(Point::AllocFrames).map_err(AllocError::Injected),
    }
}

fn find<M: Machine>(memory: &Memory<M>, request: &Request) -> Option<Pfn> {
    let of_source = |source| take(memory, source, request);
    let first = request.first_mixing();
    let found = first_that_serves(memory, request, first, of_source);
    if found.is_some() || first == Mixing::Allowed {
        return found;
    }
    first_that_serves(memory, request, Mixing::Allowed, of_source)
}

/// Goes through the zones that may serve a request, in its order, until `take` gets something of one.
pub(crate) fn first_that_serves<M: Machine, R>(
    memory: &Memory<M>,
    request: &Request,
    mixing: Mixing,
    take: impl Fn(Source) -> Option<R>,
) -> Option<R> {
    let sources = || {
        let sources = request.sources().iter().copied();
        sources.filter(|(kind, origin)| memory.zones.managed(*kind, *origin) > 0)
    };
    let take = |node, (kind, origin)| take(Source { node, kind, origin, mixing });
    let by_distance = |from| memory.distances.nearest(from, memory.zones.node_limit());
    let near = |from| {
        let take = &take;
        sources().find_map(|source| by_distance(from).find_map(|node| take(node, source)))
    };
    let spared = |node| {
        let spares = |(kind, _): &(ZoneKind, Origin)| *kind == ZoneKind::Movable || can_spare_normal(memory, node);
        sources().filter(spares).find_map(|source| take(node, source))
    };
    match request.place {
        Place::On(node) if node.index() >= memory.zones.node_limit() => None,
        Place::On(node) => sources().find_map(|source| take(node, source)),
        Place::Near(node) => near(node),
        Place::Home(node) => spared(node).or_else(|| near(node)),
        Place::Prefer(node) => by_distance(node).find_map(spared).or_else(|| near(node)),
    }
}

/// Whether a node has Normal memory that the kernel is not to be left, as far as can be told without a lock.
fn can_spare_normal<M: Machine>(memory: &Memory<M>, node: NodeId) -> bool {
    let zone = memory.zones.cell(node, ZoneKind::Normal);
    let free = || Origin::ALL.into_iter().map(|origin| zone.open_free(origin)).sum::<u64>();
    let has_unopened = Origin::ALL.into_iter().any(|origin| zone.unopened(origin) > 0);
    has_unopened || free() > KERNEL_FLOOR_PAGES
}

fn take<M: Machine>(memory: &Memory<M>, source: Source, request: &Request) -> Option<Pfn> {
    let cell = memory.zones.cell(source.node, source.kind);
    loop {
        let taken = match request.size_class() {
            Some(class) => take_cached(memory, source, class, request),
            None => search_zone(memory, source, request),
        };
        if taken.is_some() || request.urgency == Urgency::Hotplug || cell.unopened(source.origin) == 0 {
            return taken;
        }
        // Untouched memory is counted already: for who has to leave that much there is no more when it is open.
        let must_leave_it = request.spares(source.kind) && watermark::bulk_spare(memory) < request.order.pages();
        // What an opening brought may have gone to somebody else.
        if must_leave_it || !open::open_lowest(memory, source.node, source.kind, source.origin, request.order) {
            return taken;
        }
    }
}

fn take_cached<M: Machine>(memory: &Memory<M>, source: Source, class: SizeClass, request: &Request) -> Option<Pfn> {
    // What lies in a cache may be taken when there is enough beside all of them.
    let is_short = || {
        memory.boot_free.spare() < watermark::floor(memory) && watermark::kernel_free(memory) < watermark::floor(memory)
    };
    if request.spares(source.kind) && is_short() {
        return None;
    }
    let mut cache = memory.caches.of(memory.machine.cpu(), zone_number(source.node, source.kind)).lock();
    let stack = cache.stack(source.origin, class);
    let (head, page) = stack.pop(&memory.machine).or_else(|| {
        refill(memory, source, class, request, stack);
        stack.pop(&memory.machine)
    })?;
    hand_out(memory, page, request);
    Some(head)
}

/// Gets a batch from the zone, if it has one to spare.
fn refill<M: Machine>(memory: &Memory<M>, source: Source, class: SizeClass, request: &Request, stack: &mut FreeStack) {
    let Request { order, mobility, .. } = *request;
    if memory.zones.cell(source.node, source.kind).open_free(source.origin) < order.pages() {
        return;
    }
    let most = Cell::new(0);
    let set_aside = || {
        let Share { count, pages } = set_aside(memory, source, request, class.batch())?;
        most.set(count);
        Some(pages)
    };
    memory::take_from_zone(memory, zone_number(source.node, source.kind), set_aside, |zone| {
        let area = zone.area_mut(source.origin);
        let most = most.get();
        match class {
            SizeClass::Frames(_) => area.take_frames(&memory.machine, most, mobility, source.mixing, |frame| {
                stack.push(memory.machine.page(frame), frame, order);
            }),
            SizeClass::Pageblocks | SizeClass::Pairs => {
                let taken = (0..most).map_while(|_| area.take_whole(&memory.machine, order, mobility));
                taken.for_each(|head| stack.push(memory.machine.page(head), head, order));
            }
        }
    });
}

fn search_zone<M: Machine>(memory: &Memory<M>, source: Source, request: &Request) -> Option<Pfn> {
    let cell = memory.zones.cell(source.node, source.kind);
    loop {
        if cell.open_free(source.origin) < request.order.pages() {
            return None;
        }
        let search = take_one(memory, source, request, |zone| {
            let area = zone.area_mut(source.origin);
            let search = area.take(&memory.machine, request.order, request.mobility, source.mixing);
            if let Search::Found(head) = search {
                mark_allocated(memory, head, request);
            }
            search
        })?;
        match search {
            Search::Found(head) => return Some(head),
            Search::Nothing => return None,
            Search::Unfinished => {}
        }
    }
}

/// Works on the zone of `source` to take what is asked for, if that is not kept for hotplug.
pub(crate) fn take_one<M: Machine, R>(
    memory: &Memory<M>,
    source: Source,
    request: &Request,
    work: impl FnOnce(&mut Zone) -> R,
) -> Option<R> {
    let set_aside = || match request.urgency {
        Urgency::Bulk | Urgency::Ordinary => set_aside(memory, source, request, 1).map(|share| share.pages),
        Urgency::Hotplug => Some(0),
    };
    memory::take_from_zone(memory, zone_number(source.node, source.kind), set_aside, work)
}

/// Sets free boot memory aside for up to `most` such blocks, so that nobody else counts on it; none if one would be too much
/// for what must be left.
#[inline]
fn set_aside<M: Machine>(memory: &Memory<M>, source: Source, request: &Request, most: u64) -> Option<Share> {
    let (order, spares) = (request.order, request.spares(source.kind));
    if !spares && !source.has_reserve() {
        return Some(Share { count: most, pages: 0 });
    }
    let (count, pages) = if source.has_reserve() {
        let floor = if spares { watermark::floor(memory).saturating_sub(watermark::free_beside(memory)) } else { 0 };
        let count = memory.boot_free.set_aside(order, most, floor);
        (count, count << order.index())
    } else {
        (most.min(watermark::bulk_spare(memory) >> order.index()), 0)
    };
    (count > 0).then_some(Share { count, pages })
}

/// How many frames may be taken from `source` without touching the reserve.
pub(crate) fn allowance<M: Machine>(memory: &Memory<M>, source: Source) -> u64 {
    let unopened = || memory.zones.cell(source.node, source.kind).unopened(source.origin);
    if source.has_reserve() { memory.boot_free.spare() + unopened() } else { u64::MAX }
}

/// A frame that was taken says so before the lock is given up under which it was free.
pub(crate) fn mark_allocated<M: Machine>(memory: &Memory<M>, head: Pfn, request: &Request) {
    hand_out(memory, memory.machine.page(head), request);
}

/// The block of that struct page belongs to whoever made the request.
#[inline]
fn hand_out<M: Machine>(memory: &Memory<M>, page: &PageInfo, request: &Request) {
    let terms = match request.mobility {
        Mobility::Movable => Terms::MOVABLE,
        Mobility::Unmovable => unmovable_terms(memory, request.site),
    };
    page.hand_out(request.order, request.owner, terms);
}

/// Apart from the others, whose path it would only make longer.
#[inline(never)]
fn unmovable_terms<M: Machine>(memory: &Memory<M>, site: Site) -> Terms {
    Terms::unmovable(memory.sites.number(site), memory.machine.now_ns())
}

fn take_in_section<M: Machine>(memory: &Memory<M>, request: &Request, id: SectionId, section: Section) -> Option<Pfn> {
    let (BlockState::Online(kind) | BlockState::Shrinking(kind)) = section.state else { return None };
    let source = Source { node: section.node, kind, origin: section.origin, mixing: Mixing::Allowed };
    let wrong_zone = request.mobility == Mobility::Unmovable && kind == ZoneKind::Movable;
    if wrong_zone {
        return None;
    }
    if section.openness != Openness::Open && request.urgency != Urgency::Hotplug {
        open::open(memory, id);
    }
    take_one(memory, source, request, |zone| {
        // It may have left the zone before the lock was ours.
        let serves =
            |now: &Section| matches!(now.state, BlockState::Online(_) | BlockState::Shrinking(_)) && now.is_open();
        let is_same = |now: &Section| now.state.zone() == Some(kind) && now.node == section.node && serves(now);
        memory.sections.get(id).filter(is_same)?;
        let head = zone.take_within(&memory.machine, source.origin, request.order, request.mobility, id)?;
        mark_allocated(memory, head, request);
        Some(head)
    })?
}

/// Puts a block into the cache of this CPU, unless none is kept there, or it is on its way out.
#[inline(always)]
fn keep_at_hand<M: Machine>(memory: &Memory<M>, head: Pfn, order: Order) -> bool {
    let Some(place) = memory.sections.place(head) else { return false };
    let word = Word::read(place);
    let zone = word.zone_number();
    let Some(cache) = memory.caches.find(memory.machine.cpu(), zone) else { return false };
    let mut cache = cache.lock();
    // Under the lock of the cache: whoever takes a section out of its zone empties the caches after saying so.
    if Word::read(place) != word {
        return false;
    }
    // While the reserve is not full, what is freed of boot memory fills it up.
    let is_kept =
        word.is_added_online_and_open() || word.is_online_and_open() && !watermark::is_reserve_short(memory, zone);
    if !is_kept {
        return false;
    }
    let page = memory.machine.page(head);
    let Some(class) = page.served(order).and_then(|mobility| SizeClass::of(order, mobility)) else { return false };
    let stack = cache.stack(word.origin(), class);
    stack.push(page, head, order);
    if stack.len() > class.most() {
        caches::spill(memory, zone, word.origin(), class, stack, class.batch());
    }
    true
}

#[inline(never)]
fn free_slowly<M: Machine>(memory: &Memory<M>, head: Pfn, order: Order) {
    let page = memory.machine.page(head);
    assert!(page.asked_for(order).is_some(), "freed {head:?} of order {order:?}, which is {:?}", page.head());
    let mut is_faulty = false;
    change_zone_of(memory, head, |zone, origin| {
        // Whoever marks it as that does so under the lock of the zone.
        is_faulty = page.is_faulty();
        if is_faulty {
            page.abandon(order);
        } else {
            page.set_head(Head::TAIL);
            zone.area_mut(origin).put(&memory.machine, head, order);
        }
    });
    if is_faulty {
        memory.machine.wake_keeper();
    }
}

/// Works on the zone that a block lies in which is part of a section in two zones.
#[cold]
fn change_mixed_zone_of<M: Machine>(memory: &Memory<M>, head: Pfn, mut work: impl FnMut(&mut Zone, Origin)) {
    let section = memory.sections.open(head).filter(|section| matches!(section.state, BlockState::Mixed(_)));
    let zone = section.and_then(|section| Some(zone_number(section.node, section.state.zone_of(head)?)));
    let zone = zone.unwrap_or_else(|| panic!("{head:?} lies in no block that is in use"));
    memory::change_zone(memory, zone, |zone| work(zone, Origin::Boot));
}

/// Gives blocks of one section back, which is on its way out.
pub(crate) fn free_together<M: Machine>(memory: &Memory<M>, blocks: impl Iterator<Item = (Pfn, Order)> + Clone) {
    let Some((first, _)) = blocks.clone().next() else { return };
    change_zone_of(memory, first, |zone, origin| {
        for (head, order) in blocks.clone() {
            let page = memory.machine.page(head);
            assert!(page.served(order).is_some(), "freed {head:?} of order {order:?}, which is {:?}", page.head());
            page.set_head(Head::TAIL);
            zone.area_mut(origin).put_isolated(&memory.machine, head, order);
        }
    });
}

/// Works on the zone that an allocated block lies in.
fn change_zone_of<M: Machine>(memory: &Memory<M>, head: Pfn, mut work: impl FnMut(&mut Zone, Origin)) {
    let place = memory.sections.place(head);
    let word = || place.map(Word::read).filter(|word| word.is_open());
    loop {
        let Some(before) = word() else { return change_mixed_zone_of(memory, head, work) };
        let is_done = memory::change_zone(memory, before.zone_number(), |zone| {
            // It may have gone to the other zone before the lock was ours.
            let is_same = word().is_some_and(|now| now.zone_number() == before.zone_number());
            if is_same {
                work(zone, before.origin());
            }
            is_same
        });
        if is_done {
            return;
        }
    }
}
