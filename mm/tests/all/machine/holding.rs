//! Taking and giving back memory that moves, for tests of that.

use super::holders::Holder;
use super::taking::request;
use super::{Fake, booted};
use mm::Memory;
use mm::addr::{Order, Pfn, SectionRange};
use mm::alloc::request::{AllocError, Request};
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::{Head, Owner, PageState};
use std::sync::Arc;

/// A request for movable memory that can move.
#[track_caller]
pub(crate) fn movable(order: Order) -> Request {
    Request { owner: Owner::Anonymous, ..request(order, Mobility::Movable) }
}

/// A machine with two boot sections whose holders can split what they hold.
pub(crate) fn booted_with_holders() -> Arc<Memory<Fake>> {
    let memory = Arc::new(booted());
    assert!(memory.machine().memory.set(Arc::downgrade(&memory)).is_ok(), "it is new");
    memory
}

/// Takes a block for a new holder.
pub(crate) fn hold(memory: &Memory<Fake>, request: &Request) -> Result<Holder, AllocError> {
    let head = memory.allocate(request)?;
    Ok(memory.machine().settle_down(head, request.order))
}

/// The same inside a range of sections.
pub(crate) fn hold_in(memory: &Memory<Fake>, order: Order, range: SectionRange) -> Holder {
    let head = memory.allocate_within(&movable(order), range).expect("there is room");
    memory.machine().settle_down(head, order)
}

/// Gives a holder's block back, wherever it is, unless it was split.
pub(crate) fn release(memory: &Memory<Fake>, holder: Holder) {
    // Whoever is not in the table is not moved any more.
    let place = memory.machine().holders.places.lock().unwrap().remove(&holder);
    if let Some((head, order)) = place {
        memory.free(head, order);
    }
}

/// Where a holder's block is now; `None` if it was given back or split.
pub(crate) fn place_of(memory: &Memory<Fake>, holder: Holder) -> Option<(Pfn, Order)> {
    memory.machine().holders.places.lock().unwrap().get(&holder).copied()
}

/// Every block that somebody holds, with what he has put there.
pub(crate) fn all_places(memory: &Memory<Fake>) -> Vec<(Holder, Pfn, Order)> {
    let places = memory.machine().holders.places.lock().unwrap();
    for (holder, (pfn, order)) in &*places {
        let page = memory.machine().page(*pfn);
        let head = Head { state: PageState::Allocated, order: *order, owner: Owner::Anonymous };
        assert_eq!((page.head(), page.private()), (head, holder.word()), "{pfn} of {holder:?}");
        assert!(page.refs() > 0, "{pfn} of {holder:?} is not frozen");
    }
    places.iter().map(|(holder, (pfn, order))| (*holder, *pfn, *order)).collect()
}
