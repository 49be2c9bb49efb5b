//! A zone: the memory of one node that serves one kind of request.
//!
//! A zone keeps two sets of free lists. Memory that was there at boot is handed out before memory that was added, so that
//! what came last can go first.

use crate::addr::{Order, Pfn, PfnRange, SectionId};
use crate::buddy::FreeLists;
use crate::machine::Memmap;
use crate::page::{Head, PageState};
use crate::section::Section;

/// Whether memory was there at boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Boot,
    Added,
}

impl Origin {
    pub(crate) const ALL: [Self; 2] = [Self::Boot, Self::Added];

    pub(crate) fn of(section: Section) -> Self {
        if section.is_boot() { Self::Boot } else { Self::Added }
    }
}

/// The zone's counters and free lists; the caller holds its lock.
#[derive(Debug)]
pub struct Zone {
    free: [FreeLists; Origin::ALL.len()],
    isolated: u64,
    present: u64,
    boot_present: u64,
    managed: u64,
    span: Option<(SectionId, SectionId)>,
}

impl Default for Zone {
    fn default() -> Self {
        Self::new()
    }
}

impl Zone {
    /// An empty zone.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            free: [const { FreeLists::new() }; Origin::ALL.len()],
            isolated: 0,
            present: 0,
            boot_present: 0,
            managed: 0,
            span: None,
        }
    }

    /// Free frames, those of an offline under way not among them.
    pub(crate) fn free_pages(&self) -> u64 {
        self.free.iter().map(FreeLists::pages).sum()
    }

    /// Free frames of one origin.
    pub(crate) fn free_pages_of(&self, origin: Origin) -> u64 {
        self.free[origin as usize].pages()
    }

    /// Free blocks of `order`.
    pub(crate) fn free_blocks(&self, order: Order) -> u64 {
        self.free.iter().map(|lists| lists.count(order)).sum()
    }

    /// Free frames that an offline under way has taken off the lists.
    pub(crate) const fn isolated_pages(&self) -> u64 {
        self.isolated
    }

    pub(crate) const fn present_pages(&self) -> u64 {
        self.present
    }

    /// Present frames that were there at boot.
    pub(crate) const fn boot_present_pages(&self) -> u64 {
        self.boot_present
    }

    pub(crate) const fn managed_pages(&self) -> u64 {
        self.managed
    }

    /// The lowest and highest section, if there is any.
    pub(crate) const fn span(&self) -> Option<(SectionId, SectionId)> {
        self.span
    }

    /// Whether `id` lies between the lowest and the highest section.
    pub(crate) fn spans(&self, id: SectionId) -> bool {
        self.span.is_some_and(|(first, last)| first <= id && id <= last)
    }

    /// Step 4: grows to span a section.
    pub(crate) fn grow(&mut self, id: SectionId, section: Section) {
        self.present += u64::from(section.present);
        if section.is_boot() {
            self.boot_present += u64::from(section.present);
        }
        self.managed += u64::from(section.managed);
        self.span = Some(match self.span {
            None => (id, id),
            Some((first, last)) => (first.min(id), last.max(id)),
        });
    }

    /// Undoes [`grow`](Self::grow); `remaining` are the sections that stay, found from either end.
    pub(crate) fn shrink<I>(&mut self, id: SectionId, section: Section, mut remaining: I)
    where
        I: DoubleEndedIterator<Item = SectionId>,
    {
        self.present -= u64::from(section.present);
        if section.is_boot() {
            self.boot_present -= u64::from(section.present);
        }
        self.managed -= u64::from(section.managed);
        let (first, last) = self.span.expect("a zone with a section has a span");
        if id == first || id == last {
            let low = remaining.next();
            self.span = low.map(|low| (low, remaining.next_back().unwrap_or(low)));
        }
    }

    /// Takes a block for somebody; its head is left a tail.
    pub(crate) fn take(&mut self, memmap: &impl Memmap, origin: Origin, order: Order) -> Option<Pfn> {
        let lists = &mut self.free[origin as usize];
        match origin {
            Origin::Boot => lists.take(memmap, order),
            Origin::Added => lists.take_early(memmap, order),
        }
    }

    /// Takes the lowest block that serves inside `range`, which belongs to sections of `origin`.
    pub(crate) fn take_within(
        &mut self,
        memmap: &impl Memmap,
        origin: Origin,
        order: Order,
        range: PfnRange,
    ) -> Option<Pfn> {
        let lists = &mut self.free[origin as usize];
        let mut at = range.start();
        while at < range.end() {
            let head = memmap.page(at).head();
            if head.state == PageState::Free && head.order >= order {
                lists.take_at(memmap, at, order);
                return Some(at);
            }
            at = at.add(stride(head));
        }
        None
    }

    /// Step 6: a block comes into service, or back into it, to be used after those that are there already.
    pub(crate) fn put_new(&mut self, memmap: &impl Memmap, origin: Origin, head: Pfn, order: Order) {
        self.free[origin as usize].put_last(memmap, head, order);
    }

    /// A block is given back.
    pub(crate) fn put(&mut self, memmap: &impl Memmap, origin: Origin, head: Pfn, order: Order) {
        self.free[origin as usize].put(memmap, head, order);
    }

    /// A block is freed while its section is on its way out: it goes to no list.
    pub(crate) fn put_isolated(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        memmap.page(head).set_head(Head::unused(PageState::Isolated, order));
        self.isolated += order.pages();
    }

    /// Takes the free blocks in `range` off the lists.
    pub(crate) fn isolate(&mut self, memmap: &impl Memmap, origin: Origin, range: PfnRange) {
        for_each_head(memmap, range, |at, head| {
            if head.state == PageState::Free {
                self.free[origin as usize].detach(memmap, at, head.order);
                self.put_isolated(memmap, at, head.order);
            }
        });
    }

    /// Puts the isolated blocks in `range` back on the lists.
    pub(crate) fn unisolate(&mut self, memmap: &impl Memmap, origin: Origin, range: PfnRange) {
        for_each_head(memmap, range, |at, head| {
            if head.state == PageState::Isolated {
                memmap.page(at).set_head(Head::TAIL);
                self.isolated -= head.order.pages();
                self.put_new(memmap, origin, at, head.order);
            }
        });
    }

    /// Takes the isolated blocks in `range` out of the zone; their struct pages are left as they are.
    pub(crate) fn retire(&mut self, memmap: &impl Memmap, range: PfnRange) {
        for_each_head(memmap, range, |_, head| {
            if head.state == PageState::Isolated {
                self.isolated -= head.order.pages();
            }
        });
    }

    /// Every free block of one origin, as the lists link them.
    pub(crate) fn walk<'a>(
        &'a self,
        memmap: &'a impl Memmap,
        origin: Origin,
    ) -> impl Iterator<Item = (Pfn, Order)> + 'a {
        self.free[origin as usize].walk(memmap)
    }
}

/// How far the next head is.
pub(crate) fn stride(head: Head) -> u64 {
    match head.state {
        PageState::Free | PageState::Isolated | PageState::Allocated => head.order.pages(),
        _ => 1,
    }
}

/// Visits `range` from head to head.
pub(crate) fn for_each_head(memmap: &impl Memmap, range: PfnRange, mut visit: impl FnMut(Pfn, Head)) {
    let mut at = range.start();
    while at < range.end() {
        let head = memmap.page(at).head();
        visit(at, head);
        at = at.add(stride(head));
    }
}
