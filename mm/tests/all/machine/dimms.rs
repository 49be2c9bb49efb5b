//! DIMMs that come, and their blocks that go online and offline.

use super::{Fake, dimm, node};
use mm::Memory;
use mm::addr::SectionRange;
use mm::hotplug::{AddError, AddRequest};
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;

pub(crate) const MOVABLE: OnlineAs = OnlineAs::Zone(ZoneKind::Movable);
pub(crate) const NORMAL: OnlineAs = OnlineAs::Zone(ZoneKind::Normal);

/// Adds blocks on a node as DIMM `number`.
pub(crate) fn add(memory: &Memory<Fake>, number: u16, range: SectionRange, on: u32) -> Result<(), AddError> {
    memory.add(&AddRequest { range, node: node(on), name: dimm(number) }, &mut Unhurried).map(drop)
}

/// The same where nothing is.
#[track_caller]
pub(crate) fn plug(memory: &Memory<Fake>, number: u16, range: SectionRange, on: u32) {
    add(memory, number, range, on).expect("vacant");
}

/// The same, and brings them online.
#[track_caller]
pub(crate) fn plug_online(memory: &Memory<Fake>, number: u16, range: SectionRange, on: u32, how: OnlineAs) {
    plug(memory, number, range, on);
    online(memory, range, how);
}

#[track_caller]
pub(crate) fn online(memory: &Memory<Fake>, range: SectionRange, how: OnlineAs) {
    memory.online(&[range], how, &mut Unhurried).expect("offline");
}

#[track_caller]
pub(crate) fn offline(memory: &Memory<Fake>, range: SectionRange) {
    memory.offline(&[range], &mut Unhurried).expect("all of it is free or can move");
}
