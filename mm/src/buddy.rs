//! The buddy allocator of one kind of memory: free lists by order, linked through the struct pages of the heads.

use crate::addr::{Order, Pfn};
use crate::machine::Memmap;
use crate::page::{Head, Owner, PageState};

/// The free blocks of one order: most recently freed first, then what came into service, oldest first.
#[derive(Clone, Copy, Debug)]
struct List {
    first: Option<Pfn>,
    last: Option<Pfn>,
    count: u64,
}

impl List {
    const EMPTY: Self = Self { first: None, last: None, count: 0 };
}

/// Free blocks of every order.
///
/// All heads belong to sections for which the owner of these lists answers; blocks merge only within a section, which
/// [`Order::MAX`] guarantees.
#[derive(Debug)]
pub(crate) struct FreeLists {
    lists: [List; Order::COUNT],
    pages: u64,
}

const _: () = assert!(Order::MAX.pages() <= crate::addr::PAGES_PER_SECTION);

impl FreeLists {
    pub(crate) const fn new() -> Self {
        Self { lists: [List::EMPTY; Order::COUNT], pages: 0 }
    }

    /// Free frames.
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Free blocks of `order`.
    pub(crate) const fn count(&self, order: Order) -> u64 {
        self.lists[order.index()].count
    }

    /// Takes a block of `order` off the lists, splitting a larger one if there is none. Its head is left a tail.
    pub(crate) fn take(&mut self, memmap: &impl Memmap, order: Order) -> Option<Pfn> {
        let mut found = order;
        while self.lists[found.index()].first.is_none() {
            found = found.larger()?;
        }
        let head = self.lists[found.index()].first?;
        self.detach(memmap, head, found);
        self.give_back_upper(memmap, head, found, order);
        Some(head)
    }

    /// The same, but rather splits a large block than touches a later section: what came last shall be able to go first.
    /// Only the first block of each list is looked at.
    pub(crate) fn take_early(&mut self, memmap: &impl Memmap, order: Order) -> Option<Pfn> {
        let firsts = Order::all().filter(|found| *found >= order);
        let firsts = firsts.filter_map(|found| Some((self.lists[found.index()].first?, found)));
        let (head, found) = firsts.min_by_key(|(head, _)| head.section())?;
        self.detach(memmap, head, found);
        self.give_back_upper(memmap, head, found, order);
        Some(head)
    }

    /// Takes the free block at `head` off its list and keeps its first 2^`order` frames; the rest goes back.
    pub(crate) fn take_at(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let found = memmap.page(head).head().order;
        self.detach(memmap, head, found);
        self.give_back_upper(memmap, head, found, order);
    }

    fn give_back_upper(&mut self, memmap: &impl Memmap, head: Pfn, from: Order, to: Order) {
        let mut order = from;
        while order > to {
            order = order.smaller().expect("larger than another order");
            self.attach(memmap, head.add(order.pages()), order);
        }
    }

    /// Puts a block on the lists, merged with whichever buddies are free, to be taken next.
    pub(crate) fn put(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let (head, order) = self.merge(memmap, head, order);
        self.attach(memmap, head, order);
    }

    /// The same, to be taken last: memory that comes into service later is used later, and can go first.
    pub(crate) fn put_last(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let (head, order) = self.merge(memmap, head, order);
        let last = self.lists[order.index()].last;
        self.link(memmap, head, order, last, None);
    }

    /// Takes the free buddies of a block off their lists; what they make together.
    fn merge(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) -> (Pfn, Order) {
        let (mut head, mut order) = (head, order);
        while let Some(larger) = order.larger() {
            let buddy = head.buddy(order);
            if memmap.page(buddy).head() != Head::unused(PageState::Free, order) {
                break;
            }
            self.detach(memmap, buddy, order);
            memmap.page(head).set_head(Head::TAIL);
            head = head.align_down(larger);
            order = larger;
        }
        (head, order)
    }

    fn attach(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let first = self.lists[order.index()].first;
        self.link(memmap, head, order, None, first);
    }

    /// Links a block between two neighbours on its list; where one is missing, it becomes that end.
    fn link(&mut self, memmap: &impl Memmap, head: Pfn, order: Order, prev: Option<Pfn>, next: Option<Pfn>) {
        let list = &mut self.lists[order.index()];
        let page = memmap.page(head);
        page.set_head(Head::unused(PageState::Free, order));
        page.set_prev(prev);
        page.set_next(next);
        match prev {
            Some(prev) => memmap.page(prev).set_next(Some(head)),
            None => list.first = Some(head),
        }
        match next {
            Some(next) => memmap.page(next).set_prev(Some(head)),
            None => list.last = Some(head),
        }
        list.count += 1;
        self.pages += order.pages();
    }

