//! The buddy allocator of one kind of memory: free lists by order, linked through the struct pages of the heads.

use crate::addr::{Order, Pfn};
use crate::machine::Memmap;
use crate::page::{Head, Owner, PageState};

/// The free blocks of one order, most recently freed first.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: Option<Pfn>,
    count: u64,
}

/// Free blocks of every order.
///
/// All heads belong to sections for which the owner of these lists answers; blocks merge only within a section, which
/// [`Order::MAX`] guarantees.
#[derive(Debug, Default)]
pub(crate) struct FreeLists {
    lists: [List; Order::COUNT],
    pages: u64,
}

const _: () = assert!(Order::MAX.pages() <= crate::addr::PAGES_PER_SECTION);

impl FreeLists {
    pub(crate) const fn new() -> Self {
        Self { lists: [List { first: None, count: 0 }; Order::COUNT], pages: 0 }
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

    /// Puts a block on the lists, merged with whichever buddies are free.
    pub(crate) fn put(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
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
        self.attach(memmap, head, order);
    }

    fn attach(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        let list = &mut self.lists[order.index()];
        let page = memmap.page(head);
        page.set_head(Head::unused(PageState::Free, order));
        page.set_prev(None);
        page.set_next(list.first);
        if let Some(next) = list.first {
            memmap.page(next).set_prev(Some(head));
        }
        list.first = Some(head);
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
        if let Some(next) = page.next() {
            memmap.page(next).set_prev(page.prev());
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
