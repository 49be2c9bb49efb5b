//! Poisoning frames, and finding out whether somebody gets them all the same.

use super::holding::movable;
use super::taking::take_all_in;
use super::{Fake, assert_valid, section};
use mm::Memory;
use mm::addr::{Order, Pfn, PfnRange, SectionRange};
use mm::alloc::request::Request;
use mm::frame::page::Owner;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;

pub(crate) fn poison(memory: &Memory<Fake>, pfn: Pfn) -> Result<(), PoisonError> {
    memory.poison(pfn, &mut Unhurried)
}

pub(crate) fn frame(block: u64, n: u64) -> Pfn {
    section(block).pages().start().add(n)
}

/// Takes all that `range` has, of ever smaller orders, and says whether `pfn` was part of it.
pub(crate) fn is_handed_out(memory: &Memory<Fake>, range: SectionRange, pfn: Pfn) -> bool {
    let mut taken = Vec::new();
    for order in Order::all().rev() {
        let request = Request { owner: Owner::Selftest, ..movable(order) };
        taken.extend(take_all_in(memory, &request, range).into_iter().map(|head| (head, order)));
    }
    let is_in = taken.iter().any(|(head, order)| PfnRange::new(*head, order.pages()).contains(pfn));
    taken.into_iter().for_each(|(head, order)| memory.free(head, order));
    is_in
}

#[track_caller]
pub(crate) fn assert_gone(memory: &Memory<Fake>, pfn: Pfn) {
    assert_eq!(memory.frame_report(pfn).state, FrameState::Poisoned);
    assert!(!is_handed_out(memory, SectionRange::single(pfn.section()), pfn));
    assert_valid(memory);
}
