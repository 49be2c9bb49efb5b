//! Recounting spaces: their tables, what those map, and what the frames say of that.

use super::AddressSpace;
use super::migrate::whose;
use super::rmap::{self, Whose};
use crate::memory::{Slot, mm, space_table_bytes};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::frame::memmap::Memmap;
use mm::frame::page::{Head, Owner, PageState};
use mm::observe::validate::Problem;

/// Looks at every table and page of all spaces; `found` hears of what does not add up. Nobody else runs meanwhile, and no
/// tables are on their way elsewhere; pages may be.
pub(crate) fn recount(found: &mut dyn FnMut(Problem)) {
    let (mut tables, mut is_settled) = (0, true);
    let mut last = None;
    while let Some((id, space)) = rmap::next(last) {
        last = Some(id);
        match space {
            Some(space) => tables += space.recount(found),
            // It is being made or given back, and some of its tables are there.
            None => is_settled = false,
        }
    }
    let kept = space_table_bytes() / PAGE_SIZE;
    if is_settled && kept != tables {
        found(Problem::Count { of: "page tables of spaces", zone: None, block: None, kept, counted: tables });
    }
}

impl AddressSpace {
    /// Says how many tables it has.
    fn recount(&self, found: &mut dyn FnMut(Problem)) -> u64 {
        let mut count = 0;
        let mut page = 0;
        while page < self.page_count() {
            // One at a time: whoever hears of a problem may need memory, and others get their interrupts.
            let mut tree = self.lock();
            let tables = tree.tables_from(page);
            let (place, slot) = tree.look(page);
            drop(tree);
            count += tables.len() as u64;
            for pfn in tables {
                let is_own = |whose: Whose| whose.space == self.id;
                if !is_block_of(pfn, Owner::UserTable, Order::PAGE, is_own) {
                    found(Problem::Page { pfn, what: "is a page table of a space, and says that it is not" });
                }
            }
            if let Slot::Mapped(leaf) = slot {
                let is_it = |whose: Whose| whose.word() == self.word_of(page);
                if !is_block_of(leaf.frame, Owner::Anonymous, leaf.order, is_it) {
                    found(Problem::Page { pfn: leaf.frame, what: "is a page of a space, and says that it is not" });
                }
            }
            page = place.end(page);
        }
        count
    }
}

/// Whether an allocated block of that owner and order begins there, with a word that is right.
fn is_block_of(frame: Pfn, owner: Owner, order: Order, is_right: impl FnOnce(Whose) -> bool) -> bool {
    // Without a word there may be no struct page.
    whose(frame).is_some_and(is_right)
        && mm().machine().page(frame).head() == Head { state: PageState::Allocated, order, owner }
}
