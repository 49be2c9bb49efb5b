//! Which allocated block a frame lies in, and where that was taken.

use crate::addr::{Order, Pfn, PfnRange};
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, PageInfo, PageState};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::site::Site;

/// Where and since when an allocated block of that order was taken, as far as that is recorded: of unmovable memory.
pub(crate) fn provenance<M: Machine>(memory: &Memory<M>, page: &PageInfo, order: Order) -> (Option<Site>, Option<u64>) {
    match page.asked_for(order) {
        Some(Mobility::Unmovable) if !page.is_abandoned() => (memory.sites.site(page.site()), Some(page.since_ns())),
        _ => (None, None),
    }
}

/// The head of the block that `pfn`, which is not free and whose struct page is mapped, lies in, and what it is.
pub(crate) fn containing_block<M: Machine>(memory: &Memory<M>, pfn: Pfn) -> (Pfn, Head) {
    let own = memory.machine.page(pfn).head();
    if own.state != PageState::Tail {
        return (pfn, own);
    }
    Order::all()
        .skip(1)
        .map(|order| pfn.align_down(order))
        .map(|head| (head, memory.machine.page(head).head()))
        .find(|(head, found)| {
            matches!(found.state, PageState::Allocated | PageState::Cached)
                && PfnRange::new(*head, found.order.pages()).contains(pfn)
        })
        .unwrap_or((pfn, own))
}
