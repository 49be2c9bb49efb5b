//! Taking memory of which nobody is told when it moves.

use super::Fake;
use mm::Memory;
use mm::addr::{Order, Pfn, SectionRange};
use mm::alloc::request::Request;
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;

/// A request near node 0, made where it is called.
#[track_caller]
pub(crate) const fn request(order: Order, mobility: Mobility) -> Request {
    Request { order, mobility, ..Request::kernel(Owner::Selftest) }
}

/// All that such requests get.
pub(crate) fn take_all(memory: &Memory<Fake>, request: &Request) -> Vec<Pfn> {
    std::iter::from_fn(|| memory.allocate(request).ok()).collect()
}

/// The same inside a range of sections.
pub(crate) fn take_all_in(memory: &Memory<Fake>, request: &Request, range: SectionRange) -> Vec<Pfn> {
    std::iter::from_fn(|| memory.allocate_within(request, range).ok()).collect()
}