    /// Takes a free block off its list; its head is left a tail.
    pub(crate) fn detach(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let page = memmap.page(head);
        debug_assert_eq!(page.head(), Head::unused(PageState::Free, order));
        let list = &mut self.lists[order.index()];
        match page.prev() {
            Some(prev) => memmap.page(prev).set_next(page.next()),
            None => list.first = page.next(),
        }
        match page.next() {
            Some(next) => memmap.page(next).set_prev(page.prev()),
            None => list.last = page.prev(),
        }
        page.set_head(Head::TAIL);
        list.count -= 1;
        self.pages -= order.pages();
    }

    /// Every free block, smallest order first, as the links tell; at most as many as are counted.
    pub(crate) fn walk<'a>(&'a self, memmap: &'a impl Memmap) -> impl Iterator<Item = (Pfn, Order)> + 'a {
        Order::all().flat_map(move |order| {
            let list = &self.lists[order.index()];
            core::iter::successors(list.first, move |head| memmap.page(*head).next())
                .take(list.count as usize + 1)
                .map(move |head| (head, order))
        })
    }
}

/// Marks the block at `head` as allocated.
pub(crate) fn mark_allocated(memmap: &impl Memmap, head: Pfn, order: Order, owner: Owner) {
    let page = memmap.page(head);
    page.set_head(Head { state: PageState::Allocated, order, owner });
    page.set_refs(1);
    page.set_private(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PfnRange;
    use crate::testing::Table;
    use proptest::prelude::*;

    fn full(pages: u64) -> (Table, FreeLists) {
        let table = Table::new(pages);
        let mut lists = FreeLists::new();
        for (head, order) in PfnRange::new(Pfn::new(0), pages).blocks() {
            lists.put(&table, head, order);
        }
        (table, lists)
    }

    #[test]
    fn taking_a_frame_splits_the_smallest_block_that_serves() {
        let (table, mut lists) = full(1024 + 8);
        assert_eq!(lists.take(&table, Order::PAGE), Some(Pfn::new(1024)));
        assert_eq!(lists.count(Order::MAX), 1);
        assert_eq!(lists.pages(), 1024 + 7);
    }

    #[test]
    fn a_block_taken_at_its_head_gives_the_rest_back() {
        let (table, mut lists) = full(1024);
        lists.take_at(&table, Pfn::new(0), Order::PAGE);
        assert_eq!(lists.pages(), 1023);
        lists.put(&table, Pfn::new(0), Order::PAGE);
        assert_eq!(lists.count(Order::MAX), 1);
    }

    #[test]
    fn a_later_section_is_left_alone_while_an_earlier_one_serves() {
        let section = crate::addr::PAGES_PER_SECTION;
        let table = Table::new(2 * section);
        let mut lists = FreeLists::new();
        // As after an altmap: each section begins with a small piece.
        for start in [0, section] {
            lists.put_last(&table, Pfn::new(start + 256), Order::new(8).expect("kept"));
            lists.put_last(&table, Pfn::new(start + 1024), Order::MAX);
        }
        for _ in 0..256 + 1024 {
            let head = lists.take_early(&table, Order::PAGE).expect("free");
            assert_eq!(head.section().number(), 0);
        }
        assert_eq!(lists.take_early(&table, Order::PAGE), Some(Pfn::new(section + 256)));
    }

    #[test]
    fn what_came_last_is_taken_last() {
        let table = Table::new(4096);
        let mut lists = FreeLists::new();
        for head in [0, 1024, 2048] {
            lists.put_last(&table, Pfn::new(head), Order::MAX);
        }
        let first = lists.take(&table, Order::MAX);
        lists.put_last(&table, Pfn::new(3072), Order::MAX);
        assert_eq!(first, Some(Pfn::new(0)));
        // What was just freed comes before what was never used.
        lists.put(&table, Pfn::new(0), Order::MAX);
        let taken = core::array::from_fn(|_| lists.take(&table, Order::MAX));
        assert_eq!(taken, [0, 1024, 2048, 3072].map(|head| Some(Pfn::new(head))));
        assert_eq!(lists.take(&table, Order::MAX), None);
        lists.put_last(&table, Pfn::new(1024), Order::MAX);
        assert_eq!(lists.walk(&table).count(), 1);
    }

    proptest! {
        #[test]
        fn freeing_everything_in_any_order_restores_the_largest_blocks(
            orders in proptest::collection::vec(0u8..=10, 1..60),
            seed in any::<u64>(),
        ) {
            let (table, mut lists) = full(8192);
            let mut taken: std::vec::Vec<_> = orders
                .iter()
                .filter_map(|n| {
                    let order = Order::new(*n).expect("kept");
                    let head = lists.take(&table, order)?;
                    mark_allocated(&table, head, order, Owner::Selftest);
                    Some((head, order))
                })
                .collect();
            let allocated: u64 = taken.iter().map(|(_, order)| order.pages()).sum();
            prop_assert_eq!(lists.pages() + allocated, 8192);
            let mut state = seed;
            while !taken.is_empty() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (head, order) = taken.swap_remove((state >> 33) as usize % taken.len());
                lists.put(&table, head, order);
            }
            prop_assert_eq!(lists.count(Order::MAX), 8);
            prop_assert_eq!(lists.walk(&table).count(), 8);
        }
    }
    extern crate std;
}
