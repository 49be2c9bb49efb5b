//! Poisoning frames, and finding out whether somebody gets them all the same.

use super::holding::movable;
use super::{Fake, assert_valid, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, Pfn, PfnRange, SectionRange};
use mm::alloc::request::Request;
use mm::frame::page::Owner;
use mm::hotplug::AddRequest;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;

pub(crate) const MOVABLE: OnlineAs = OnlineAs::Zone(ZoneKind::Movable);
pub(crate) const NORMAL: OnlineAs = OnlineAs::Zone(ZoneKind::Normal);

pub(crate) fn plug(memory: &Memory<Fake>, number: u16, range: SectionRange) {
    memory.add(&AddRequest { range, node: node(1), name: dimm(number) }, &mut Unhurried).expect("vacant");
}

pub(crate) fn online(memory: &Memory<Fake>, range: SectionRange, how: OnlineAs) {
    memory.online(&[range], how, &mut Unhurried).expect("offline");
}

pub(crate) fn offline(memory: &Memory<Fake>, range: SectionRange) {
    memory.offline(&[range], &mut Unhurried).expect("all of it is free or can move");
}

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
        taken.extend(std::iter::from_fn(|| memory.allocate_within(&request, range).ok()).map(|head| (head, order)));
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
